"""Tables of the paper's ablations, as markdown: by fold (Table 5), by seen types (Table 3)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rank_ssl.report.paper import SETS, TABLE3, TABLE5
from rank_ssl.report.parts import Results, by_arm, gain, head, number, row, spread
from rank_ssl.report.quality import dataset, source, subject


def by_fold(results: Results, metric: str, *, digits: int = 2) -> str:
    """The key `metric` of each fold, mean over seeds, and all metrics of its split (Table 5).

    Below an arm of the paper stand its numbers where the images are those of its five folds.
    """
    prefix, _, name = metric.rpartition('/')
    folds = sorted(
        {int(key.rpartition('_')[2]) for _, r in results for key in r if f'{metric}/fold_' in key}
    )
    others = [
        key.removeprefix(f'{prefix}/')
        for key in results[0][1]
        if key.startswith(f'{prefix}/') and '/' not in key.removeprefix(f'{prefix}/')
    ]
    names = [name, *(other for other in others if other != name)]
    columns = [*(f'fold {fold}' for fold in folds), *(other.upper() for other in names)]
    compares = dataset(results) == 'ucf_cc_50' and folds == [1, 2, 3, 4, 5]
    lines = head(['arm', 'seeds', *columns])
    for arm, runs in by_arm(results).items():
        cells = [
            number(float(np.mean([run[f'{metric}/fold_{fold}'] for run in runs])), digits)
            for fold in folds
        ]
        cells += [spread([run[f'{prefix}/{key}'] for run in runs], digits) for key in names]
        lines.append(row([arm, len(runs), *cells]))
        if compares and (known := TABLE5.get(arm)):
            published = [number(value, digits) for value in known]
            lines.append(row([f'{arm}, the paper', '', *published, *[''] * (len(names) - 1)]))
    what = f', and {name.upper()} of each fold' if folds else ''
    title = f'**{", ".join(n.upper() for n in names)} on {subject(results, f"{prefix}/")}{what}**'
    return '\n'.join([f'{title}, mean ± deviation over seeds', '', *lines])


@dataclasses.dataclass(frozen=True)
class Part:
    """LCC on the images of some types, by seed, beside the baseline's."""

    lcc: Sequence[float]
    gains: Sequence[float]  # over the baseline
    type_gains: Sequence[float]  # the mean of the gains on each type alone


@dataclasses.dataclass(frozen=True)
class Unseen:
    """One arm of Table 3."""

    arm: str
    lcc: Sequence[float]  # on all images, by seed
    seen: Part | None = None  # None: the baseline, or no image of such a type
    unseen: Part | None = None


def table3(results: Results, arms: Sequence[Unseen]) -> str:
    """LCC on all images, on types that were ranked and on those that were not (Table 3).

    A gain is over the baseline's LCC on the same images; the paper does not say whether its average
    gain is over images or over types, so both are given.
    """
    published = SETS.get(dataset(results), ('', ''))[1] == 'tid2013'
    paper = [f'the paper on {source(results)}'] if published else []
    columns = ['arm', 'seeds', 'LCC', *paper]
    for name in ('seen', 'unseen'):
        columns += [f'LCC, {name}', 'gain', 'mean gain of a type']
        columns += [f'gain, {p}' for p in paper]
    lines = head(columns)
    for arm in arms:
        known = TABLE3.get(arm.arm, (None, None, None))
        cells = [arm.arm, len(arm.lcc), spread(arm.lcc), *([number(known[0])] * published)]
        for part, value in ((arm.seen, known[1]), (arm.unseen, known[2])):
            if part is None:
                cells += ['', '', '']
            else:
                cells.append(spread(part.lcc))
                cells += [spread(found, sign=True) for found in (part.gains, part.type_gains)]
            cells += [gain(value)] * published
        lines.append(row(cells))
    title = f'**LCC on seen and unseen types, {subject(results)}**'
    return '\n'.join([f'{title}, mean ± deviation over seeds', '', *lines])
