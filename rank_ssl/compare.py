"""Paired comparisons of a grid's arms: differences seed by seed and bootstrap intervals."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rank_ssl.errors import UserError
from rank_ssl.grid import SPLIT, metric_name
from rank_ssl.predictions import Run, Values, paired, predictions
from rank_ssl.types import Task

DRAWS = 2000  # bootstrap draws of an interval


Results = Sequence[tuple[Run, Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Pooled:
    """The folds of one arm and seed."""

    arm: str
    seed: int
    folders: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True)
class Difference:
    """`other - one` in a metric."""

    one: str
    other: str
    metric: str
    by_seed: dict[int, float]
    interval: tuple[float, float] | None = None  # 95 %; None where it was not asked for
    over: str = ''  # what the interval is drawn from, or why there is none

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(list(self.by_seed.values())))

    @property
    def decided(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.interval is not None and self.interval[0] * self.interval[1] > 0

    def __str__(self) -> str:
        digits = decimals(self.metric)
        seeds = ', '.join(f'{difference:+.{digits}f}' for difference in self.by_seed.values())
        head = f'{self.other} - {self.one}: {self.metric} {self.mean:+.{digits}f}'
        text = f'{head} (by seed {seeds})'
        if self.interval is None:
            return f'{text}; {self.over}' if self.over else text
        verdict = 'decided' if self.decided else 'not decidable at this scale'
        return f'{text}; 95 % over {self.over} {self.bounds}: {verdict}'

    @property
    def bounds(self) -> str:
        """The interval as text."""
        low, high = self.interval or (math.nan, math.nan)
        digits = decimals(self.metric)
        return f'[{low:+.{digits}f}, {high:+.{digits}f}]'

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as table.json holds them."""
        return {**dataclasses.asdict(self), 'mean': self.mean, 'decided': self.decided}


def decimals(metric: str) -> int:
    """Decimals to print: three for correlations, two for the rest."""
    return 3 if {'lcc', 'srocc'} & set(metric.split('/')) else 2


def by_arm(results: Results) -> dict[str, list[tuple[Run, Mapping[str, Any]]]]:
    """The results of each arm, in the order in which the arms come."""
    arms: dict[str, list[tuple[Run, Mapping[str, Any]]]] = {}
    for run, result in results:
        arms.setdefault(run.arm, []).append((run, result))
    return arms


def compare(task: Task, one: Results, other: Results) -> str:
    """`other - one` in words: `difference` in the metric that the grid is compared by."""
    return str(difference(task, one, other))


def difference(task: Task, one: Results, other: Results, *, name: str = '') -> Difference:
    """The seeds' paired differences in the metric `name` (the task's best), on test an interval.

    The interval is a bootstrap over seeds and test images, or references where images have one, the
    same draw for both arms: what other labels and other images would change. Seeds that split anew
    may share test images, which it takes as drawn apart. A seed that one arm lacks is left out.
    Raises UserError where the two arms have other true values for the same images.
    """
    metric = f'{metric_name(task).rpartition("/")[0]}/{name or task.best}'
    found = {run.seed: (run, result) for run, result in other}
    pairs = [(run, *found[run.seed], result) for run, result in one if run.seed in found]
    by_seed = {a.seed: float(to[metric] - from_[metric]) for a, _, to, from_ in pairs}
    made = Difference(one[0][0].arm, other[0][0].arm, metric, by_seed)
    if SPLIT.value != 'test':
        return made
    values = [paired(a, b) for a, b, *_ in pairs]
    if not all(np.array_equal(a.ids, b.ids) for a, b in values):
        return dataclasses.replace(made, over='not paired: their test images are not the same')
    bounds = interval(task, values, name=name)
    return dataclasses.replace(made, interval=bounds, over=drawn_from(values))


def drawn_from(pairs: Sequence[tuple[Values, Values]]) -> str:
    """What the interval of these pairs is drawn from, in words."""
    units, images = len(np.unique(pairs[0][0].groups)), len(pairs[0][0].true)
    what = f'{images} test images' if units == images else f'{units} references of {images} images'
    return f'{len(pairs)} seeds and {what}{"" if _one_test(pairs) else " each"}'


