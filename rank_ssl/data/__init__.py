"""From prepared data sets to mini-batches: TFDS records, grain workers, counter-based randomness.

A batch is a function of (seed, step) alone: example i of step t draws from a Philox generator whose
counter is (stream, t, i). So batches are the same bits for any number of workers, threads, devices
and processes, and the position of the data is one number, saved with each checkpoint.
"""

from rank_ssl.data.batches import Batches, Examples, view_shapes
from rank_ssl.data.draws import ACQUIRE, EVALUATE, FIGURE, LABELED, RANKED, SPLIT, counter_rng
from rank_ssl.data.iterator import BatchIterator, end_process, leave_at_once
from rank_ssl.data.records import PreparationRefused, Prepared, Records, prepare
from rank_ssl.data.splits import Splits, load_splits
from rank_ssl.data.units import CertaintySets, Units, sampled_pairs

__all__ = [
    'ACQUIRE',
    'EVALUATE',
    'FIGURE',
    'LABELED',
    'RANKED',
    'SPLIT',
    'BatchIterator',
    'Batches',
    'CertaintySets',
    'Examples',
    'PreparationRefused',
    'Prepared',
    'Records',
    'Splits',
    'Units',
    'counter_rng',
    'end_process',
    'leave_at_once',
    'load_splits',
    'prepare',
    'sampled_pairs',
    'view_shapes',
]
