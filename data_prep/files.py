"""Files of published archives, whose names differ in case between copies."""

from __future__ import annotations

import pathlib

from rank_ssl.errors import UserError


def by_lower_name(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The files of a folder by their names in lower case; none where there is no folder.

    Raises UserError for two names that differ in case alone: either could be meant.
    """
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    files: dict[str, pathlib.Path] = {}
    for path in paths:
        if path.name.startswith('.') or path.is_dir():
            continue
        if other := files.get(path.name.lower()):
            raise UserError(
                f'{folder} holds {other.name} and {path.name}, names that differ in case alone; '
                'remove or rename one'
            )
        files[path.name.lower()] = path
    return files


def child(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The file or folder of that name, in whichever case it is written; `folder / name` if none."""
    exact = folder / name
    if exact.exists() or not folder.is_dir():
        return exact
    return next((p for p in sorted(folder.iterdir()) if p.name.lower() == name.lower()), exact)
