"""Speed of each distortion and of whole ladders, beside other libraries in the same run.

All rates are images a second of one core, by the process's CPU time; ours and the others alternate.
A type's rate is that of 224 x 224 images in and out, uint8, the harmonic mean over its levels.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rank_ssl.bench import delivered, peers, pictures  # noqa: F401 (peers fills PEERS)
from rank_ssl.bench.registry import LIBRARIES, OPTIONAL, PEERS, UNLIKE, installed
from rank_ssl.bench.timing import alternate
from rank_ssl.ops import distortions, images

SIDE = 224  # px
TARGET = 0.95  # of the best peer
LEVELS = {**distortions.TID2013, **distortions.LIVE}
# Pictures of each set; rounds and seconds in each for a type's level; rounds of whole ladders.
EFFORT = {'default': (4, 5, 0.008, 3), 'full': (12, 15, 0.02, 5)}
ABSENT = 'not installed'
WIDTHS = {name: max(10, len(name) + 2) for name in LIBRARIES} | {
    name: max(len(name), len(ABSENT)) + 2 for name in OPTIONAL
}


def run(*, full: bool) -> dict[str, Any]:
    """Prints and returns the rate of each type and of both ladders."""
    count, rounds, seconds, ladder_rounds = EFFORT['full' if full else 'default']
    sources = pictures.sources(count)
    *_, large = sources.values()
    image = centre(images.decode(next(iter(large.values()))))
    print(f'pictures: {pictures.said(sources)}\n\n{head()}', flush=True)
    rows = []
    for name in LEVELS:
        rows.append(measure_type(image, name, rounds=rounds, seconds=seconds))
        print(line(rows[-1]), flush=True)
    print(
        '\n'.join(f'  {name}: {library}: {why}' for name, (library, why) in UNLIKE.items()),
        flush=True,
    )
    best = {row['name']: row['peer'] for row in rows}
    whole = delivered.measure(sources, image, best, rounds=ladder_rounds)
    print('\n'.join(['', *delivered.lines(whole)]), flush=True)
    return {'pictures': pictures.said(sources), 'types': rows, **whole}


def measure_type(image: np.ndarray, name: str, *, rounds: int, seconds: float) -> dict[str, Any]:
    """A row of the table: our rate, each installed peer's, and the ratio to the best of them."""
    taken: dict[str, list[np.ndarray]] = {}
    for level in range(1, LEVELS[name] + 1):
        for maker, times in alternate(
            _makers(image, name, level), rounds=rounds, seconds=seconds
        ).items():
            taken.setdefault(maker, []).append(times)
    ladder = {maker: np.sum(times, axis=0) for maker, times in taken.items()}  # [rounds]
    rates = {maker: LEVELS[name] / float(np.median(times)) for maker, times in ladder.items()}
    ours = rates.pop('ours')
    peer = max(rates, key=lambda library: rates[library])
    return {
        'name': name,
        'peer': peer,
        'peer_rate': rates[peer],
        'ours': ours,
        'ratio': float(np.median(ladder[peer] / ladder['ours'])),
        'target': TARGET,
        'peers': rates,
    }


def centre(image: np.ndarray) -> np.ndarray:
    """The middle of an image, uint8 [224, 224, 3]."""
    top, left = ((side - SIDE) // 2 for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE])


def _makers(image: np.ndarray, name: str, level: int) -> dict[str, Callable[[], np.ndarray]]:
    rng = np.random.Generator(np.random.Philox(level))
    value = distortions.value(name, level)
    makers = {'ours': lambda: distortions.distort(rng, image, name, level)}
    for library, peer in PEERS[name].items():
        if library in installed():
            makers[library] = lambda peer=peer: peer(image, value)  # type: ignore[misc]
    return makers


def head() -> str:
    """The columns' names."""
    columns = ''.join(f'{library:>{width}}' for library, width in WIDTHS.items())
    return f'{"images/s":<22}{"ours":>9}{"ratio":>7}{"target":>8}  {"best peer":<15}{columns}'


def line(row: Mapping[str, Any]) -> str:
    """One row of the table; `<` marks a ratio below its target."""
    columns = []
    for library, width in WIDTHS.items():
        absent = '-' if library in installed() else ABSENT
        rate = row['peers'].get(library)
        columns.append(f'{absent if rate is None else f"{rate:,.0f}":>{width}}')
    mark = ' ' if row['ratio'] >= row['target'] else '<'
    return (
        f'{row["name"]:<22}{row["ours"]:>9,.0f}{row["ratio"]:>7.2f}{mark}{row["target"]:>7.2f}  '
        f'{row["peer"]:<15}{"".join(columns)}'
    )
