"""Curves of active learning (Fig. 5, 7): the metric against the labels, and the labels saved."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rank_ssl.report.parts import head, number, row, spread
from rank_ssl.report.quality import subject

RANDOM = 'random'  # the arm that the others are held against
# The share of labels at which the paper's rule stands, that random needs for it, and where.
PAPER = {'quality': (0.2, 0.5, 'Fig. 5'), 'counting': (0.2, 0.4, 'Fig. 7')}

Runs = Sequence[tuple[Any, Mapping[str, Any]]]  # cells with `arm` and `seed`, and their results


@dataclasses.dataclass(frozen=True)
class Curve:
    """One arm's metric after each of its trainings."""

    places: tuple[float, ...]  # [P] shares as the settings ask for them: what joins two arms
    shares: NDArray  # f64[P], shares as they came out, mean over seeds
    labeled_units: NDArray  # f64[P], mean over seeds
    units: float  # all training units
    values: dict[int, NDArray]  # seed -> f64[P]

    def table(self) -> NDArray:
        """The values, f64[seeds, P]."""
        return np.stack(list(self.values.values()))

    def at(self, places: Sequence[float]) -> 'Curve':
        """The curve at some of its places."""
        kept = [self.places.index(place) for place in places]
        values = {seed: found[kept] for seed, found in self.values.items()}
        return Curve(tuple(places), self.shares[kept], self.labeled_units[kept], self.units, values)

    def of(self, seeds: Sequence[int]) -> 'Curve':
        """The curve of some of its seeds."""
        return dataclasses.replace(self, values={seed: self.values[seed] for seed in seeds})

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as table.json holds them."""
        table, several = self.table(), len(self.values) > 1
        return {
            **dataclasses.asdict(self),
            'mean': table.mean(0),
            'deviation': table.std(0, ddof=1) if several else None,
            'areas': {seed: area(values) for seed, values in self.values.items()},
        }


def by_place(result: Mapping[str, Any]) -> dict[float, Mapping[str, Any]]:
    """The points of a run's curve by the labeled share that its settings ask for."""
    active = result['config']['active']
    return {
        round(active['start'] + point['cycle'] * active['share'], 6): point
        for point in result['curve']
    }


def curve_of(runs: Runs, metric: str) -> Curve:
    """The curve of one arm's runs, at the places that all of them have."""
    points = {cell.seed: by_place(result) for cell, result in runs}
    places = common(*points.values())

    def of(key: str) -> NDArray:
        return np.array([[found[p][key] for p in places] for found in points.values()], float)

    values = dict(zip(points, of(metric), strict=True))
    total = float(of('units').mean())
    return Curve(places, of('share').mean(0), of('labeled_units').mean(0), total, values)


def common(*places: Any) -> tuple[float, ...]:
    """The places that all of these have, in order."""
    return tuple(sorted(set.intersection(*map(set, places))))


def area(values: ArrayLike) -> float:
    """The area under a curve, as the mean over its points."""
    return float(np.mean(np.asarray(values, np.float64)))


def needed(shares: ArrayLike, values: ArrayLike, target: float, *, lower_is_better: bool) -> float:
    """The share of labels with which a curve first is as good as `target`; nan if it never is.

    Between two points the curve is a line; what is not finite is left out. The first crossing
    counts, though a curve may get worse again after it: it was as good with no more labels, and of
    all readings this one saves least to the rule that is held against the curve. A curve that
    starts no worse than `target` gives its first share: it needs that or less.
    """
    x, y = np.asarray(shares, np.float64), np.asarray(values, np.float64)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    worse = y - target if lower_is_better else target - y
    reached = np.flatnonzero(worse <= 0)
    if not len(reached):
        return math.nan
    last = reached[0]
    if last == 0:
        return float(x[0])
    before, after = worse[last - 1], worse[last]
    return float(x[last - 1] + (x[last] - x[last - 1]) * before / (before - after))


