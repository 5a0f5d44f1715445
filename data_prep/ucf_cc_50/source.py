"""Reads UCF_CC_50 as published: n.jpg with n_ann.mat, and the fold each image is tested in."""

from __future__ import annotations

import pathlib
import re
from typing import TYPE_CHECKING, Any

from data_prep.files import child
from data_prep.source import BadFile, Item, Listing, MatSource, crowd_features, read_image
from rank_ssl.errors import UserError

if TYPE_CHECKING:
    import numpy as np

EXPECTED = 50
ARCHIVE = 'UCF_CC_50'  # the folder inside the archive
IMAGE = re.compile(r'([1-9]\d*)\.jpg', re.IGNORECASE)
TRUTH = re.compile(r'([1-9]\d*)_ann\.mat', re.IGNORECASE)

# The lists released with the ranking paper's counting code (README.md). 41 and 46 share one.
FOLDS = (
    (37, 48, 29, 10, 14, 1, 45, 47, 40, 24),
    (25, 49, 18, 13, 28, 34, 17, 3, 26, 15),
    (31, 6, 33, 2, 30, 36, 42, 20, 38, 11),
    (5, 7, 4, 21, 27, 39, 22, 43, 32, 35),
    (8, 50, 12, 19, 44, 23, 9, 46, 16, 41),
)
FOLD = {number: fold for fold, numbers in enumerate(FOLDS, start=1) for number in numbers}
SCENES = {41: 'scene_41_46', 46: 'scene_41_46'}


class UcfCc50Source(MatSource):
    """50 images in five folds; the annotated count is the number of points in the .mat file."""

    name = 'ucf_cc_50'
    version = '1.0.0'
    license = 'Research use; cite Idrees et al., CVPR 2013 (UCF_CC_50 crowd counting).'
    configs = ('published', 'one_scene')
    builder = 'UcfCc50'

    @classmethod
    def holds(cls, config: str, folder: pathlib.Path) -> bool:
        root = child(folder, ARCHIVE)
        return any(_numbered(place, TRUTH) for place in (root, folder))

    @classmethod
    def tree(cls, config: str) -> str:
        return '\n'.join(
            [
                'ucf_cc_50/            (or DIR itself)',
                f'  {ARCHIVE}/          (or without this folder)',
                '    1.jpg ... 50.jpg',
                '    1_ann.mat ... 50_ann.mat',
            ]
        )

    @classmethod
    def write_tiny(cls, folder: pathlib.Path, *, config: str, count: int, seed: int) -> None:
        from data_prep.ucf_cc_50 import made

        made.write(folder / ARCHIVE, count=count, seed=seed)

    def expected(self) -> dict[str, int]:
        return {'all': EXPECTED}

    def items(self) -> Listing:
        """Items by number over images and annotations alike: one without the other is a problem."""
        assert self.folder is not None
        root = child(self.folder, ARCHIVE)
        root = root if _numbered(root, TRUTH) else self.folder
        images, truths = _numbered(root, IMAGE), _numbered(root, TRUTH)
        if not images or not truths:
            raise UserError(
                f'{root} has none of the {"annotations n_ann.mat" if images else "images n.jpg"}; '
                f'arrange it so, then run python -m data_prep.prepare {self.name} '
                f'--manual_dir={self.folder}\n{self.tree(self.config)}'
            )
        taken = {path.name for path in (*images.values(), *truths.values())}
        if strays := sorted({path.name for path in root.iterdir()} - taken):
            self.notes.append(f'ignored {len(strays)} other files, such as {strays[0]}')
        numbers = sorted(images.keys() | truths.keys())
        return {'all': [_item(root, n, images.get(n), truths.get(n)) for n in numbers]}

    def read(self, item: Item, split: str, index: int) -> tuple[dict[str, Any], np.ndarray]:
        if item.problem:
            raise BadFile(item.problem)
        image_path, truth_path = item.files
        data, image = read_image(image_path)
        points = self._annotation(truth_path)
        number = int(item.id.rpartition('/')[2])
        placed = {
            'fold': FOLD[number],
            'reference': SCENES.get(number, '') if self.config == 'one_scene' else '',
        }
        return crowd_features(self, item.id, data, image, points) | placed, image

    def _annotation(self, path: pathlib.Path) -> np.ndarray:
        """Points f64[P, 2], the variable annPoints."""
        from data_prep import mat

        variables = self.read_mat(path)
        if 'annPoints' not in variables:
            raise BadFile(f'{path}: holds no annPoints')
        return mat.as_points(variables['annPoints'], path)


def _numbered(folder: pathlib.Path, pattern: re.Pattern[str]) -> dict[int, pathlib.Path]:
    """The files whose whole name matches, by the number in it; 1 to 50 alone."""
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match and int(match[1]) in FOLD and not path.is_dir():
            found[int(match[1])] = path
    return found


def _item(
    root: pathlib.Path, number: int, image: pathlib.Path | None, truth: pathlib.Path | None
) -> Item:
    id = f'{UcfCc50Source.name}/{number}'
    if image and truth:
        return Item(id, (image, truth))
    if image:
        wanted = root / f'{number}_ann.mat'
        return Item(id, (image,), f'{image}: its annotation {wanted} is missing')
    assert truth is not None
    wanted = root / f'{number}.jpg'
    return Item(id, (truth,), f'{truth}: its image {wanted} is missing')


SOURCE = UcfCc50Source
