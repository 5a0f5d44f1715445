"""How two configs differ, and the fields in which a run may differ from the one it goes on with."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from rank_ssl.config import Config

# Fields that may differ when a run goes on: they change how it is run or for how long, not what
# the steps already taken were.
HARMLESS = (
    'steps', 'mode', 'eval_every', 'checkpoint_every', 'log_every', 'keep', 'max_bad_steps',
    'eval_batch', 'evaluate_test', 'figure_count',
    'accumulate', 'optim.rate', 'optim.decay_every', 'optim.decay_factor', 'data.workers',
    'data.threads', 'data.prefetch', 'data.silence', 'data.data_dir', 'data.manual_dir',
    'data.on_bad', 'model.remat', 'model.weights', 'init_from',
)  # fmt: skip
# And these may differ where a trained run is evaluated alone.
EVALUATION = (
    'eval_tile', 'task.eval_side', 'task.sub_images', 'data.test_stride', 'regime', 'rank_weight',
    'margin', 'margin_grows', 'reduction', 'sampler', 'hard_every', 'hard_add',
)  # fmt: skip


def since(noted: Mapping[str, Any], config: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted fields in which a config differs from a noted `to_dict`, each with both values.

    A field that the version which noted it did not have was at its default.
    """
    return differences(json.loads(json.dumps(_completed(noted, config))), config.to_dict())


def differences(old: dict, new: dict, *, prefix: str = '') -> dict[str, tuple[Any, Any]]:
    """Dotted fields in which two `Config.to_dict` results differ, with both values."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, prefix=f'{prefix}{name}.')
        elif a != b:
            found[f'{prefix}{name}'] = (a, b)
    return found


def in_words(found: Mapping[str, tuple[Any, Any]]) -> dict[str, str]:
    """Differences in words, by field."""
    return {name: f'config.{name} from {a} to {b}' for name, (a, b) in found.items()}


def _completed(noted: Mapping[str, Any], part: Any) -> dict[str, Any]:
    """What was noted, with the defaults of the fields of `part` that it lacks."""
    whole = dict(noted)
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            inner = noted.get(field.name, {})
            whole[field.name] = _completed(inner, value) if isinstance(inner, dict) else inner
        elif field.default is not dataclasses.MISSING:
            whole.setdefault(field.name, field.default)
    return whole
