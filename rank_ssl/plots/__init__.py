"""Figures of a run: arrays in, a matplotlib Figure out, and `save` to write it as PNG.

Figures are made with matplotlib's objects alone: no window system, no global state, so threads and
processes may draw at the same time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rank_ssl.plots.active import certainty_histograms, label_curves
    from rank_ssl.plots.crowd import counts, density_rows
    from rank_ssl.plots.parts import save
    from rank_ssl.plots.quality import levels, scores
    from rank_ssl.plots.ranked import ladders, ranked_set
    from rank_ssl.plots.runs import curves, paired
    from rank_ssl.plots.samplers import convergence
    from rank_ssl.plots.sheets import SHOWN, sheet

# None has the name of a function: importing it would hide that here.
_MODULES = {
    'active': ('certainty_histograms', 'label_curves'),
    'crowd': ('counts', 'density_rows'),
    'parts': ('save',),
    'quality': ('levels', 'scores'),
    'ranked': ('ladders', 'ranked_set'),
    'runs': ('curves', 'paired'),
    'samplers': ('convergence',),
    'sheets': ('SHOWN', 'sheet'),
}

__all__ = [
    'SHOWN',
    'certainty_histograms',
    'convergence',
    'counts',
    'curves',
    'density_rows',
    'label_curves',
    'ladders',
    'levels',
    'paired',
    'ranked_set',
    'save',
    'scores',
    'sheet',
]


def __getattr__(name: str) -> Any:
    """A figure's module is imported with its first use: matplotlib takes a second of every start.

    A run draws at its end; one that is refused, and the processes that load data, never do.
    """
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f'{__name__}.{module}'), name)
    raise AttributeError(f'module {__name__} has no attribute {name}')
