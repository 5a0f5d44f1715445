"""An anchor for the trained arms: ridge regression on features that nothing has trained here.

The features of an image are the mean activations of the last three blocks that the network keeps,
before their pooling (of VGG-16 conv3_3, conv4_3 and conv5_3: 1,280 numbers), over one centre crop.
With `config.model.weights=none` they are those of the arms' random initial backbone: a baseline
that no pretraining helps.
"""

import concurrent.futures
import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rank_ssl import checkpoint, logs, plots, train
from rank_ssl.changes import since
from rank_ssl.config import Config
from rank_ssl.data import Records, Splits
from rank_ssl.errors import UserError
from rank_ssl.evaluate import Evaluation
from rank_ssl.models.build import build_backbone
from rank_ssl.models.pixels import preprocess
from rank_ssl.models.vgg import block_features
from rank_ssl.ops import images
from rank_ssl.progress import Progress, RateMeter
from rank_ssl.results import facts
from rank_ssl.types import Task

SIDE = 224  # of the crop, px: the input that the pretrained weights saw, whatever the arms see
BLOCKS = 3  # last ones whose activations are taken
BATCH = 8  # images computed at once
GROUPS = ('best/val/', 'test/')  # names of result.json that metrics.jsonl has too
PENALTIES = tuple(10.0 ** (half / 2) for half in range(10, 1, -1))  # 1e5 to 10, strongest first


