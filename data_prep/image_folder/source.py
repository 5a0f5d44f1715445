"""Reads any folder of images, however deep; their bytes stay as they are."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Any

from data_prep.source import Item, Listing, Source, read_image
from rank_ssl.errors import UserError

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = frozenset(
    ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.dib', '.gif', '.tif', '.tiff', '.webp')
    + ('.ppm', '.pgm', '.pbm', '.pnm')
)


class ImageFolderSource(Source):
    """One split `train` of the images below manual_dir; the relative path is the id."""

    name = 'image_folder'
    version = '1.0.0'
    license = "The images' own."
    folder_is_identity = True
    takes_all = True
    builder = 'ImageFolder'

    @classmethod
    def holds(cls, config: str, folder: pathlib.Path) -> bool:
        return folder.is_dir()

    @classmethod
    def tree(cls, config: str) -> str:
        return 'any.jpg\nany/folder/below/it.png   (JPEG, PNG, BMP, GIF, TIFF, WebP and more)'

    @classmethod
    def write_tiny(cls, folder: pathlib.Path, *, config: str, count: int, seed: int) -> None:
        from data_prep import tiny

        for i, (data, _) in enumerate(tiny.crowd(count=count, seed=seed)['train']):
            (folder / f'made_{i:04d}.jpg').write_bytes(data)

    def items(self) -> Listing:
        assert self.folder is not None
        paths, others = walk(self.folder)
        if not paths:
            raise UserError(
                f'{self.folder} holds no image ({others} other files); name a folder with images\n'
                f'{self.tree(self.config)}'
            )
        if others:
            self.notes.append(f'ignored {others} files that have no suffix of a readable image')
        return {'train': [Item(_text(path, self.folder), (path,)) for path in paths]}

    def read(self, item: Item, split: str, index: int) -> tuple[dict[str, Any], np.ndarray]:
        data, image = read_image(item.files[0])
        height, width = image.shape[:2]
        return {'image': data, 'id': item.id, 'height': height, 'width': width}, image


def walk(folder: pathlib.Path) -> tuple[list[pathlib.Path], int]:
    """Image files below `folder` in sorted order and the number of other files.

    Follows links to folders, but reads each real folder once, so that a loop of links ends; skips
    hidden names.
    """
    paths: list[pathlib.Path] = []
    others = 0
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in files:
            path = pathlib.Path(root, name)
            if not name.startswith('.') and path.suffix.lower() in SUFFIXES and path.is_file():
                paths.append(path)
            elif not name.startswith('.'):
                others += 1
    return sorted(paths, key=lambda path: path.relative_to(folder).parts), others


def _text(path: pathlib.Path, folder: pathlib.Path) -> str:
    """The relative path as valid Unicode: bytes of a name that are not UTF-8 are shown as \\xNN."""
    return os.fsencode(path.relative_to(folder).as_posix()).decode('utf-8', 'backslashreplace')


SOURCE = ImageFolderSource
