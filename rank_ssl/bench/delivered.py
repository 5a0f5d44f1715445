"""Speed of whole ladders as training takes them: 224 x 224 crops from a ladder store.

A rate counts the distorted crops; the pristine one that each chain also delivers is not counted,
as it is not in the peers' rate. Its time is that of decoding each source once and of all chains,
each level cropped at a place of its own. What the store keeps was made before.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rank_ssl.bench.registry import PEERS
from rank_ssl.bench.timing import cpu_seconds
from rank_ssl.ops import distortions, images, ladders

SIDE = 224  # px
LEVELS = {kind: distortions.LADDERS[kind] for kind in ('live', 'tid2013')}  # as printed
NOISE = 2011.0  # images a second of OpenCV's white noise where the next two rates were measured
LIVE_TARGET = 3.0  # times the peers' best four-type ladder, in the same run and at that rate
LIVE_PEERS = 197.0  # images a second there, with JPEG2000 as libraries make it by default
TID2013_TARGET = 400.0  # crops a second there

Times = dict[str, float]  # part -> seconds


def measure(
    sources: Mapping[str, Mapping[str, bytes]],
    image: np.ndarray,
    best: Mapping[str, str],
    *,
    rounds: int,
) -> dict[str, Any]:
    """Rates of both ladders, parts of their time, and the scale; the peers run between.

    Args:
      sources: set -> id -> encoded picture.
      image: uint8 [224, 224, 3], which the peers distort.
      best: the peer to take for each of LIVE's types.
    """
    best = {**best, 'white_noise': 'OpenCV'}
    ours: dict[str, list[Times]] = {name: [] for name in sources}
    peers: list[Times] = []
    for name, files in sources.items():
        for identity, data in files.items():
            stored = ladders.costly(images.decode(data), identity)
            runs = []
            for _ in range(1 + rounds):  # the first one fills caches
                runs.append(_our_times(data, stored) | _peer_times(image, best))
            times = {part: float(np.median([run[part] for run in runs[1:]])) for part in runs[0]}
            ours[name].append(times)
            peers.append(times)
    noise = distortions.TID2013['white_noise'] / _mean(peers, 'white_noise')
    live, tid2013 = (_summary(kind, ours, NOISE / noise) for kind in LEVELS)
    live['peer_rate'] = sum(distortions.LIVE.values()) / sum(
        _mean(peers, name) for name in distortions.LIVE
    )
    live['ratio'], live['target'] = live['rate'] / live['peer_rate'], LIVE_TARGET
    live['scaled_ratio'] = live['scaled'] / LIVE_PEERS
    tid2013['target'] = TID2013_TARGET
    return {'noise_scale': NOISE / noise, 'live': live, 'tid2013': tid2013}


def _our_times(data: bytes, stored: Mapping[str, bytes]) -> Times:
    """Seconds of decoding the source, and of all levels of each chain of both ladders."""
    decoded = []
    times = {'decode': cpu_seconds(lambda: decoded.append(images.decode(data)))}
    rng = np.random.Generator(np.random.Philox(0))
    for kind in LEVELS:
        for chain in ladders.chains(kind):
            make = functools.partial(
                ladders.ladder, rng, decoded[0], chain, size=SIDE, stored=stored
            )
            times[f'{kind}/{chain}'] = cpu_seconds(make)
    return times


def _peer_times(image: np.ndarray, best: Mapping[str, str]) -> Times:
    """Seconds of all levels of each of LIVE's types, and of OpenCV's white noise."""
    return {
        name: sum(
            cpu_seconds(functools.partial(PEERS[name][best[name]], image, value))
            for value in _values(name)
        )
        for name in (*distortions.LIVE, 'white_noise')
    }


def _values(name: str) -> list[float]:
    levels = (distortions.LIVE | distortions.TID2013)[name]
    return [distortions.value(name, level) for level in range(1, levels + 1)]


def _summary(kind: str, ours: Mapping[str, Sequence[Times]], scale: float) -> dict[str, Any]:
    chains = {name: f'{kind}/{name}' for name in ladders.chains(kind)}
    crops = sum(LEVELS[kind][name] for name in chains)

    def rate(sources: Sequence[Times], delivered: int = crops) -> float:
        return delivered / sum(_mean(sources, part) for part in ('decode', *chains.values()))

    every = [times for of_set in ours.values() for times in of_set]
    return {
        'rate': rate(every),
        'scaled': rate(every) * scale,
        'with_pristine': rate(every, crops + len(chains)),
        'sets': {name: rate(of_set) for name, of_set in ours.items()},
        'decode_ms_per_source': 1e3 * _mean(every, 'decode'),
        'ms_per_crop': {
            name: 1e3 * _mean(every, part) / LEVELS[kind][name] for name, part in chains.items()
        },
    }


def _mean(sources: Sequence[Times], part: str) -> float:
    return float(np.mean([times[part] for times in sources]))


def lines(found: Mapping[str, Any]) -> list[str]:
    """What `measure` found, as text."""
    live, tid2013, scale = found['live'], found['tid2013'], found['noise_scale']
    text = [
        'distorted 224 x 224 crops/s of whole ladders from the store, each source decoded once',
        f'  LIVE,     4 chains{live["rate"]:>7,.0f}   best peers{live["peer_rate"]:>7,.0f}   '
        f'ratio {live["ratio"]:.2f}{_mark(live["ratio"], LIVE_TARGET)}',
        f'  scaled*           {live["scaled"]:>7,.0f}   best peers{LIVE_PEERS:>7,.0f}   '
        f'ratio {live["scaled_ratio"]:.2f}{_mark(live["scaled_ratio"], LIVE_TARGET)}',
        f'  TID2013, 19 chains{tid2013["rate"]:>7,.0f}   scaled*   {tid2013["scaled"]:>7,.0f}'
        f'{_mark(tid2013["scaled"], TID2013_TARGET)}',
        f'  * to where OpenCV makes {NOISE:,.0f} of white_noise (here {NOISE / scale:,.0f}); the '
        f'{LIVE_PEERS:g} there are with JPEG2000 without colour transform',
    ]
    for kind in LEVELS:
        row = found[kind]
        sets = ', '.join(f'{name} {rate:,.0f}' for name, rate in row['sets'].items())
        text.append(f'  {kind} by set: {sets}; with the pristine crop {row["with_pristine"]:,.0f}')
    text += ['', 'where the time goes, ms']
    text.append(f'  {"decoding a source":<30}{live["decode_ms_per_source"]:8.2f}')
    for row in (live, tid2013):
        slowest_first = sorted(row['ms_per_crop'].items(), key=lambda item: -item[1])
        text += [f'  {f"a crop of {name}":<30}{ms:8.2f}' for name, ms in slowest_first]
    return text


def _mark(value: float, target: float) -> str:
    return f', target {target:g}' + ('' if value >= target else ': missed')
