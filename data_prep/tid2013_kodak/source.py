"""Re-makes a part of TID2013 from Kodak's images; the scores are TID2013's own."""

from __future__ import annotations

import collections
import concurrent.futures
import io
import os
import pathlib
from typing import TYPE_CHECKING, Any

from data_prep.files import child
from data_prep.source import (
    TINY_MARKER,
    BadFile,
    Item,
    Listing,
    Source,
    read_image,
    score_features,
)
from data_prep.tid2013 import source as tid2013
from data_prep.tid2013_kodak import scores
from rank_ssl.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from data_prep.tid2013_kodak import calibrate

# The types whose mean score falls with a level that a PSNR fixes.
NUMBERS = ('01', '02', '05', '06', '07', '08', '09', '10', '11', '19', '22', '23')
KINDS = {number: tid2013.KINDS[number] for number in NUMBERS}
REFERENCES = tid2013.REFERENCES['natural']
LEVELS = tid2013.LEVELS
SCALE = tid2013.Tid2013Source.scale
KODAK_SHAPES = ((512, 768), (768, 512))  # (H, W) px
SHAPE = (384, 512)  # (H, W) px of TID2013's references, crops of Kodak's images
# Where a crop is known to start, (y, x) px: found pixel for pixel. The others take the centre.
CORNERS = {3: (44, 73), 4: (206, 0), 6: (43, 66), 8: (4, 71), 19: (255, 0)}
MISSED = 0.5  # dB; a larger difference from the wanted PSNR is noted
COMPRESSION = 1  # PNG level: 6 takes 2-3 times as long for files as large

Group = tuple[int, str]  # reference, type number


class Tid2013KodakSource(Source):
    """One split `all`: 24 references x 12 types x 5 levels, or what the score table lists of it."""

    name = 'tid2013_kodak'
    version = '1.0.0'
    license = "Scores: TID2013's, research use; cite Ponomarenko et al. 2015. Images: Kodak, free."
    scale = SCALE
    builder = 'Tid2013Kodak'

    def __init__(self, config: str, folder: pathlib.Path | None, **options: int) -> None:
        super().__init__(config, folder, **options)
        self._images: dict[int, pathlib.Path] = {}
        self._scores: dict[scores.Key, float] = {}
        self._groups: list[Group] = []
        self._made: dict[Group, concurrent.futures.Future[Any]] = {}
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._missed: dict[str, list[tuple[float, str]]] = collections.defaultdict(list)

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self.notes += [self._miss_note(number) for number in sorted(self._missed)]

    @classmethod
    def holds(cls, config: str, folder: pathlib.Path) -> bool:
        found = find_images(folder) or find_table(folder)
        return folder.is_dir() and found is not None

    @classmethod
    def tree(cls, config: str) -> str:
        return '\n'.join(
            [
                'kodak24/                  (or pristine/kodak24)',
                '  kodim01.png ... kodim24.png',
                'mos_with_names.txt        of TID2013 (or in tid2013/ or kodak24/), lines such as',
                '                            5.51429 I01_01_1.bmp',
                'iqa_tables/TID2013.txt    instead of it: dis_img_path,dis_type,ref_img_path,score',
            ]
        )

    @classmethod
    def write_tiny(cls, folder: pathlib.Path, *, config: str, count: int, seed: int) -> None:
        from data_prep.tid2013_kodak import made

        made.write(folder, count=count, seed=seed)

    def expected(self) -> dict[str, int]:
        return {'all': REFERENCES * len(KINDS) * LEVELS}

    def items(self) -> Listing:
        assert self.folder is not None
        folder, table = find_images(self.folder), find_table(self.folder)
        if folder is None:
            raise self._missing(f'has no kodak24/ with kodim01.png ... kodim{REFERENCES}.png')
        if table is None:
            raise self._missing(f'has no scores of TID2013 ({tid2013.TABLE} or {scores.CSV_TABLE})')
        listed = {
            key: score
            for key, score in scores.load(table).items()
            if key[0] in references() and key[1] in KINDS
        }
        self._images = {n: path for n in references() if (path := image_path(folder, n)).is_file()}
        absent = sorted({key[0] for key in listed} - self._images.keys())
        if absent:
            names = ', '.join(image_path(folder, n).name for n in absent)
            self.notes.append(f'left out {len(absent)} references, not in {folder}: {names}')
        self._scores = {key: listed[key] for key in sorted(listed) if key[0] in self._images}
        if not self._scores:
            raise self._missing(f'has no image that {table.name} has a score of')
        self._groups = list(dict.fromkeys((n, number) for n, number, _ in self._scores))
        return {'all': self._items(table)}

    def _missing(self, what: str) -> UserError:
        return UserError(
            f'{self.name}: {self.folder} {what}; arrange it so, then name it with --manual_dir\n'
            f'{self.tree(self.config)}'
        )

    def _items(self, table: pathlib.Path) -> list[Item]:
        """An item per score; each file is with the first one that needs it, to be hashed once."""
        items: list[Item] = []
        files = [table]
        previous = None
        for key in self._scores:
            if key[0] != previous:
                files.append(self._images[key[0]])
            items.append(Item(scores.id_of(key), tuple(files)))
            files, previous = [], key[0]
        return items

    def read(self, item: Item, split: str, index: int) -> tuple[dict[str, Any], np.ndarray]:
        key = scores.key_of(item.id)
        assert key is not None
        reference, number, level = key
        made = self._levels((reference, number))
        wanted, found, data = made[level]
        if abs(found.psnr - wanted) > MISSED:
            self._missed[number].append((found.psnr - wanted, item.id))
        features = score_features(
            self,
            item.id,
            data,
            found.image,
            score=self._scores[key],
            reference=f'i{reference:02d}',
            kind=KINDS[number],
            level=level,
        )
        reached = {'psnr': found.psnr, 'psnr_wanted': wanted, 'value': found.value}
        return {**features, **reached}, found.image

    def _levels(self, group: Group) -> dict[int, tuple[float, calibrate.Found, bytes]]:
        """The made levels of one reference and type; the next ones are begun beside them."""
        workers = os.cpu_count() or 1
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(workers)
        assert self.folder is not None
        tiny = (self.folder / TINY_MARKER).exists()
        at = self._groups.index(group)
        for ahead in self._groups[at : at + workers + 1]:
            if ahead not in self._made:
                path = self._images[ahead[0]]
                self._made[ahead] = self._pool.submit(make, path, *ahead, any_shape=tiny)
        for done in [other for other in self._made if other < group]:
            del self._made[done]
        return self._made[group].result()

    def _miss_note(self, number: str) -> str:
        missed = self._missed[number]
        worst, id = max(missed, key=lambda miss: abs(miss[0]))
        images = 'image misses its' if len(missed) == 1 else 'images miss their'
        return (
            f'{KINDS[number]}: {len(missed)} {images} PSNR by more than {MISSED:g} dB, '
            f'the worst {id} by {worst:+.1f} dB'
        )