@dataclasses.dataclass(frozen=True)
class Saving:
    """At one share: the labels with which random is as good as a rule."""

    share: float  # at which the rule stands
    value: float  # its metric there, mean over the seeds that both have
    needed: float  # random's share for the same, on its mean curve; nan: not reached
    at_most: bool  # random's first point is as good already
    labels: float  # units saved; below 0: the rule needs more than random
    by_seed: dict[int, float]  # `needed` of each seed's own curves

    @property
    def less(self) -> float:
        """The part of random's labels that is saved."""
        return 1 - self.share / self.needed

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as table.json holds them."""
        return {**dataclasses.asdict(self), 'less': self.less}


def savings(rule: Curve, random: Curve, *, lower_is_better: bool) -> list[Saving]:
    """What a rule saves at each of its shares but the first, at which it has chosen nothing."""
    seeds = [seed for seed in rule.values if seed in random.values]
    if not seeds:
        return []
    rule, random = rule.of(seeds), random.of(seeds)
    ours, mean = rule.table().mean(0), random.table().mean(0)

    def of(curve: NDArray, target: float) -> float:
        return needed(random.shares, curve, target, lower_is_better=lower_is_better)

    found = []
    for i in range(1, len(rule.places)):
        share, by_seed = (
            of(mean, ours[i]),
            {s: of(random.values[s], rule.values[s][i]) for s in seeds},
        )
        labels = (share - rule.shares[i]) * rule.units
        first = bool(share == random.shares[0])
        found.append(Saving(float(rule.shares[i]), float(ours[i]), share, first, labels, by_seed))
    return found


def percent(share: float) -> str:
    """The share as text, nan as 'not reached'."""
    return f'{100 * share:.3g} %' if math.isfinite(share) else 'not reached'


def curves_table(
    curves: Mapping[str, Curve], full: Sequence[float], results: Runs, metric: str, digits: int
) -> str:
    """The metric at each share, a column a rule; the mean over shares; that of all labels."""
    prefix, _, name = metric.rpartition('/')
    places = sorted({place for curve in curves.values() for place in curve.places})
    shared = common(*(curve.places for curve in curves.values()))
    counts = [f'{arm}, {_seeds(len(curve.values))}' for arm, curve in curves.items()]
    lines = head(['labeled', 'units', *counts])
    for place in places:
        having = [curve.at([place]) for curve in curves.values() if place in curve.places]
        cells = [
            spread(curve.at([place]).table()[:, 0], digits) if place in curve.places else ''
            for curve in curves.values()
        ]
        # With other steps of the labels, rounding may give arms other units at one place.
        shares = dict.fromkeys(f'{100 * curve.shares[0]:.3g} %' for curve in having)
        units = dict.fromkeys(f'{curve.labeled_units[0]:.4g}' for curve in having)
        lines.append(row([' / '.join(shares), ' / '.join(units), *cells]))
    if shared:
        means = [curve.at(shared).table().mean(1) for curve in curves.values()]
        cells = [spread(found, digits) for found in means]
        lines.append(row([f'mean of {len(shared)} points', '', *cells]))
    title = f'**{name.upper()} on {subject(results, f"{prefix}/")} by labeled share**'
    lines = [f'{title}, mean ± deviation over seeds', '', *lines]
    if len(full):
        text = f'{name.upper()} {spread(full, digits)} over {_seeds(len(full))}'
        lines += ['', f'All labels, one training of as many steps: {text}.']
    return '\n'.join(lines)


def savings_table(
    found: Mapping[str, Sequence[Saving]], metric: str, digits: int, *, quality: bool
) -> str:
    """The labels that random needs for what each rule has, beside the paper's claim."""
    share, other, figure = PAPER['quality' if quality else 'counting']
    claim = f'with {percent(share)} the paper has what random needs {percent(other)} for ({figure})'
    name = metric.rpartition('/')[2].upper()
    lines = head(['rule', 'labeled', name, 'random needs', 'by seed', 'units saved', 'less labels'])
    here = []
    for arm, rows in found.items():
        for saving in rows:
            reached = math.isfinite(saving.needed)
            needs = f'{"≤ " if saving.at_most else ""}{percent(saving.needed)}'
            seeds = ', '.join(map(percent, saving.by_seed.values()))
            saved = (
                [f'{saving.labels:+.1f}', f'{100 * saving.less:+.0f} %'] if reached else ['', '']
            )
            lines.append(
                row([arm, f'{100 * saving.share:.3g} %', number(saving.value, digits), needs, seeds,
                     *saved])
            )  # fmt: skip
            if math.isclose(saving.share, share, abs_tol=0.02):
                here.append(f'{arm} {percent(saving.share)} against {needs}')
    title = '**Labels saved**: the share with which random first is as good, on the line through '
    title += f'its means over the seeds that both have; {claim}'
    last = f'Here {"; ".join(here)}.' if here else f'Here no rule stands at {percent(share)}.'
    return '\n'.join([title, '', *lines, '', last])


def certainty_rows(runs: Mapping[str, Runs]) -> list[dict[str, Any]]:
    """Certainty of pool and labeled units by rule and cycle, mean over seeds, or None."""
    found = []
    for arm, of_arm in runs.items():
        curves = [{p['cycle']: p for p in result['curve']} for _, result in of_arm]
        for cycle in map(int, common(*curves)):
            points = [curve[cycle] for curve in curves]
            line = {'rule': arm, 'cycle': cycle, 'share': _mean([p['share'] for p in points])}
            for part in ('pool', 'labeled'):
                parts = [(p.get('certainty') or {}).get(part) or {} for p in points]
                line |= {
                    f'{part} {k}': _mean([of.get(k) for of in parts]) for k in ('mean', 'ones')
                }
            line['tied'] = _mean([p.get('tied_at_cut') for p in points])
            if any(value is not None for value in list(line.values())[3:]):
                found.append(line)
    return found


def certainty_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean C and the shares at exactly 1 and tied at the cut, a line a cycle; '' without any."""
    if not rows:
        return ''
    names = ('pool mean', 'pool ones', 'labeled mean', 'labeled ones', 'tied')
    titles = ['mean C, pool', 'C = 1, pool', 'mean C, labeled', 'C = 1, labeled', 'tied at the cut']
    lines = head(['rule', 'cycle', 'labeled', *titles])
    for line in rows:
        cells = [
            number(line[name]) if 'mean' in name or line[name] is None else f'{line[name]:.1%}'
            for name in names
        ]
        lines.append(row([line['rule'], line['cycle'], f'{100 * line["share"]:.3g} %', *cells]))
    title = (
        '**Certainty C (eq. 15) after each training**, of pool and labeled units; mean over seeds'
    )
    return '\n'.join([title, '', *lines])


def _mean(values: Sequence[float | None]) -> float | None:
    given = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(given)) if given else None


def _seeds(count: int) -> str:
    return f'{count} seed{"s" if count != 1 else ""}'
