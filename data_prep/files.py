"""Files of published archives, whose names differ in case between copies."""

from __future__ import annotations

import pathlib


def by_lower_name(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The files of a folder by their names in lower case; none where there is no folder."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        path.name.lower(): path
        for path in paths
        if not path.name.startswith('.') and not path.is_dir()
    }


def child(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The file or folder of that name, in whichever case it is written; `folder / name` if none."""
    exact = folder / name
    if exact.exists() or not folder.is_dir():
        return exact
    return next((p for p in sorted(folder.iterdir()) if p.name.lower() == name.lower()), exact)