def interval(
    task: Task, pairs: Sequence[tuple[Values, Values]], *, name: str = ''
) -> tuple[float, float]:
    """95 % of the paired difference in the task's metric `name`, '' its best.

    nan for one seed, which decides nothing, and where a prediction is not finite.
    """
    finite = all(
        np.isfinite(v).all() for pair in pairs for arm in pair for v in (arm.true, arm.predicted)
    )
    if len(pairs) < 2 or not finite:
        return math.nan, math.nan
    rng = np.random.Generator(np.random.Philox(key=0))
    one_test = _one_test(pairs)
    found = []
    for _ in range(DRAWS):
        shared = _places(rng, pairs[0][0])
        differences = []
        for a, b in (pairs[seed] for seed in rng.integers(len(pairs), size=len(pairs))):
            # Where each seed splits anew, its test images are its own.
            places = shared if one_test else _places(rng, a)
            differences.append(_value(task, b, places, name) - _value(task, a, places, name))
        found.append(np.mean(differences))
    low, high = np.nanquantile(found, (0.025, 0.975))
    return float(low), float(high)


def _one_test(pairs: Sequence[tuple[Values, Values]]) -> bool:
    """Whether all seeds are tested on the same images."""
    return all(np.array_equal(a.ids, pairs[0][0].ids) for a, _ in pairs)


def _places(rng: np.random.Generator, values: Values) -> np.ndarray:
    """A bootstrap draw of test images; those made from one reference are drawn together."""
    starts, members = np.unique(values.groups, return_inverse=True)
    drawn = rng.integers(len(starts), size=len(starts))
    if len(starts) == len(members):
        return drawn
    return np.concatenate([np.flatnonzero(members == group) for group in drawn])


def _value(task: Task, values: Values, places: np.ndarray, name: str) -> float:
    return task.metrics(values.predicted[places], values.true[places])[name or task.best]


def pooled(task: Task, results: Results) -> list[tuple[Run, dict[str, Any]]]:
    """The results with the folds of each arm and seed as one: their test images together.

    Its result has the metrics over all images, those of each fold as `test/mae/fold_1`, the mean
    of validation and the sum of test images. Runs of no fold stay as they are.
    """
    groups: dict[tuple[str, int, bool], list[tuple[Any, Mapping[str, Any]]]] = {}
    for place, (run, result) in enumerate(results):
        fold = getattr(run, 'fold', 0)
        groups.setdefault((run.arm, run.seed if fold else place, bool(fold)), []).append(
            (run, result)
        )
    return [
        _pool(task, runs) if folds else (runs[0][0], dict(runs[0][1]))
        for (*_, folds), runs in groups.items()
    ]


def _pool(task: Task, runs: Sequence[tuple[Any, Mapping[str, Any]]]) -> tuple[Run, dict[str, Any]]:
    first, result = runs[0]
    whole = Pooled(first.arm, first.seed, tuple(f for run, _ in runs for f in run.folders))
    values = predictions(whole)
    if len(np.unique(values.ids)) < len(values.ids):
        raise UserError(
            f'--folds: two folds of {first.arm}, seed {first.seed} test the same images; name the '
            'folds of a data set that has them, each once'
        )
    made = {name: value for name, value in result.items() if not name.startswith('test/')}
    if SPLIT.value == 'test':
        finite = np.isfinite(values.predicted).all()
        found = task.metrics(values.predicted if finite else values.true, values.true)
        made |= {f'test/{name}': value if finite else math.nan for name, value in found.items()}
    for name in result:
        if name.startswith(('best/val/', 'final/val/')):
            made[name] = float(np.mean([part[name] for _, part in runs]))
    metric = metric_name(task)
    made |= {f'{metric}/fold_{run.fold}': part[metric] for run, part in runs}
    made['test_images'] = sum(part['test_images'] for _, part in runs)
    made['best_step'] = ', '.join(str(part['best_step']) for _, part in runs)
    return whole, {**made, 'folds': [run.fold for run, _ in runs]}
