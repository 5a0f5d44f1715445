"""Figures of a run: arrays in, a matplotlib Figure out, and `save` to write it as PNG.

Figures are made with matplotlib's objects alone: no window system, no global state, so threads and
processes may draw at the same time.
"""

from rank_ssl.plots.active import certainty_histograms, label_curves
from rank_ssl.plots.convergence import convergence
from rank_ssl.plots.crowd import counts, density_rows
from rank_ssl.plots.parts import save
from rank_ssl.plots.quality import levels, scores
from rank_ssl.plots.ranked import ladders, ranked_set
from rank_ssl.plots.runs import curves, paired
from rank_ssl.plots.sheet import SHOWN, sheet

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
