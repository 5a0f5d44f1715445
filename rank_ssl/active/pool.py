"""A person's own photos: a finished run says which of them to label next."""

import contextlib
import itertools
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rank_ssl import checkpoint, parallel, plots
from rank_ssl.active.acquired import csv_text, text_of, write_csv
from rank_ssl.active.measures import Measures
from rank_ssl.active.photos import Photos, prepare, show, without
from rank_ssl.active.rules import RANKING, RULES, Question, certainty_of, chosen, tied_at_cut
from rank_ssl.config import Config
from rank_ssl.data import ACQUIRE, Records, counter_rng
from rank_ssl.errors import UserError
from rank_ssl.evaluate import Evaluator
from rank_ssl.models.build import build_network
from rank_ssl.models.network import Network, Params, init_params, make_apply
from rank_ssl.ops import images
from rank_ssl.types import Task

THUMBNAIL = 320  # px, longer side


class Trained(NamedTuple):
    """A run's network with the parameters that its validation chose."""

    network: Network
    params: Params
    step: int  # since the first of all its trainings


def ask(
    config: Config,
    workdir: pathlib.Path,
    folder: pathlib.Path,
    *,
    count: int,
    rule: str = 'certainty',
    skip: pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes which photos of a folder to label first, and returns where: WORKDIR/to_label/...

    to_label.csv holds the `count` first, all.csv all of them, sheet.png small pictures; no other
    list is overwritten. Photos that `skip`, a table with a column `file`, names are left out.
    Raises UserError.
    """
    trained = load_trained(config, run_folder(workdir))
    records = without(prepare(config, workdir, folder), skip)
    photos = Photos(config.task, records)
    mesh = parallel.make_mesh()
    trained = trained._replace(params=parallel.replicate(trained.params, mesh))
    predicted = predictions(config, trained, mesh, photos, progress=show('predicting'))
    count = min(count, len(photos))
    rng = counter_rng(config.seed, ACQUIRE, trained.step, 0)
    measured = Measures(
        config,
        trained.params,
        mesh,
        photos,
        pixels=trained.network.pixels,
        step=trained.step,
        progress=show('asking'),
    )
    nobody = np.zeros(0, np.int64)
    values = RULES[rule](Question(measured, np.arange(len(photos)), nobody, count, rng))
    certainty = np.full(len(photos), np.nan)
    if rule in RANKING:
        certainty = certainty_of(measured.differences)
    order = chosen(values, len(photos), rng)
    rows = _rows(photos.names, order, certainty, values, predicted)
    tables = {'to_label.csv': rows[:count], 'all.csv': rows}
    target = free_folder(workdir / 'to_label' / f'{folder.resolve().name}-{rule}', tables)
    target.mkdir(parents=True, exist_ok=True)
    for name, lines in tables.items():
        write_csv(target / name, lines)
    figure = _sheet(config.task, records, order[:count], rows, rule)
    plots.save(figure, target / 'sheet.png')
    _say(target, count, tied_at_cut(values, order[:count]), certainty)
    return target


def free_folder(
    folder: pathlib.Path, tables: Mapping[str, Sequence[Mapping[str, Any]]]
) -> pathlib.Path:
    """The first of FOLDER, FOLDER-2, FOLDER-3, ... that holds no other list than these tables.

    Raises UserError for what cannot be read.
    """
    texts = {name: csv_text(rows).encode() for name, rows in tables.items()}
    numbered = (folder.with_name(f'{folder.name}-{n}') for n in itertools.count(2))
    places = itertools.chain([folder], numbered)
    return next(p for p in places if not any(_other(p / name, texts[name]) for name in texts))


def _other(path: pathlib.Path, text: bytes) -> bool:
    """Whether something else than these bytes is there."""
    try:
        return path.read_bytes() != text
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}): move it away') from None


def _rows(names: Sequence[str], order: np.ndarray, *columns: np.ndarray) -> list[dict[str, Any]]:
    """The lines of a table, the photo to be labeled first at the top."""
    certainty, values, predicted = columns
    return [
        {
            'rank': rank,
            'file': names[n],
            'certainty': text_of(certainty[n]),
            'value': text_of(values[n]),
            'predicted': f'{predicted[n]:.6g}',
        }
        for rank, n in enumerate(order.tolist(), 1)
    ]


def run_folder(workdir: pathlib.Path) -> pathlib.Path:
    """Where a run's checkpoints are: of active learning in its newest finished cycle."""
    cycles = [p for p in workdir.glob('cycle_*') if re.fullmatch(r'cycle_\d+', p.name)]
    if not cycles:
        return workdir
    finished = [path for path in cycles if (path / 'result.json').exists()]
    if not finished:
        raise UserError(f'--workdir={workdir} holds no finished cycle: go on with the run first')
    return max(finished, key=lambda path: int(path.name.removeprefix('cycle_')))


def load_trained(config: Config, folder: pathlib.Path) -> Trained:
    """The best parameters of a run, by validation. Raises UserError where there are none."""
    meta = checkpoint.of_run(folder)
    if meta is None:
        raise UserError(
            f'--workdir={folder} holds no run with a validated step: train it first with '
            'python -m rank_ssl.main'
        )
    network, _ = build_network(config, pixels=meta['pixels'])
    key = jax.random.key(0)
    like = jax.eval_shape(lambda key: init_params(network, key, config.task.size), key)
    step = meta['best']['step']
    tree = checkpoint.restore_step(folder / 'best', step, {'params': like})
    return Trained(network, tree['params'], meta['config'].get('first_step', 0) + step)


def predictions(
    config: Config,
    trained: Trained,
    mesh: Mesh,
    photos: Photos,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """f of each photo, the mean over its views, f64[N]; the sign as the network has it."""
    evaluator = Evaluator(
        config.task,
        make_apply(trained.network),
        mesh,
        batch=config.eval_batch,
        threads=config.data.threads,
        tile=config.eval_tile,
    )
    examples = photos.examples(config.task, config.seed)
    return evaluator.predictions(trained.params, examples, progress=progress)[0]


def _sheet(
    task: Task, records: Records, order: np.ndarray, rows: Sequence[Mapping[str, Any]], rule: str
) -> Any:
    shown = order[: plots.SHOWN].tolist()
    made = [images.fit_within(records[n]['image'], THUMBNAIL) for n in shown]
    captions = []
    for row in rows[: len(shown)]:
        certainty = f'C = {float(row["certainty"]):.2f}' if row['certainty'] else ''
        score = f'{float(row["predicted"]):.3g} {task.unit}'
        # A line each: what is longer than a picture is wide loses its beginning, here the rank.
        captions.append(f'{row["rank"]}.  {certainty}'.rstrip() + f'\n{score}\n{row["file"]}')
    return plots.sheet(made, captions, title=f'To label next, by {rule}', total=len(order))


def _say(target: pathlib.Path, count: int, tied: float, certainty: np.ndarray) -> None:
    pictures = f' (the first {plots.SHOWN})' if count > plots.SHOWN else ''
    lines = [
        f'{count} of {len(certainty)} photos to label: {target / "to_label.csv"}',
        f'all in their order: {target / "all.csv"}',
        f'as pictures{pictures}: {target / "sheet.png"}',
        f'tied at the cut: {tied:.1%} of the photos; of equal values a draw takes some',
    ]
    if not np.isnan(certainty).all():
        lines.append(f'at C = 1: {np.mean(certainty == 1):.1%} of the photos')
    with contextlib.suppress(BrokenPipeError):
        print('\n'.join(lines), flush=True)
