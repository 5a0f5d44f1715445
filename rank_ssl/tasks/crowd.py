"""Crowd counting (section 5): density maps, and nested crops whose counts have a known order."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rank_ssl import metrics, plots
from rank_ssl.errors import UserError
from rank_ssl.models.heads import DensityHead
from rank_ssl.ops import crops, density, images
from rank_ssl.types import Labeled, Prediction, RankedSet, Record, Views

# ImageNet's mean colour, RGB: about zero to the network, as its own zero padding is.
PADDING = (124, 116, 104)

ASKED = ('anchors', 'nested')
ANCHORS = 10  # times five squares: 100 pairs, each inside its anchor, from 50 forwards
NESTED = 15  # squares of one anchor, down to a quarter of the largest: 105 pairs from 15 forwards


@dataclasses.dataclass(slots=True)
class Crowd:
    """Counting people: f is the number of persons in an image, the sum of its density map.

    Records hold 'points', f32[P, 2] as (x, y) in px, and 'count', the persons annotated.
    """

    size: int = 224  # side of the network's input, px (5.3)
    levels: int = 5  # k, nested squares of one image (Algorithm 2)
    scale: float = 0.75  # s, side of a square over the one around it
    anchor: float = 8.0  # r: the anchor region's sides are 1/r of the image's
    nesting: str = 'centred'  # squares of one centre (Algorithm 2), or 'free' inside each other
    asked: str = 'anchors'  # certainty on the squares of 10 anchors, or on 15 'nested' ones of one
    sigma: float = 15.0  # of a person's Gaussian, px of the original image (5.2)
    patch_min: int = 56  # labeled patches, side in px of the original image (5.3)
    patch_max: int = 448
    eval_side: int = 0  # longer side of an evaluated image at most, px; 0 = as it is
    cell: int = 16  # px of the input per cell of the density map: the backbone's stride
    head_std: float = 0.001  # of the new layer's initial kernel: the map starts near 0
    unit: str = 'persons'
    best: str = 'mae'
    lower_is_better: bool = True

    def check(self) -> None:
        """Raises UserError where a setting is out of its range."""
        if self.cell < 1:
            raise UserError(f'config.task.cell={self.cell} px must be 1 or greater; use 16')
        if self.size < self.cell or self.size % self.cell:
            near = max(self.cell, round(self.size / self.cell) * self.cell)
            raise UserError(
                f'config.task.size={self.size} must be a multiple of the stride {self.cell}; '
                f'use {near}'
            )
        if self.levels < 2:
            raise UserError(f'config.task.levels={self.levels} makes no pair to rank; use 5')
        if not 0 < self.scale < 1:
            raise UserError(f'config.task.scale={self.scale} must lie between 0 and 1; use 0.75')
        if not self.anchor >= 1:
            raise UserError(f'config.task.anchor={self.anchor} must be 1 or greater; use 8')
        if self.nesting not in crops.NESTINGS:
            raise UserError(
                f'config.task.nesting={self.nesting} is unknown; use {", ".join(crops.NESTINGS)}'
            )
        if self.asked not in ASKED:
            raise UserError(f'config.task.asked={self.asked} is unknown; use {", ".join(ASKED)}')
        if not self.sigma > 0:
            raise UserError(f'config.task.sigma={self.sigma} px must be greater than 0; use 15')
        if not self.head_std >= 0:
            raise UserError(f'config.task.head_std={self.head_std} must be 0 or greater; use 0.001')
        if not 1 <= self.patch_min <= self.patch_max:
            raise UserError(
                f'config.task.patch_min={self.patch_min} px must lie between 1 and '
                f'config.task.patch_max={self.patch_max}; use 56 and 448'
            )
        if self.eval_side and self.eval_side < self.cell:
            raise UserError(
                f'config.task.eval_side={self.eval_side} px must be 0 or at least {self.cell}'
            )

    def head(self) -> nn.Module:
        """One 3x3 convolution to a density map in persons per cell (5.3)."""
        return DensityHead(init_std=self.head_std)

    def stride(self) -> int:
        """Px of the input per cell of the density map."""
        return self.cell

    def target_shape(self) -> tuple[int, int]:
        """Cells of the density map of one input."""
        return self.size // self.cell, self.size // self.cell

    def ranked_set(self, rng: np.random.Generator, record: Record) -> RankedSet:
        """Nested squares round one anchor, each resized to the input (Algorithm 2)."""
        made, phi = crops.crop_pyramid(
            rng,
            record['image'],
            levels=self.levels,
            scale=self.scale,
            size=self.size,
            anchor_fraction=1 / self.anchor,
            nesting=self.nesting,
        )
        return RankedSet(made, phi, np.zeros(self.levels, np.int32))

    def unit_of(self, record: Record) -> str:
        """An image is labeled by itself."""
        return str(record['id'])

    def certainty_set(self, rng: np.random.Generator, records: Sequence[Record]) -> RankedSet:
        """The squares that an image is asked about: of 10 anchors, or 15 nested ones (eq. 15)."""
        (record,) = records
        if self.asked == 'nested':
            whole = dataclasses.replace(self, levels=NESTED, scale=4 ** (-1 / (NESTED - 1)))
            return whole.ranked_set(rng, record)
        made = [self.ranked_set(rng, record) for _ in range(ANCHORS)]
        images, phi, _ = (np.concatenate(values) for values in zip(*made, strict=True))
        return RankedSet(images, phi, np.arange(ANCHORS, dtype=np.int32).repeat(self.levels))

    def labeled(self, rng: np.random.Generator, record: Record) -> Labeled:
        """A square patch of random side (5.3) and the mass of persons in each of its cells."""
        image = record['image']
        shape = image.shape[:2]
        box = crops.patch_box(rng, shape, min_side=self.patch_min, max_side=self.patch_max)
        target = density.cell_mass(
            record['points'], shape, box=box, cells=self.target_shape(), sigma=self.sigma
        )
        return Labeled(crops.crop_resize(image, box, self.size), target)

    def score(self, output: jax.Array) -> jax.Array:
        """The count: the density map's sum. [..., h, w] -> f32[...]."""
        return output.astype(jnp.float32).sum((-2, -1))

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Squared distance of the maps, summed over cells (eq. 17). [..., h, w] -> [...]."""
        return ((output.astype(jnp.float32) - target) ** 2).sum((-2, -1))

    def label(self, record: Record) -> float:
        """Persons annotated."""
        return float(record['count'])

    def published(self, record: Record, value: float) -> float:
        """Persons as they are."""
        return value

    def view_shape(self, height: int, width: int) -> tuple[int, int]:
        """The whole image, bounded by `eval_side`, up to the next multiple of the stride."""
        fitted = images.fitted_shape(height, width, self.eval_side)
        return tuple(math.ceil(side / self.cell) * self.cell for side in fitted)  # type: ignore[return-value]

    def views(self, rng: np.random.Generator, record: Record) -> Views:
        """The whole image, filled up to a multiple of the stride at its lower and right border."""
        image = images.fit_within(record['image'], self.eval_side)
        view = np.empty((1, *self.view_shape(*record['image'].shape[:2]), 3), np.uint8)
        view[:] = np.asarray(PADDING, np.uint8)
        view[0, : image.shape[0], : image.shape[1]] = image
        return Views(view)

    def metrics(
        self, predicted: np.ndarray, true: np.ndarray, records: Sequence[Record] = ()
    ) -> dict[str, float]:
        """MAE, and MSE as the field calls the root of it (eq. 20, 21), in persons."""
        return {'mae': metrics.mae(predicted, true), 'mse': metrics.mse(predicted, true)}

    def columns(self, record: Record) -> dict[str, Any]:
        """Nothing beside the counts."""
        return {}

    def figures(
        self,
        predictions: Sequence[Prediction],
        predicted: np.ndarray,
        true: np.ndarray,
        records: Sequence[Record],
    ) -> dict[str, Any]:
        """Image, true and predicted density side by side (Fig. 6); a plot of the counts."""
        figures = {'counts': plots.counts(true, predicted, title='Counts', unit=self.unit)}
        # A set with counts alone has no true density to show.
        predictions = [p for p in predictions if 'points' in p.record]
        if not predictions:
            return figures
        figures['density'] = plots.density_rows(
            [p.image for p in predictions],
            [self._true_map(p) for p in predictions],
            [p.output for p in predictions],
            true_counts=[self.label(p.record) for p in predictions],
            predicted_counts=[p.predicted for p in predictions],
            ids=[p.id for p in predictions],
        )
        return figures

    def ranked_figure(self, rng: np.random.Generator, record: Record) -> Any:
        """The nested squares on their source, and the crops in order (Fig. 4, bottom)."""
        image = record['image']
        boxes = crops.pyramid_boxes(
            rng,
            image.shape[:2],
            levels=self.levels,
            scale=self.scale,
            anchor_fraction=1 / self.anchor,
            nesting=self.nesting,
        )
        made = np.stack([crops.crop_resize(image, box, self.size) for box in boxes])
        return plots.ranked_set(image, made, boxes[:, 2] - boxes[:, 0], boxes=boxes)

    def _true_map(self, prediction: Prediction) -> np.ndarray:
        """The true density on the cells of a prediction's view."""
        height, width = prediction.record['image'].shape[:2]
        fitted = images.fitted_shape(height, width, self.eval_side)
        scale = np.array([fitted[1] / width, fitted[0] / height], np.float32)
        return density.cell_mass(
            prediction.record['points'] * scale,
            prediction.image.shape[:2],
            cells=prediction.output.shape,
            sigma=self.sigma * float(scale.mean()),
        )
