"""Speed of the crowd generator."""

import os
import statistics
import tempfile
import time
from typing import Any

import numpy as np

from rank_ssl.config import Config
from rank_ssl.data import Batches, load_splits, prepare
from rank_ssl.tasks.crowd import Crowd


def run(*, full: bool) -> dict[str, Any]:
    """Images made per second of one core, in batches of 5 x (5 + 5) of 224 px; median.

    Reads ShanghaiTech part A below $RANK_SSL_DATA, and drawn crowds where that is not set.
    """
    config = Config(task=Crowd())
    config.data.unlabeled_labeled = True
    if os.environ.get('RANK_SSL_DATA'):
        config.data.dataset, config.data.part = 'shanghaitech', 'part_A'
    with tempfile.TemporaryDirectory() as folder:
        splits = load_splits(config, *prepare(config, folder))
    batches = Batches(config, splits, range(config.groups))
    images = config.groups * (config.ranked + config.labeled)
    batches[0]  # the first one opens files
    rates = []
    for step in range(1, 41 if full else 11):
        began = time.process_time()
        batches[step]
        rates.append(images / (time.process_time() - began))
    found = {
        'dataset': f'{config.data.dataset} {config.data.part}'.strip(),
        'images_per_second_and_core': round(statistics.median(rates), 1),
        'slowest_batch': round(float(np.min(rates)), 1),
        'batches': len(rates),
    }
    for name, value in found.items():
        print(f'{name}: {value}')
    return found
