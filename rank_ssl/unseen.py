"""Table 3's numbers: LCC on the types of distortion that an arm ranked, and on the others."""

from collections.abc import Sequence

import numpy as np

from rank_ssl import metrics
from rank_ssl.arms import COUNTS, types_of
from rank_ssl.compare import Results, by_arm, drawn_from, interval
from rank_ssl.predictions import Values, predictions
from rank_ssl.report import Part, Unseen
from rank_ssl.types import Task


def unseen_types(task: Task, results: Results) -> list[tuple[Unseen, str]]:
    """Each arm's numbers, and in words which types are seen; gains are over the arm `baseline`.

    Without the baseline there are no gains, and the list is empty.
    """
    runs = {
        arm: {run.seed: predictions(run) for run, _ in found}
        for arm, found in by_arm(results).items()
    }
    base = runs.get('baseline')
    if base is None:
        return []
    made = [(Unseen('baseline', [_lcc(values) for values in base.values()]), _names(base))]
    for arm, count in COUNTS.items():
        pairs = [(base[s], values) for s, values in runs.get(arm, {}).items() if s in base]
        if pairs:
            made.append(_arm(task, arm, types_of(count), pairs))
    return made


def _arm(
    task: Task, arm: str, seen: Sequence[str], pairs: Sequence[tuple[Values, Values]]
) -> tuple[Unseen, str]:
    parts, words = {}, [f'{arm} ranks {_listed(seen)}']
    have = _kinds(pairs)
    if absent := [kind for kind in seen if kind not in have]:
        words.append(f'the test images have none of {_listed(absent)}')
    words.append(f'unseen there: {_listed([kind for kind in have if kind not in seen]) or "none"}')
    for name, others in (('seen', False), ('unseen', True)):
        of = [(a.of(seen, others=others), b.of(seen, others=others)) for a, b in pairs]
        if all(len(b.true) for _, b in of):
            parts[name] = _part(of)
            low, high = interval(task, of, name='lcc')
            words.append(
                f'gain on {name} types {np.mean(parts[name].gains):+.3f}, 95 % over '
                f'{drawn_from(of)} [{low:+.3f}, {high:+.3f}]'
            )
    whole = Unseen(arm, [_lcc(b) for _, b in pairs], parts.get('seen'), parts.get('unseen'))
    return whole, f'- {"; ".join(words)}'


def _part(pairs: Sequence[tuple[Values, Values]]) -> Part:
    gains = [_lcc(b) - _lcc(a) for a, b in pairs]
    return Part([_lcc(b) for _, b in pairs], gains, [_type_gain(a, b) for a, b in pairs])


def _type_gain(one: Values, other: Values) -> float:
    """The mean over types of the gain on each alone; those without a correlation are left out."""
    kinds = _kinds([(one, other)])
    gains = [_lcc(other.of([kind])) - _lcc(one.of([kind])) for kind in kinds]
    return float(np.nanmean(gains)) if np.isfinite(gains).any() else float('nan')


def _lcc(values: Values) -> float:
    return metrics.lcc(values.predicted, values.true)


def _kinds(pairs: Sequence[tuple[Values, Values]]) -> list[str]:
    found = [kind for _, values in pairs for kind in np.unique(np.asarray(values.kinds)) if kind]
    return list(dict.fromkeys(map(str, found)))


def _names(base: dict[int, Values]) -> str:
    kinds = _kinds([(values, values) for values in base.values()])
    return (
        "Types are added in the order of TID2013's numbers: the paper does not name its sets of "
        f'7, 11 and 15. The test images have {len(kinds)} types: {_listed(kinds)}.'
    )


def _listed(kinds: Sequence[str]) -> str:
    return ', '.join(kind.replace('_', ' ') for kind in kinds)
