"""Drawn crowd scenes as a data set; nothing is read from disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_prep.source import Item, Listing, Source

if TYPE_CHECKING:
    import numpy as np

SPLITS = ('train', 'test')
TINY_SHAPE = (64, 96)  # (H, W) px


class SyntheticCrowdSource(Source):
    """Scenes that depend on (seed, split, index) alone: a larger set starts with the smaller one."""

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
        shape = TINY_SHAPE if self.config == 'tiny' else scenes.draw_shape(rng)
        image, points = scenes.draw(rng, shape)
        features = {
            'image': scenes.encode(image),
            'id': item.id,
            'points': points.astype('float32'),
            'count': len(points),
            'outside': 0,
            'height': shape[0],
            'width': shape[1],
        }
        return features, image


SOURCE = SyntheticCrowdSource