def make(
    path: pathlib.Path, reference: int, number: str, *, any_shape: bool = False
) -> dict[int, tuple[float, calibrate.Found, bytes]]:
    """Level -> wanted PSNR in dB, the image found and its PNG bytes; raises BadFile.

    An image that is not of Kodak's shape is bad, unless any shape will do.
    """
    from data_prep.tid2013_kodak import calibrate

    image = read_image(path)[1]
    if image.shape[:2] not in KODAK_SHAPES and not any_shape:
        height, width = image.shape[:2]
        raise BadFile(
            f"{path}: has {width}x{height} px, Kodak's images have 768x512 or 512x768: get it again"
        )
    image = crop(image, reference)
    found = calibrate.levels(image, KINDS[number], reference=reference, number=int(number))
    return {
        level: (wanted, one, encode(one.image))
        for level, (wanted, one) in enumerate(zip(calibrate.PSNR, found, strict=True), start=1)
    }


def crop(image: np.ndarray, reference: int) -> np.ndarray:
    """TID2013's crop of a Kodak image u8[H, W, 3], [384, 512, 3]; all of a side that is shorter."""
    height, width = (min(a, b) for a, b in zip(image.shape, SHAPE, strict=False))
    room = (image.shape[0] - height, image.shape[1] - width)
    y, x = CORNERS.get(reference, (room[0] // 2, room[1] // 2))
    y, x = min(y, room[0]), min(x, room[1])
    return image[y : y + height, x : x + width].copy()


def encode(image: np.ndarray) -> bytes:
    """PNG bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG', compress_level=COMPRESSION)
    return buffer.getvalue()


def references() -> range:
    """The numbers of the natural references; 25 is drawn by computer and not Kodak's."""
    return range(1, REFERENCES + 1)


def find_images(folder: pathlib.Path) -> pathlib.Path | None:
    """The folder of Kodak's images, one of them at least, where there is one."""
    homes = [home / name for home in _homes(folder) for name in ('kodak24', 'pristine/kodak24')]
    return next((h for h in homes if any(image_path(h, n).is_file() for n in references())), None)


def find_table(folder: pathlib.Path) -> pathlib.Path | None:
    """TID2013's own table of scores, else the CSV one, where there is one."""
    images = find_images(folder)
    homes = [home / name for home in _homes(folder) for name in ('', 'tid2013')]
    tables = [child(home, tid2013.TABLE) for home in [*homes, *([images] if images else [])]]
    tables += [home / scores.CSV_TABLE for home in _homes(folder)]
    return next((table for table in tables if table.is_file()), None)


def _homes(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folder and, for manual_dir/tid2013_kodak, its parent with what other sets share."""
    return [folder, folder.parent] if folder.name == Tid2013KodakSource.name else [folder]


def image_path(folder: pathlib.Path, reference: int) -> pathlib.Path:
    """Where a folder has Kodak's image of a reference."""
    return folder / f'kodim{reference:02d}.png'


SOURCE = Tid2013KodakSource
