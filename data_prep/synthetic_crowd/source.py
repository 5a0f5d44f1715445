"""Drawn crowd scenes as a data set; nothing is read from disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_prep.source import Item, Listing, Source, crowd_features

if TYPE_CHECKING:
    import numpy as np

SPLITS = ('train', 'test')
TINY_SHAPE = (64, 96)  # (H, W) px
TINY_SHARE = 5  # a tiny scene has room for a fifth of the persons


class SyntheticCrowdSource(Source):
    """Scenes that depend on (seed, split, index) alone: a larger set extends a smaller one."""

    name = 'synthetic_crowd'
    version = '1.0.0'
    license = 'Drawn by this code; free of rights.'
    configs = ('default', 'tiny')
    options = {'seed': 0, 'train': 240, 'test': 80}
    needs_folder = False
    builder = 'SyntheticCrowd'

    def items(self) -> Listing:
        return {
            split: [Item(f'{split}/{i:04d}') for i in range(self.values[split])] for split in SPLITS
        }

    def read(self, item: Item, split: str, index: int) -> tuple[dict[str, Any], np.ndarray]:
        from data_prep.synthetic_crowd import scenes

        rng = scenes.image_rng(self.values['seed'], SPLITS.index(split), index)
        small = self.config == 'tiny'
        shape = TINY_SHAPE if small else scenes.draw_shape(rng)
        count = scenes.draw_count(rng) // TINY_SHARE if small else None
        image, points = scenes.draw(rng, shape, count=count)
        return crowd_features(self, item.id, scenes.encode(image), image, points), image


SOURCE = SyntheticCrowdSource
