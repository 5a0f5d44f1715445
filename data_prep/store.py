"""Prepared sets lie in DATA_DIR/NAME/CONFIG/FINGERPRINT/VERSION/, complete where prepared.json is.

The fingerprint is a short SHA-256 over the builder's version, its options and, per source file, the
relative path, the size and the content's SHA-256; for sets above CONTENT_LIMIT the modification
time stands in for the content.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from data_prep.progress import emit
from data_prep.source import Listing, Source
from rank_ssl.errors import UserError

# Bytes: hashing 1 GiB takes .7 s, what a start that finds all prepared may cost.
CONTENT_LIMIT = 1 << 30
RECORD = 'prepared.json'


def say(message: str) -> None:
    """One line on stderr: stdout is for the resulting path alone."""
    emit(message)


def default_data_dir() -> pathlib.Path:
    """$XDG_CACHE_HOME/rank_ssl, or ~/.cache/rank_ssl."""
    cache = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    return pathlib.Path(cache) / 'rank_ssl'


def fingerprint(source: Source, listing: Listing, *, content_limit: int = CONTENT_LIMIT) -> str:
    """16 hex digits that change with the builder's version, its options or any file it reads."""
    head = [source.name, source.config, source.version, sorted(source.values.items())]
    digest = hashlib.sha256(json.dumps(head).encode())
    stats = [
        (split, item, path, path.stat() if path.exists() else None)
        for split, items in listing.items()
        for item in items
        for path in item.files
    ]
    by_content = sum(stat.st_size for *_, stat in stats if stat) <= content_limit
    for split, item, path, stat in stats:
        name = os.path.relpath(path, source.folder) if source.folder else path.name
        row = [split, item.id, item.problem, name, stat.st_size if stat else -1]
        row.append(_content(path) if by_content else stat.st_mtime_ns if stat else 0)
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:16]


def _content(path: pathlib.Path) -> str:
    try:
        with path.open('rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:  # the reader names it as a bad file
        return f'unreadable: {error.strerror}'


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A complete prepared version folder and its record."""

    path: pathlib.Path
    record: dict[str, Any]


def load_prepared(folder: pathlib.Path) -> Prepared | None:
    """The prepared set in a version folder, or None where it is absent, unfinished or damaged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding='utf-8'))
        sizes = {name: (folder / name).stat().st_size for name in record['files']}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Prepared(folder, record) if sizes == record['files'] else None


def prepared_copies(source: type[Source], config: str, data_dir: pathlib.Path) -> list[Prepared]:
    """All complete copies of this version of one set, whatever they were made from."""
    folders = sorted((data_dir / source.name / config).glob(f'*/{source.version}'))
    return [copy for folder in folders if (copy := load_prepared(folder))]


@dataclasses.dataclass(frozen=True)
class Place:
    """The folders that belong to one fingerprint of one set."""

    root: pathlib.Path  # DATA_DIR/NAME/CONFIG
    fingerprint: str
    version: str

    @property
    def final(self) -> pathlib.Path:
        return self.root / self.fingerprint / self.version

    @property
    def temporary(self) -> pathlib.Path:
        return self.root / f'.{self.fingerprint}.tmp'

    @property
    def lock(self) -> pathlib.Path:
        return self.root / f'.{self.fingerprint}.lock'


@contextlib.contextmanager
def locked(place: Place) -> Iterator[None]:
    """Holds the place's lock; a second process says so and waits. It ends with its process."""
    try:
        place.root.mkdir(parents=True, exist_ok=True)
        file = place.lock.open('a+', encoding='utf-8')
    except OSError as error:
        raise UserError(
            f'--data_dir: {place.root} is not a writable folder ({error.strerror}); name another'
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or '?'
            say(f'process {owner} is preparing the same set: waiting for it')
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextlib.contextmanager
def temporary_folder(place: Place) -> Iterator[pathlib.Path]:
    """An empty folder beside the final one, gone at the end, emptied of a killed one's files."""
    shutil.rmtree(place.temporary, ignore_errors=True)
    try:
        place.temporary.mkdir()
        yield place.temporary
    except (OSError, RuntimeError) as error:
        reason = _write_failure(error)
        if reason is None:
            raise
        path = getattr(error, 'filename', None) or place.temporary
        raise UserError(
            f'--data_dir: writing {path} failed ({reason}); free space or name another folder'
        ) from error
    finally:
        shutil.rmtree(place.temporary, ignore_errors=True)


def _write_failure(error: Exception) -> str | None:
    """The system's reason where an error comes from writing; array_record hides it in its text."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    return next((os.strerror(code) for code in codes if os.strerror(code) in str(error)), None)


def publish(built: pathlib.Path, place: Place, record: dict[str, Any]) -> pathlib.Path:
    """Writes prepared.json into the built version folder and renames it into place."""
    files = {path.name: path.stat().st_size for path in sorted(built.iterdir()) if path.is_file()}
    text = json.dumps({**record, 'files': files}, indent=2, ensure_ascii=False)
    with (built / RECORD).open('w', encoding='utf-8') as file:
        file.write(text + '\n')
        file.flush()
        os.fsync(file.fileno())
    place.final.parent.mkdir(exist_ok=True)
    shutil.rmtree(place.final, ignore_errors=True)  # a damaged copy
    built.rename(place.final)
    return place.final
