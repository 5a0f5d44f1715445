"""Measurements of speed: `python -m rank_ssl.bench NAME [--full] [--json FILE]`.

    data   images per second and core that the crowd generator makes, at the paper's setting

`--full` takes more batches. The data bench reads ShanghaiTech part A below $RANK_SSL_DATA, and the
embedded drawn crowds where that is not set.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import numpy as np

from rank_ssl.cli import guarded
from rank_ssl.config import Config
from rank_ssl.data import Batches, load_splits, prepare
from rank_ssl.tasks.crowd import Crowd


def bench_data(*, full: bool) -> dict[str, Any]:
    """Images made per second of one core, in batches of 5 x (5 + 5) of 224 px; median."""
    config = Config(task=Crowd())
    config.data.unlabeled_labeled = True
    if os.environ.get('RANK_SSL_DATA'):
        config.data.dataset, config.data.part = 'shanghaitech', 'part_A'
    with tempfile.TemporaryDirectory() as folder:
        splits = load_splits(config, *prepare(config, folder))
    batches = Batches(config, splits, range(config.data.groups))
    images = config.data.groups * (config.ranked + config.labeled)
    batches[0]  # the first one opens files
    rates = []
    for step in range(1, 41 if full else 11):
        began = time.process_time()
        batches[step]
        rates.append(images / (time.process_time() - began))
    return {
        'dataset': f'{config.data.dataset} {config.data.part}'.strip(),
        'images_per_second_and_core': round(statistics.median(rates), 1),
        'slowest_batch': round(float(np.min(rates)), 1),
        'batches': len(rates),
    }


BENCHES = {'data': bench_data}


def main() -> None:
    """Runs one bench, prints its numbers, and writes them as JSON where asked to."""
    parser = argparse.ArgumentParser(prog='python -m rank_ssl.bench', description=__doc__)
    parser.add_argument('name', choices=sorted(BENCHES))
    parser.add_argument('--full', action='store_true', help='the long form')
    parser.add_argument('--json', type=pathlib.Path, help='also write the numbers to this file')
    given = parser.parse_args()
    found = guarded(lambda: BENCHES[given.name](full=given.full))
    for name, value in found.items():
        print(f'{name}: {value}')
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    sys.exit(0)


if __name__ == '__main__':
    main()
