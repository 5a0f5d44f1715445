"""Reads photos with point annotations: train/ and test/, each with images and one points.csv."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from data_prep.image_folder.source import SUFFIXES
from data_prep.points_folder import table
from data_prep.source import Item, Listing, Source, crowd_features, read_image
from rank_ssl.errors import UserError

if TYPE_CHECKING:
    import numpy as np

SPLITS = ('train', 'test')
POINTS = 'points.csv'


class PointsFolderSource(Source):
    """One's own photos; the count is the number of an image's rows with a point."""

    name = 'points_folder'
    version = '1.0.0'
    license = "The images' own."
    folder_is_identity = True
    builder = 'PointsFolder'

    def __init__(self, config: str, folder: pathlib.Path | None, **options: int) -> None:
        super().__init__(config, folder, **options)
        self._points: dict[str, list[table.Point]] = {}

    @classmethod
    def holds(cls, config: str, folder: pathlib.Path) -> bool:
        return any((folder / split).is_dir() for split in SPLITS)

    @classmethod
    def tree(cls, config: str) -> str:
        return '\n'.join(
            [
                'points_folder/     (or DIR itself)',
                '  train/',
                '    any.jpg         JPEG, PNG, BMP, GIF, TIFF, WebP, PPM; any number of images',
                '    points.csv      header image,x,y, then one line a person:',
                '                    any.jpg,103.5,88    px from the upper-left corner',
                '                    empty.jpg,,         an image without people',
                '  test/             the same',
            ]
        )

    @classmethod
    def write_tiny(cls, folder: pathlib.Path, *, config: str, count: int, seed: int) -> None:
        from data_prep import tiny

        for split, images in tiny.crowd(count=count, seed=seed).items():
            (folder / split).mkdir()
            points = {}
            for i, (data, heads) in enumerate(images):
                name = f'made_{i:04d}.jpg'
                (folder / split / name).write_bytes(data)
                points[name] = heads
            table.write(folder / split / POINTS, points)

    def items(self) -> Listing:
        return {split: self._split_items(split) for split in SPLITS}

    def _split_items(self, split: str) -> list[Item]:
        """An item per image that points.csv names, sorted by name."""
        assert self.folder is not None
        folder = self.folder / split
        path = folder / POINTS
        if not path.is_file():
            raise UserError(f'{path} is missing; write it as below\n{self.tree(self.config)}')
        files = {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
        points = table.load(path, files)
        self._note_others(split, files.keys() - points.keys() - {POINTS}, len(points))
        items: list[Item] = []
        for name in sorted(points):
            # The first one alone: the fingerprint reads each item's files, and this one is shared.
            shared = () if items else (path,)
            items.append(Item(f'{split}/{name}', (files[name], *shared)))
            self._points[f'{split}/{name}'] = points[name]
        return items

    def _note_others(self, split: str, names: Iterable[str], taken: int) -> None:
        shown = sorted(name for name in names if not name.startswith('.'))
        images = [name for name in shown if pathlib.PurePath(name).suffix.lower() in SUFFIXES]
        others = sorted(set(shown).difference(images))
        if images:
            self.notes.append(
                f'{split}: left out {len(images)} of {taken + len(images)} images, which have no '
                f'row in {POINTS}, such as {images[0]}'
            )
        if others:
            self.notes.append(f'{split}: ignored {len(others)} other files, such as {others[0]}')

    def read(self, item: Item, split: str, index: int) -> tuple[dict[str, Any], np.ndarray]:
        import numpy as np

        data, image = read_image(item.files[0])
        points = np.array(self._points[item.id], np.float64).reshape(-1, 2)
        return crowd_features(self, item.id, data, image, points), image


SOURCE = PointsFolderSource
