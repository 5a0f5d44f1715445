"""Reads ShanghaiTech as published: IMG_n.jpg with GT_IMG_n.mat, in both folder spellings."""

from __future__ import annotations

import pathlib
import re
from typing import TYPE_CHECKING, Any

from data_prep.source import BadFile, Item, Listing, MatSource, crowd_features, read_image
from rank_ssl.errors import UserError

if TYPE_CHECKING:
    import numpy as np

EXPECTED = {'part_A': {'train': 300, 'test': 182}, 'part_B': {'train': 400, 'test': 316}}
TRUTH_FOLDERS = ('ground-truth', 'ground_truth')
IMAGE = re.compile(r'IMG_(\d+)\.jpg', re.IGNORECASE)
TRUTH = re.compile(r'GT_IMG_(\d+)\.mat', re.IGNORECASE)


class ShanghaitechSource(MatSource):
    """Parts A and B; the annotated count is the number of points in the .mat file."""

    name = 'shanghaitech'
    version = '1.0.0'
    license = 'Research use; cite Zhang et al., CVPR 2016 (ShanghaiTech crowd counting).'
    configs = ('part_A', 'part_B')
    builder = 'Shanghaitech'

    @classmethod
    def holds(cls, config: str, folder: pathlib.Path) -> bool:
        return cls._part(config, folder) is not None

    @staticmethod
    def _part(config: str, folder: pathlib.Path) -> pathlib.Path | None:
        parts = (folder / config, folder / f'{config}_final')
        return next((part for part in parts if part.is_dir()), None)

    @classmethod
    def tree(cls, config: str) -> str:
        train, test = EXPECTED[config]['train'], EXPECTED[config]['test']
        return '\n'.join(
            [
                'shanghaitech/               (or DIR itself)',
                f'  {config}/                  (or {config}_final)',
                '    train_data/',
                f'      images/               IMG_1.jpg ... IMG_{train}.jpg',
                f'      ground-truth/         GT_IMG_1.mat ... GT_IMG_{train}.mat or ground_truth',
                '    test_data/',
                f'      images/               IMG_1.jpg ... IMG_{test}.jpg',
                f'      ground-truth/         GT_IMG_1.mat ... GT_IMG_{test}.mat',
            ]
        )

    @classmethod
    def write_tiny(cls, folder: pathlib.Path, *, config: str, count: int, seed: int) -> None:
        from data_prep.shanghaitech import made

        made.write(folder / config, count=count, seed=seed)

    def expected(self) -> dict[str, int]:
        return EXPECTED[self.config]

    def items(self) -> Listing:
        assert self.folder is not None
        part = self._part(self.config, self.folder)
        listing = (
            {split: self._split_items(part, split) for split in ('train', 'test')} if part else {}
        )
        listing = {split: items for split, items in listing.items() if items}
        if not listing:
            raise UserError(
                f'{part or self.folder} has none of the images IMG_n.jpg where they are published; '
                f'arrange it so, then run python -m data_prep.prepare shanghaitech '
                f'--part={self.config} --manual_dir={self.folder}\n{self.tree(self.config)}'
            )
        return listing

    def _split_items(self, part: pathlib.Path, split: str) -> list[Item]:
        """Items by number over images and annotations alike: one without the other is a problem."""
        folder = part / f'{split}_data'
        truth_folder = next(
            (folder / name for name in TRUTH_FOLDERS if (folder / name).is_dir()),
            folder / TRUTH_FOLDERS[0],
        )
        images, strays = _numbered(folder / 'images', IMAGE)
        truths, more_strays = _numbered(truth_folder, TRUTH)
        strays += more_strays
        if strays:
            self.notes.append(f'{split}: ignored {len(strays)} other files, such as {strays[0]}')
        if not images or not truths:
            return []
        items = []
        for number in sorted(images.keys() | truths.keys()):
            image = images.get(number)
            truth = truths.get(number)
            id = f'{self.config}/{split}/IMG_{number}'
            if image and truth:
                items.append(Item(id, (image, truth)))
            elif image:
                wanted = truth_folder / f'GT_IMG_{number}.mat'
                items.append(Item(id, (image,), f'{image}: its annotation {wanted} is missing'))
            elif truth:
                wanted = folder / 'images' / f'IMG_{number}.jpg'
                items.append(Item(id, (truth,), f'{truth}: its image {wanted} is missing'))
        return items

    def read(self, item: Item, split: str, index: int) -> tuple[dict[str, Any], np.ndarray]:
        if item.problem:
            raise BadFile(item.problem)
        image_path, truth_path = item.files
        data, image = read_image(image_path)
        points, noted = self._annotation(truth_path)
        if noted is not None and noted != len(points):
            self.notes.append(
                f'{item.id}: count {noted:g} in the file, {len(points)} points; the points are used'
            )
        return crowd_features(self, item.id, data, image, points), image

    def _annotation(self, path: pathlib.Path) -> tuple[np.ndarray, float | None]:
        """Points f64[P, 2] and the count beside them, items 0 and 1 of image_info[0, 0][0, 0]."""
        import numpy as np

        from data_prep import mat

        info = mat.unwrap(self.read_mat(path).get('image_info'))
        fields = list(info.values()) if isinstance(info, dict) else []
        if len(fields) < 2:
            raise BadFile(f'{path}: holds no image_info with points and a count')
        points = mat.as_points(fields[0], path)
        count = np.asarray(mat.unwrap(fields[1]))
        is_number = count.size == 1 and count.dtype.kind in 'fiu'
        return points, float(count.item()) if is_number else None


def _numbered(
    folder: pathlib.Path, pattern: re.Pattern[str]
) -> tuple[dict[int, pathlib.Path], list[str]]:
    """Files whose whole name matches, by number, and the names of the others."""
    found, strays = {}, []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match and not path.is_dir():
            found[int(match[1])] = path
        else:
            strays.append(path.name)
    return found, strays


SOURCE = ShanghaitechSource