@dataclasses.dataclass(frozen=True)
class Ridge:
    """A linear model of standardised features."""

    mean: np.ndarray  # f64[D], of the features it was fitted to
    scale: np.ndarray  # f64[D], their deviations; 1 where that is 0
    weight: np.ndarray  # f64[D]
    bias: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Predictions for features. [N, D] -> f64[N]."""
        return (features - self.mean) / self.scale @ self.weight + self.bias


def fit_ridges(features: np.ndarray, target: np.ndarray, penalties: Sequence[float]) -> list[Ridge]:
    """For each penalty the model of least |y - f(x)|^2 + penalty |weight|^2. [N, D], [N].

    Penalties are above 0, for standardised features and summed errors; the bias bears none.
    """
    mean, deviation, bias = features.mean(0), features.std(0), float(target.mean())
    # Equal numbers may have a mean that differs from them, and so a deviation.
    scale = np.where(np.ptp(features, axis=0) > 0, deviation, 1)
    # Thin: no larger than the smaller of the primal and the dual form, for all penalties at once.
    u, s, vt = np.linalg.svd((features - mean) / scale, full_matrices=False)
    shares = u.T @ (target - bias)
    weights = [s / (s**2 + penalty) * shares @ vt for penalty in penalties]
    return [Ridge(mean, scale, weight, bias) for weight in weights]


def centre_crop(image: np.ndarray, side: int) -> np.ndarray:
    """The middle square of `side` px, u8[side, side, 3]; a smaller image is mirrored up to it."""
    image = images.extend(image, side)
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]


class Extractor:
    """Features f64[N, D] of records, with a line of progress over the `total` it will see."""

    def __init__(self, config: Config, *, total: int) -> None:
        self._threads = config.data.threads
        self._progress, self._meter = Progress(total), RateMeter()
        self._total, self._done = total, 0
        last = config.model.blocks
        blocks = range(max(1, last - BLOCKS + 1), last + 1)
        # The key of a run's initial parameters.
        key, _ = jax.random.split(jax.random.key(config.seed))
        network, self._convs = build_backbone(config, key=key)
        backbone = network.backbone

        def one(convs: Any, image: jax.Array) -> jax.Array:
            x = preprocess(image, network.pixels)
            maps = block_features(
                convs, x, layout=backbone.layout, blocks=blocks, dtype=backbone.dtype
            )
            return jnp.concatenate([m.astype(jnp.float32).mean((0, 1)) for m in maps])

        self._compute = jax.jit(jax.vmap(one, (None, 0)))

    @property
    def images_per_second(self) -> float:
        """Over the last batches."""
        return self._meter.images_per_second

    def __call__(self, records: Records) -> np.ndarray:
        """One row an image, in the records' order."""
        found: list[np.ndarray] = []
        ahead: Any = []  # computed while the next images are read
        with concurrent.futures.ThreadPoolExecutor(self._threads) as pool:
            for start in range(0, len(records), BATCH):
                rows = range(start, min(start + BATCH, len(records)))
                crops = np.zeros((BATCH, SIDE, SIDE, 3), np.uint8)
                read = pool.map(lambda i: centre_crop(records[i]['image'], SIDE), rows)
                for crop, made in zip(crops, read, strict=False):
                    crop[:] = made
                found.extend(np.asarray(ahead))
                ahead = self._compute(self._convs, crops)[: len(rows)]
                self._show(len(rows))
            found.extend(np.asarray(ahead))
        return np.array(found, np.float64)

    def _show(self, images: int) -> None:
        self._meter.add(images)
        tenth = max(1, self._total // 10)
        due = self._done // tenth < (self._done + images) // tenth
        self._done += images
        if due:
            self._progress.line(self._done, self._meter.images_per_second, {})

    def close(self) -> None:
        """Ends the line of progress."""
        self._progress.close()


def finished(config: Config, workdir: pathlib.Path, splits: Splits) -> dict[str, Any] | None:
    """The result.json of an anchor of this config and these rows, where the workdir holds one."""
    result = logs.read_result(workdir)
    if result is None or since(result.get('config', {}), config):
        return None
    return result if result['data_fingerprint'] == splits.fingerprint else None


def run_anchor(config: Config, workdir: pathlib.Path, splits: Splits) -> dict[str, Any]:
    """Fits to the labeled split, chooses the penalty on validation, and returns result.json.

    That and predictions.csv are written as by a trained run, so the anchor is an arm of a grid like
    any other: its `steps` are those that the config asks for, as none is left to take. Raises
    UserError where the workdir holds a trained run, for a task of maps, and for a wrong field or
    weights file.
    """
    began = time.perf_counter()
    if config.mode != 'train':
        raise UserError(f'config.mode={config.mode}: regime=ridge fits and evaluates in mode train')
    if config.task.target_shape():
        raise UserError(
            'config.regime=ridge predicts one score from one crop, and the task '
            f'{type(config.task).__name__} has maps as targets: use baseline'
        )
    if checkpoint.saved_steps(workdir / 'checkpoints'):
        raise UserError(f'--workdir={workdir} holds a trained run: use another --workdir for ridge')
    train.check_unused(workdir)
    task, tested = config.task, config.evaluate_test
    total = len(splits.labeled) + len(splits.validation) + (len(splits.test) if tested else 0)
    extract = Extractor(config, total=total)
    features, validation = extract(splits.labeled), extract(splits.validation)
    target = np.array([task.label(record) for record in splits.labeled.annotations])
    fits = zip(PENALTIES, fit_ridges(features, target, PENALTIES), strict=True)
    true = np.array([task.label(record) for record in splits.validation.annotations])
    # A rank correlation of so few images would choose by chance (BUILD_NOTES.md).
    penalty, ridge = min(fits, key=lambda fit: float(np.mean((fit[1](validation) - true) ** 2)))
    chosen = evaluate(task, ridge, validation, splits.validation)
    found = evaluate(task, ridge, extract(splits.test), splits.test) if tested else chosen
    extract.close()
    # Those of single kinds of images are for the test split.
    validated = {name: value for name, value in chosen.metrics.items() if '/' not in name}
    result = {
        'steps': config.steps,
        'best_step': 0,
        **{f'test/{name}': value for name, value in found.metrics.items() if tested},
        **{f'best/val/{name}': value for name, value in validated.items()},
        **{f'final/val/{name}': value for name, value in validated.items()},
        'params_sha256': checkpoint.params_sha256(
            jax.tree.map(np.asarray, dataclasses.asdict(ridge))
        ),
        'penalty': penalty,
        'seconds': round(time.perf_counter() - began, 3),
        'images_per_second': extract.images_per_second,
        'skipped_steps': 0,
        'compiled_eval_shapes': 1,
        **facts(config, splits),
    }
    if jax.process_index() == 0:
        _write(config, workdir, result, found)
    return result


def evaluate(task: Task, ridge: Ridge, features: np.ndarray, records: Records) -> Evaluation:
    """The model's predictions on a split, and their metrics."""
    annotations = records.annotations
    true = np.array([task.label(record) for record in annotations])
    predicted = ridge(features)
    return Evaluation(
        records=annotations,
        true=true,
        predicted=predicted,
        metrics=task.metrics(predicted, true, annotations),
        drawn=[],
    )


def _write(
    config: Config, workdir: pathlib.Path, result: dict[str, Any], found: Evaluation
) -> None:
    logs.write_json(workdir / 'config.json', config.to_dict())
    with logs.writing(workdir / 'predictions.csv'):
        found.write_csv(workdir / 'predictions.csv', config.task)
    measured = {n.removeprefix('best/'): v for n, v in result.items() if n.startswith(GROUPS)}
    with logs.MetricsLog(workdir, resume_step=None) as log:
        log.write(0, measured)
    folder = workdir / 'figures'
    folder.mkdir(exist_ok=True)
    figures = config.task.figures([], found.predicted, found.true, found.records)
    for name, figure in figures.items():
        plots.save(figure, folder / f'{name}.png')
    logs.write_json(workdir / 'result.json', result)  # last: it marks a finished run
