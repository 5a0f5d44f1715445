"""Tables of a grid of image quality runs beside the paper's numbers, as markdown.

`results` are a grid's cells with what their result.json holds, all of one data set. `prefix` names
the split: 'test/', or 'best/val/' of a grid that is compared by its validation images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rank_ssl.report.paper import LIVE, PAPER, SETS, TID2013, Scores, known_as
from rank_ssl.report.parts import Results, by_arm, head, number, row, spread


def table1(results: Results, *, prefix: str = 'test/') -> str:
    """LCC and SROCC on all images by arm, mean and deviation over seeds (Table 1), as markdown."""
    known = [paper_of(results, metric) for metric in ('lcc', 'srocc')]
    titles = [f'{metric}, the paper on {source(results)}' for metric in ('LCC', 'SROCC')]
    lines = head(['arm', 'seeds', 'LCC', 'SROCC', *(titles if any(known) else [])])
    for arm, runs in by_arm(results).items():
        cells = [arm, str(len(runs))]
        for metric in ('lcc', 'srocc'):
            cells.append(spread([run[prefix + metric] for run in runs]))
        if any(known):
            cells += [number(arms.get(known_as(arm), {}).get('all')) for arms in known]
        lines.append(row(cells))
    title = f'**LCC and SROCC on {subject(results, prefix)}**, mean ± deviation over seeds'
    return '\n'.join([title, '', *lines])


def by_kind_table(results: Results, metric: str, *, prefix: str = 'test/') -> str:
    """One metric by arm and distortion type, mean over seeds (Tables 2 and 4), as markdown.

    `metric` is 'lcc' or 'srocc'. Types stand in TID2013's order, on LIVE in Table 4's, 'all' last.
    Below an arm of the paper stand its numbers. A cell is empty where there is no number, nan where
    a seed has none.
    """
    kinds = _kinds(results, f'{prefix}{metric}/')
    numbered = dataset(results) != 'live' and all(kind in TID2013 for kind in kinds)
    heads = [f'#{TID2013.index(k) + 1:02d}' if numbered else k.replace('_', ' ') for k in kinds]
    lines = head(['arm', *heads, 'all'])
    paper = paper_of(results, metric)
    for arm, runs in by_arm(results).items():
        keys = [*(f'{prefix}{metric}/{kind}' for kind in kinds), prefix + metric]
        lines.append(row([arm, *(number(_mean(runs, key)) for key in keys)]))
        if published := paper.get(known_as(arm)):
            name = f'{arm}, the paper on {source(results)}'
            lines.append(row([name, *(number(published.get(kind)) for kind in [*kinds, 'all'])]))
    title = f'**{metric.upper()} by type of distortion on {subject(results, prefix)}**'
    legend = ', '.join(f'{h} {k.replace("_", " ")}' for h, k in zip(heads, kinds, strict=True))
    return '\n'.join([f'{title}, mean over seeds', '', *lines, *(['', legend] * numbered)])


def described(name: str) -> str:
    """What a table has to say of a data set behind its name; '' where the name says it."""
    return f' ({SETS[name][0]})' if name in SETS and SETS[name][0].lower() != name else ''


def subject(results: Results, prefix: str = 'test/') -> str:
    """The images of a table in words."""
    name, data = dataset(results), results[0][1]['config']['data']
    part = f' {data["part"]}' if data.get('part') else ''
    what = f' ({SETS[name][0]})' if name in SETS else ''
    split = 'validation' if 'val/' in prefix else 'test'
    return f'the {split} images of {name}{part}{what}'


def dataset(results: Results) -> str:
    """The data set's name."""
    return str(results[0][1]['config']['data']['dataset'])


def paper_of(results: Results, metric: str) -> dict[str, Scores]:
    """The paper's numbers by arm; empty for a set that the paper does not have."""
    return PAPER.get((SETS.get(dataset(results), ('', ''))[1], metric), {})


def source(results: Results) -> str:
    """The set whose published numbers stand beside these."""
    return SETS.get(dataset(results), ('', ''))[1].upper()


def _kinds(results: Results, prefix: str) -> list[str]:
    """The distortion types of any run, in the order of the tables."""
    keys = {key for _, run in results for key in run}
    found = {key.removeprefix(prefix) for key in keys if key.startswith(prefix)}
    order = LIVE if dataset(results) == 'live' else TID2013
    return sorted(found, key=lambda k: (order.index(k) if k in order else len(order), k))


def _mean(runs: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Over seeds; None where no seed has it."""
    if not any(key in run for run in runs):
        return None
    return float(np.mean([run.get(key, np.nan) for run in runs]))
