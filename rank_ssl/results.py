"""What a finished run leaves behind: result.json, predictions and figures."""

import pathlib
from importlib import metadata
from typing import Any

import jax
import numpy as np

from rank_ssl import logs, plots
from rank_ssl.config import Config
from rank_ssl.data import FIGURE, Examples, Splits, counter_rng
from rank_ssl.errors import UserError
from rank_ssl.evaluate import Evaluation
from rank_ssl.progress import Progress
from rank_ssl.train import Run

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'pillow',
            'tensorflow-datasets', 'opencv-python-headless')  # fmt: skip


def finish(run: Run, *, params_sha256: str) -> dict[str, Any]:
    """Evaluates the state's (best) parameters, writes all results and returns result.json.

    This is the one place where the test split is read; with `config.evaluate_test` false the
    predictions and figures are of the validation split. result.json marks a finished run, so it is
    written last; an error of the figures stands in it as `figures_failed` and is then raised.
    Raises UserError where the disk is full.
    """
    config = run.config
    records = run.splits.test if config.evaluate_test else run.splits.validation
    progress = Progress(len(records))
    name = 'test' if config.evaluate_test else 'validation'

    def show(done: int, total: int) -> None:
        if done == total or done % max(1, total // 10) == 0:
            progress.message(f'{name} {done}/{total}')

    found = run.evaluator(
        run.state.params,
        Examples(records, config.task, config.seed),
        draw=config.figure_count,
        progress=show,
    )
    result = {
        'steps': run.step,
        'best_step': run.best['step'],
        **({f'test/{key}': v for key, v in found.metrics.items()} if config.evaluate_test else {}),
        **{f'best/val/{key}': value for key, value in run.best['metrics'].items()},
        **{f'final/val/{key}': value for key, value in run.last.items()},
        'params_sha256': params_sha256,
        **run_facts(run),
    }
    if jax.process_index() == 0:
        with logs.writing(run.workdir / 'predictions.csv'):
            found.write_csv(run.workdir / 'predictions.csv', config.task)
        tested = {name: value for name, value in result.items() if name.startswith('test/')}
        logs.write_last(run.workdir / 'metrics.jsonl', run.step, tested)
        failed = _drawn(run, found)
        if failed is not None:
            result['figures_failed'] = f'{type(failed).__name__}: {failed}'
        logs.write_json(run.workdir / 'result.json', result)
        if failed is not None:
            raise failed
    return result


def _drawn(run: Run, found: Evaluation) -> Exception | None:
    """Draws the figures; the error of one that fails. A full disk is raised: it is no defect."""
    try:
        with logs.writing(run.workdir / 'figures'):
            draw(run, found)
    except UserError:
        raise
    except Exception as error:  # a figure costs no result, whatever it raises
        return error
    return None


def run_facts(run: Run) -> dict[str, Any]:
    """What a table has to name beside the numbers."""
    return {
        'skipped_steps': int(run.state.skipped),
        'seconds': round(run.seconds, 3),
        'images_per_second': run.images_per_second,
        'compiled_eval_shapes': run.evaluator.compiled_shapes,
        **facts(run.config, run.splits),
    }


def facts(config: Config, splits: Splits) -> dict[str, Any]:
    """Those of them that are known before a run."""
    device = jax.devices()[0]
    ranks = config.regime in ('multitask', 'ranking', 'finetune')
    return {
        'regime': config.regime,
        'seed': config.seed,
        'labeled_images': len(splits.labeled) if config.labeled else 0,
        'unlabeled_images': len(splits.unlabeled) if ranks else 0,
        'validation_images': len(splits.validation),
        'test_images': len(splits.test),
        'partial_data': splits.partial,
        'data_fingerprint': splits.fingerprint,
        'unlabeled_fingerprint': splits.unlabeled_fingerprint,
        'device': f'{jax.device_count()} x {device.device_kind} ({device.platform})',
        'processes': jax.process_count(),
        'config': config.to_dict(),
        'versions': {name: metadata.version(name) for name in PACKAGES},
    }


def draw(run: Run, found: Evaluation) -> None:
    """The figures of a run: training curves, one ranked set, and the task's own of a split."""
    folder = run.workdir / 'figures'
    folder.mkdir(exist_ok=True)
    task = run.config.task
    figures = {}
    if np.isfinite(found.predicted).all():
        figures = task.figures(found.drawn, found.predicted, found.true, found.records)
    rows = logs.read_metrics(run.workdir / 'metrics.jsonl')
    if rows:
        figures['curves'] = plots.curves(rows)
    if run.config.ranked and len(run.splits.unlabeled):
        rng = counter_rng(run.config.seed, FIGURE, 0, 0)
        figures['ranked_set'] = task.ranked_figure(rng, run.splits.unlabeled[0])
    for name, figure in figures.items():
        plots.save(figure, pathlib.Path(folder / f'{name}.png'))
