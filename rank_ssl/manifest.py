"""The manifest of a folder: SHA-256 of each of its files, by which a later change is found."""

import hashlib
import json
import os
import pathlib

NAME = 'manifest.json'


def write(path: pathlib.Path) -> None:
    """Hashes all files of a folder, and returns when they and the manifest are on the disk."""
    files = {str(p.relative_to(path)): _sha256(p) for p in sorted(_files(path))}
    (path / NAME).write_bytes(_content(files))
    # Folders too: a file that none of them names is lost with the power.
    for written in path.rglob('*'):
        sync(written)
    sync(path)


def damage(path: pathlib.Path) -> str | None:
    """What is wrong with the folder's files, in words; None where each is as it was written."""
    try:
        data = (path / NAME).read_bytes()
        listed = json.loads(data)['files']
        if data != _content(listed):
            return f'{NAME} was changed'
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f'its {NAME} cannot be read ({error.__class__.__name__})'
    found = {str(p.relative_to(path)) for p in _files(path)}
    if missing := sorted(set(listed) - found):
        return f'{missing[0]} is missing'
    if extra := sorted(found - set(listed)):
        return f'{extra[0]} was added'
    for name, digest in listed.items():
        try:
            if _sha256(path / name) != digest:
                return f'{name} was changed'
        except OSError as error:
            return f'{name} cannot be read ({error.strerror})'
    return None


def sync(path: pathlib.Path) -> None:
    """Returns when a file, or what a folder names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _content(files: dict[str, str]) -> bytes:
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return json.dumps({'files': files, 'sha256': digest}, indent=1).encode()


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    return [p for p in path.rglob('*') if p.is_file() and p != path / NAME]


def _sha256(path: pathlib.Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
