"""A folder of photos without labels: prepared, read and drawn for."""

import csv
import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Callable
from typing import Any

from rank_ssl import data
from rank_ssl.config import Config
from rank_ssl.data import EVALUATE, Examples, Records, Units, counter_rng
from rank_ssl.errors import UserError
from rank_ssl.progress import format_duration, say
from rank_ssl.types import Task

EVERY = 5.0  # seconds between lines of progress


class Photos(Units):
    """Photos that are a unit each; what is drawn for one follows from its name alone.

    So no other photo of the folder has a part in its certainty.
    """

    def number(self, place: int) -> int:
        """The number of the photo's name."""
        return number_of(self.names[place])

    def examples(self, task: Task, seed: int) -> Examples:
        """The photos as evaluation reads them."""
        return _PhotoExamples(self.records, task, seed)


class _PhotoExamples(Examples):
    """Photos whose views are drawn by their names."""

    def __getitem__(self, i: Any) -> dict[str, Any]:
        record = self._records[int(i)]
        rng = counter_rng(self._seed, EVALUATE, 0, number_of(record['id']))
        return {'record': record, 'views': self._task.views(rng, record)}


def show(what: str) -> Callable[[int, int], None]:
    """Of (done, total) it makes a line on stderr, now and then and at the end."""
    began = time.perf_counter()
    said = [began]

    def line(done: int, total: int) -> None:
        now = time.perf_counter()
        if done == total or now - said[0] >= EVERY:
            left = format_duration((now - began) * (total / done - 1))
            say(f'{what} {done}/{total} | ETA {left}')
            said[0] = now

    return line


def number_of(name: str) -> int:
    """A number of 63 bits that follows from the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'little') >> 1


def prepare(config: Config, workdir: pathlib.Path, folder: pathlib.Path) -> Records:
    """The photos of a folder, prepared where they are not; no other data set is needed."""
    own = config.data
    data_dir = own.data_dir or (str(workdir / 'data') if own.tiny else '')
    alone = dataclasses.replace(
        own, dataset='image_folder', part='', manual_dir=str(folder), data_dir=data_dir, tiny=0
    )
    # What is evaluated reads no unlabeled folder.
    prepared, _ = data.prepare(
        dataclasses.replace(config, mode='evaluate', data=alone), str(workdir), flags=''
    )
    if (found := pathlib.Path(prepared.report['source'])) != folder.absolute():
        raise UserError(f'--pool={folder} has a folder {found.name} that is read alone: rename it')
    return prepared.records('train')


def without(records: Records, skip: pathlib.Path | None) -> Records:
    """The photos that a table with a column `file` does not name. Raises UserError."""
    if skip is None:
        return records
    named = _files(skip)
    ids = records.ids()
    left = [row for row, name in enumerate(ids) if name not in named]
    if not left:
        raise UserError(f'--skip={skip} names all {len(ids)} photos: none is left to ask about')
    found = len(ids) - len(left)
    say(f'left out {found} photos; {skip} names {len(named)}')
    return records.take(left)


def _files(path: pathlib.Path) -> set[str]:
    try:
        with open(path, newline='', encoding='utf-8-sig') as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        fault = getattr(error, 'strerror', None) or error
        raise UserError(f'--skip={path}: {fault}; name a CSV file with a column file') from None
    if any('file' not in row for row in rows):
        raise UserError(f'--skip={path} has no column file: write it into the first line')
    return {pathlib.PurePosixPath((row['file'] or '').strip()).as_posix() for row in rows}
