"""Tables of a grid of image quality runs beside the paper's numbers, as markdown.

`results` are a grid's cells with what their result.json holds, all of one data set. `prefix` names
the split: 'test/', or 'best/val/' of a grid that is compared by its validation images.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

# Distortion types in the order of TID2013's numbers, 01 to 24, and in that of Table 4.
TID2013 = (
    'white_noise',
    'colour_noise',
    'spatially_correlated_noise',
    'masked_noise',
    'high_frequency_noise',
    'impulse_noise',
    'quantization_noise',
    'gaussian_blur',
    'denoising',
    'jpeg',
    'jpeg2000',
    'jpeg_transmission',
    'jpeg2000_transmission',
    'pattern_noise',
    'blockwise',
    'mean_shift',
    'contrast',
    'saturation',
    'multiplicative_noise',
    'comfort_noise',
    'lossy_noisy_compression',
    'colour_quantization',
    'chromatic_aberration',
    'sparse_sampling',
)
LIVE = ('jpeg2000', 'jpeg', 'white_noise', 'gaussian_blur', 'fast_fading')

# Data set -> what it is, and the set whose published numbers stand beside it.
SETS = {
    'tid2013': ('TID2013', 'tid2013'),
    'tid2013_kodak': ("TID2013's scores, images re-made from Kodak's", 'tid2013'),
    'live': ('LIVE', 'live'),
}
Scores = dict[str, float]  # 'all' or a distortion type -> correlation


def _of_types(names: Sequence[str], values: str, whole: float) -> Scores:
    listed = map(float, values.split())
    return {**dict(zip(names, listed, strict=True)), 'all': whole}


# The paper's numbers by (set, metric) and arm: Tables 1, 2 and 4.
PAPER: dict[tuple[str, str], dict[str, Scores]] = {
    ('tid2013', 'lcc'): {
        'baseline': {'all': 0.663},
        'ranking': {'all': 0.566},
        'finetuning': {'all': 0.799},
        'multitask': {'all': 0.827},
    },
    ('tid2013', 'srocc'): {
        'baseline': {'all': 0.612},
        'ranking': {'white_noise': 0.891, 'all': 0.623},
        'finetuning': {'all': 0.780},
        'multitask': _of_types(
            TID2013,
            '.780 .658 .882 .424 .839 .762 .852 .861 .799 .879 .909 .744 '
            '.824 .458 .658 .198 .554 .669 .689 .760 .882 .742 .645 .900',
            0.806,
        ),
    },
    ('live', 'lcc'): {'multitask': _of_types(LIVE, '.972 .978 .988 .982 .971', 0.976)},
    ('live', 'srocc'): {'multitask': _of_types(LIVE, '.971 .978 .985 .979 .969', 0.973)},
}
# Other names of the paper's arms, letters only.
ALIASES = {
    'rankiqa': 'ranking',
    'finetune': 'finetuning',
    'rankingfinetune': 'finetuning',
    'rankingfinetuning': 'finetuning',
    'rankiqaft': 'finetuning',
    'mtrankiqa': 'multitask',
}


class Cell(Protocol):
    """One run of a grid."""

    @property
    def arm(self) -> str:
        """The name it has in the tables."""


Results = Sequence[tuple[Cell, Mapping[str, Any]]]


def table1(results: Results, *, prefix: str = 'test/') -> str:
    """LCC and SROCC on all images by arm, mean and deviation over seeds (Table 1), as markdown."""
    known = [_paper(results, metric) for metric in ('lcc', 'srocc')]
    titles = [f'{metric}, the paper on {_source(results)}' for metric in ('LCC', 'SROCC')]
    columns = ['arm', 'seeds', 'LCC', 'SROCC', *(titles if any(known) else [])]
    lines = [_row(columns), _row(['---'] * len(columns))]
    for arm, runs in _by_arm(results).items():
        cells = [arm, str(len(runs))]
        for metric in ('lcc', 'srocc'):
            values = np.array([run[prefix + metric] for run in runs], np.float64)
            spread = f' ± {values.std(ddof=1):.3f}' if len(values) > 1 else ''
            cells.append(f'{values.mean():.3f}{spread}')
        if any(known):
            cells += [_number(by_arm.get(_known_as(arm), {}).get('all')) for by_arm in known]
        lines.append(_row(cells))
    title = f'**LCC and SROCC on {_subject(results, prefix)}**, mean ± deviation over seeds'
    return '\n'.join([title, '', *lines])


def by_kind_table(results: Results, metric: str, *, prefix: str = 'test/') -> str:
    """One metric by arm and distortion type, mean over seeds (Tables 2 and 4), as markdown.

    `metric` is 'lcc' or 'srocc'. Types stand in TID2013's order, on LIVE in Table 4's, 'all' last.
    Below an arm of the paper stand its numbers. A cell is empty where there is no number, nan where
    a seed has none.
    """
    kinds = _kinds(results, f'{prefix}{metric}/')
    numbered = _name(results) != 'live' and all(kind in TID2013 for kind in kinds)
    heads = [f'#{TID2013.index(k) + 1:02d}' if numbered else k.replace('_', ' ') for k in kinds]
    lines = [_row(['arm', *heads, 'all']), _row(['---'] * (len(kinds) + 2))]
    paper = _paper(results, metric)
    for arm, runs in _by_arm(results).items():
        keys = [*(f'{prefix}{metric}/{kind}' for kind in kinds), prefix + metric]
        lines.append(_row([arm, *(_number(_mean(runs, key)) for key in keys)]))
        if published := paper.get(_known_as(arm)):
            row = f'{arm}, the paper on {_source(results)}'
            lines.append(_row([row, *(_number(published.get(kind)) for kind in [*kinds, 'all'])]))
    title = f'**{metric.upper()} by type of distortion on {_subject(results, prefix)}**'
    legend = ', '.join(f'{h} {k.replace("_", " ")}' for h, k in zip(heads, kinds, strict=True))
    return '\n'.join([f'{title}, mean over seeds', '', *lines, *(['', legend] * numbered)])


def _by_arm(results: Results) -> dict[str, list[Mapping[str, Any]]]:
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for cell, result in results:
        arms.setdefault(cell.arm, []).append(result)
    return arms


def _kinds(results: Results, prefix: str) -> list[str]:
    """The distortion types of any run, in the order of the tables."""
    keys = {key for _, run in results for key in run}
    found = {key.removeprefix(prefix) for key in keys if key.startswith(prefix)}
    order = LIVE if _name(results) == 'live' else TID2013
    return sorted(found, key=lambda k: (order.index(k) if k in order else len(order), k))


def described(name: str) -> str:
    """What a table has to say of a data set behind its name; '' where the name says it."""
    return f' ({SETS[name][0]})' if name in SETS and SETS[name][0].lower() != name else ''


def _name(results: Results) -> str:
    return str(results[0][1]['config']['data']['dataset'])


def _subject(results: Results, prefix: str) -> str:
    """The images of a table in words."""
    name, data = _name(results), results[0][1]['config']['data']
    part = f' {data["part"]}' if data.get('part') else ''
    what = f' ({SETS[name][0]})' if name in SETS else ''
    split = 'validation' if 'val/' in prefix else 'test'
    return f'the {split} images of {name}{part}{what}'


def _paper(results: Results, metric: str) -> dict[str, Scores]:
    """The paper's numbers by arm; empty for a set that the paper does not have."""
    return PAPER.get((SETS.get(_name(results), ('', ''))[1], metric), {})


def _source(results: Results) -> str:
    return SETS.get(_name(results), ('', ''))[1].upper()


def _known_as(arm: str) -> str:
    letters = re.sub('[^a-z]', '', arm.lower())
    return ALIASES.get(letters, letters)


def _mean(runs: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Over seeds; None where no seed has it."""
    if not any(key in run for run in runs):
        return None
    return float(np.mean([run.get(key, np.nan) for run in runs]))


def _number(value: float | None) -> str:
    return '' if value is None else f'{value:.3f}'


def _row(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'
