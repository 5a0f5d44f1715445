"""The paper's tables from a grid of runs, beside the paper's numbers."""

from rank_ssl.report.ablations import Part, Unseen, by_fold, table3
from rank_ssl.report.curves import (
    Curve,
    Saving,
    area,
    certainty_rows,
    certainty_table,
    curve_of,
    curves_table,
    needed,
    savings,
    savings_table,
)
from rank_ssl.report.paper import LIVE, PAPER, SETS, TABLE3, TABLE5, TID2013, known_as
from rank_ssl.report.quality import by_kind_table, described, table1
from rank_ssl.report.signal import signal_table

__all__ = [
    'LIVE',
    'PAPER',
    'SETS',
    'TABLE3',
    'TABLE5',
    'TID2013',
    'Curve',
    'Part',
    'Saving',
    'Unseen',
    'area',
    'by_fold',
    'by_kind_table',
    'certainty_rows',
    'certainty_table',
    'curve_of',
    'curves_table',
    'described',
    'known_as',
    'needed',
    'savings',
    'savings_table',
    'signal_table',
    'table1',
    'table3',
]
