"""Reads the Waterloo Exploration Database as published: pristine_images/00001.bmp to 04744.bmp."""

from __future__ import annotations

import pathlib
import re

from data_prep.ladders.reader import LadderReader
from data_prep.source import Item, Listing
from rank_ssl.errors import UserError

EXPECTED = 4744
FOLDER = 'pristine_images'
ARCHIVE = 'exploration_database_and_code'  # what the published archive unpacks to
IMAGE = re.compile(r'(\d{5})\.bmp', re.IGNORECASE)


class WaterlooSource(LadderReader):
    """One split `train`; the number in the file name is the id."""

    name = 'waterloo'
    version = '1.0.0'
    license = 'Research use; cite Ma et al., TIP 2017 (Waterloo Exploration Database).'
    builder = 'Waterloo'

    @classmethod
    def holds(cls, config: str, folder: pathlib.Path) -> bool:
        return cls._images(folder) is not None

    @staticmethod
    def _images(folder: pathlib.Path) -> pathlib.Path | None:
        places = (folder / FOLDER, folder / ARCHIVE / FOLDER)
        return next((place for place in places if place.is_dir()), None)

    @classmethod
    def tree(cls, config: str) -> str:
        return '\n'.join(
            [
                'waterloo/                   (or DIR itself)',
                f'  {FOLDER}/          (or {ARCHIVE}/{FOLDER}/)',
                f'    00001.bmp ... {EXPECTED:05d}.bmp',
            ]
        )

    @classmethod
    def write_tiny(cls, folder: pathlib.Path, *, config: str, count: int, seed: int) -> None:
        import io

        from PIL import Image

        from data_prep import tiny

        (folder / FOLDER).mkdir()
        for i, (data, _) in enumerate(tiny.crowd(count=count, seed=seed)['train'], 1):
            image = Image.open(io.BytesIO(data)).convert('RGB')
            image.save(folder / FOLDER / f'{i:05d}.bmp')

    def expected(self) -> dict[str, int]:
        return {'train': EXPECTED}

    def items(self) -> Listing:
        assert self.folder is not None
        folder = self._images(self.folder)
        found, strays = _numbered(folder) if folder else ({}, [])
        if not found:
            raise UserError(
                f'{folder or self.folder} has none of the images 00001.bmp to {EXPECTED:05d}.bmp; '
                f'unpack the set there\n{self.tree(self.config)}'
            )
        if strays:
            self.notes.append(f'ignored {len(strays)} other files, such as {strays[0]}')
        items = [Item(f'{number:05d}', (path,)) for number, path in sorted(found.items())]
        return {'train': self._remember(items)}


def _numbered(folder: pathlib.Path) -> tuple[dict[int, pathlib.Path], list[str]]:
    """The published images by number and the names of the other files."""
    found, strays = {}, []
    for path in sorted(folder.iterdir()):
        match = IMAGE.fullmatch(path.name)
        if match and 1 <= int(match[1]) <= EXPECTED:
            found[int(match[1])] = path
        else:
            strays.append(path.name)
    return found, strays


SOURCE = WaterlooSource
