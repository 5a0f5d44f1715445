"""Measurements of speed: `python -m rank_ssl.bench NAME [--full] [--json FILE]`.

    data     images per second and core that the crowd generator makes, at the paper's setting
    ladder   images per second of each distortion and of whole ladders, beside other libraries
    pairs    a training step of a two-branch network over ours, and convergence of pair samplers
    step     images per second of one training step of the density net, and torch's beside it

`--full` takes more samples. The benches read real images below $RANK_SSL_DATA, and embedded drawn
ones where that is not set.
"""

import argparse
import importlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from rank_ssl.cli import guarded
from rank_ssl.errors import UserError

# Name -> the module whose `run(full=...)` prints what it measures and returns it. Loaded when
# asked for: one bench does without the libraries of the others.
BENCHES = {
    'data': 'rank_ssl.bench.data',
    'ladder': 'rank_ssl.bench.ladder',
    'pairs': 'rank_ssl.bench.pairs',
    'step': 'rank_ssl.bench.step',
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one bench, which prints its numbers, and writes them as JSON where asked to."""
    parser = argparse.ArgumentParser(
        prog='python -m rank_ssl.bench',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('name', choices=sorted(BENCHES))
    parser.add_argument('--full', action='store_true', help='the long form')
    parser.add_argument(
        '--json',
        type=pathlib.Path,
        help='also write the numbers to this file, and figures beside it',
    )
    given = parser.parse_args(argv)
    guarded(lambda: _run(given.name, given.full, given.json))


def _run(name: str, full: bool, path: pathlib.Path | None) -> None:
    if path is not None and not path.absolute().parent.is_dir():
        raise UserError(f'--json={path}: its folder does not exist; make it or name another file')
    module = importlib.import_module(BENCHES[name])
    found: dict[str, Any] = module.run(full=full)
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
        if hasattr(module, 'draw'):
            module.draw(found, path.absolute().parent)
