"""Image quality assessment (section 4): ladders of distortions whose quality has a known order."""

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
from rank_ssl.models.heads import FCHead, PoolHead
from rank_ssl.ops import crops, distortions, images, ladders
from rank_ssl.ops.distortions import LADDERS
from rank_ssl.types import Labeled, Prediction, RankedSet, Record, Views

HEADS = ('fc', 'pool')
ASKED_IMAGES = 4  # sub-images of each of a unit's levels: five levels make 160 pairs
ASKED_CHAINS = 10  # ladders of a photo that has no levels: of five levels each, 100 pairs


@dataclasses.dataclass(slots=True)
class IQA:
    """Scoring the quality of an image: f is higher where people like the image better.

    Records hold 'score' as published, 'lower_is_better' (1 for DMOS, whose sign is turned here),
    'reference', 'kind' and 'level'. Sub-images are cut, never rescaled: that would change the
    distortions (4.3).
    """

    size: int = 224  # side of a sub-image, px (4.3)
    ladder: str = 'tid2013'  # 'tid2013' (19 chains of 5 levels, pristine counted), 'live' (4 of 6)
    chains: str = ''  # those that are ranked, separated by commas; '' = all of the ladder
    crop: str = 'independent'  # a position for each level, or 'aligned': one for the whole ladder
    compat: str = 'paper'  # levels of the paper's appendix, or 'caffe': of the released code
    sub_images: int = 30  # whose mean score is an image's prediction (6.1)
    last: str = 'fc'  # 'fc': VGG-16's fc6 and fc7; 'pool': pooled convolution features
    features: int = 4096  # of fc6 and of fc7, as VGG-16's
    dropout: float = 0.5  # before and after fc7; of the pooled features
    head_std: float = 0.001  # of the new layer's initial kernel
    head_bias: float = 0.0  # and its initial bias: the mean score, where it is known
    unit: str = 'score'
    best: str = 'srocc'
    lower_is_better: bool = False

    @property
    def levels(self) -> int:
        """K: the pristine image and its distorted ones."""
        return 1 + max(LADDERS[self.ladder].values()) if self.ladder in LADDERS else 0

    def check(self) -> None:
        """Raises UserError where a setting is out of its range."""
        for name, allowed in (
            ('ladder', tuple(LADDERS)),
            ('crop', ladders.CROPS),
            ('compat', distortions.COMPATS),
            ('last', HEADS),
        ):
            if (value := getattr(self, name)) not in allowed:
                raise UserError(f'config.task.{name}={value} is unknown; use {", ".join(allowed)}')
        for chain in self._chains():
            if chain not in LADDERS[self.ladder]:
                raise UserError(
                    f'config.task.chains names {chain}, which the {self.ladder} ladder has not; '
                    f'use {", ".join(LADDERS[self.ladder])}'
                )
        if self.size < 16:
            raise UserError(f'config.task.size={self.size} px must be 16 or greater; use 224')
        if self.last == 'fc' and self.size % 32:
            raise UserError(
                f'config.task.size={self.size} must be a multiple of the stride 32 of fc6; use 224'
            )
        if self.sub_images < 1:
            raise UserError(
                f'config.task.sub_images={self.sub_images} must be 1 or greater; use 30'
            )
        if self.features < 1:
            raise UserError(
                f'config.task.features={self.features} must be 1 or greater; use 4096, which '
                'ImageNet weights have'
            )
        if not 0 <= self.dropout < 1:
            raise UserError(
                f'config.task.dropout={self.dropout} must be 0 or greater and below 1; use 0.5'
            )
        if not 0 <= self.head_std < math.inf:
            raise UserError(f'config.task.head_std={self.head_std} must be 0 or greater; use 0.001')
        if not math.isfinite(self.head_bias):
            raise UserError(
                f'config.task.head_bias={self.head_bias} must be finite; use the mean score'
            )

    def _chains(self) -> tuple[str, ...]:
        named = tuple(filter(None, map(str.strip, self.chains.split(','))))
        return named or tuple(LADDERS[self.ladder])

    def head(self) -> nn.Module:
        """VGG-16's fully connected layers, or pooling, and one output (4.3)."""
        options: dict[str, Any] = {'dropout': self.dropout, 'init_std': self.head_std}
        options['init_bias'] = self.head_bias
        return (
            FCHead(features=self.features, **options) if self.last == 'fc' else PoolHead(**options)
        )

    def stride(self) -> int | None:
        """32 for fc6, whose input is pool5; any for pooled features."""
        return 32 if self.last == 'fc' else None

    def target_shape(self) -> tuple[int, ...]:
        """One score."""
        return ()

    def ranked_set(self, rng: np.random.Generator, record: Record) -> RankedSet:
        """The levels of one chain, drawn for this record: sub-images of the distorted images."""
        made = self._ladder(rng, record, self._draw_chain(rng))
        phi = 0 - np.arange(len(made), dtype=np.float32)
        return RankedSet(made, phi, np.zeros(len(made), np.int32))

    def unit_of(self, record: Record) -> str:
        """The levels of one distortion of a reference are labeled at once (6.1.3), if there are.

        An image whose level is not known, as in LIVE, is a unit of its own: it has no known order.
        """
        reference, kind, level = (record.get(name) for name in ('reference', 'kind', 'level'))
        return f'{reference}/{kind}' if reference and kind and level else str(record['id'])

    def certainty_set(self, rng: np.random.Generator, records: Sequence[Record]) -> RankedSet:
        """Sub-images of a unit's levels; of a single photo ladders that are made of it (eq. 15)."""
        if len(records) == 1:
            return self._asked_ladders(rng, records[0])
        made = np.concatenate([self._sub_images(rng, r, ASKED_IMAGES) for r in records])
        phi = np.array([-int(r['level']) for r in records], np.float32).repeat(ASKED_IMAGES)
        return RankedSet(made, phi, np.zeros(len(made), np.int32))

    def _asked_ladders(self, rng: np.random.Generator, record: Record) -> RankedSet:
        named = self._chains()
        places = rng.permutation(max(len(named), ASKED_CHAINS))[:ASKED_CHAINS] % len(named)
        made = [self._ladder(rng, record, named[place]) for place in places]
        phi = [0 - np.arange(len(images), dtype=np.float32) for images in made]
        segments = np.arange(ASKED_CHAINS, dtype=np.int32).repeat([len(images) for images in made])
        return RankedSet(np.concatenate(made), np.concatenate(phi), segments)

    def _draw_chain(self, rng: np.random.Generator) -> str:
        chains = self._chains()
        return chains[rng.integers(len(chains))]

    def _ladder(self, rng: np.random.Generator, record: Record, chain: str) -> np.ndarray:
        return ladders.ladder(
            rng,
            record['image'],
            chain,
            size=self.size,
            stored=record,
            crop=self.crop,
            compat=self.compat,
        )

    def labeled(self, rng: np.random.Generator, record: Record) -> Labeled:
        """One random sub-image and the score of its image (6.1)."""
        target = np.array(self.label(record), np.float32)
        return Labeled(self._sub_images(rng, record, 1)[0], target)

    def _sub_images(self, rng: np.random.Generator, record: Record, count: int) -> np.ndarray:
        image = images.extend(record['image'], self.size)
        boxes = [crops.sub_box(rng, image.shape[:2], self.size) for _ in range(count)]
        return np.stack([image[y0:y1, x0:x1] for y0, x0, y1, x1 in boxes])

    def score(self, output: jax.Array) -> jax.Array:
        """The quality. [...] -> f32[...]."""
        return output.astype(jnp.float32)

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Squared distance of the scores (4.3). [...], [...] -> [...]."""
        return (output.astype(jnp.float32) - target) ** 2

    def label(self, record: Record) -> float:
        """The published score, negated where lower is better."""
        return self.published(record, float(record['score']))

    def published(self, record: Record, value: float) -> float:
        """Quality to score or score to quality: the sign is turned where lower is better."""
        return -value if int(record['lower_is_better']) else value

    def view_shape(self, height: int, width: int) -> tuple[int, int]:
        """A sub-image's, whatever the image's."""
        return self.size, self.size

    def views(self, rng: np.random.Generator, record: Record) -> Views:
        """Random sub-images (6.1)."""
        return Views(self._sub_images(rng, record, self.sub_images))

    def metrics(
        self, predicted: np.ndarray, true: np.ndarray, records: Sequence[Record] = ()
    ) -> dict[str, float]:
        """LCC and SROCC (eq. 18, 19) on all, and `lcc/KIND`, `srocc/KIND` by distortion type."""
        found = {'lcc': metrics.lcc(predicted, true), 'srocc': metrics.srocc(predicted, true)}
        kinds = [str(record['kind']) for record in records]
        if len(set(kinds)) < 2:
            return found
        by_kind = metrics.by_kind(predicted, true, kinds)
        found |= {f'lcc/{kind}': values['lcc'] for kind, values in by_kind.items()}
        return found | {f'srocc/{kind}': values['srocc'] for kind, values in by_kind.items()}

    def columns(self, record: Record) -> dict[str, Any]:
        """Reference, distortion type and level, as far as they are known."""
        return {name: record[name] for name in ('reference', 'kind', 'level')}

    def figures(
        self,
        predictions: Sequence[Prediction],
        predicted: np.ndarray,
        true: np.ndarray,
        records: Sequence[Record],
    ) -> dict[str, Any]:
        """Predicted against true score by type; mean score against level of each type."""
        kinds = [str(record['kind']) for record in records]
        true, predicted = (
            np.array([self.published(r, float(v)) for r, v in zip(records, values, strict=True)])
            for values in (true, predicted)
        )
        figures = {'scores': plots.scores(true, predicted, kinds, unit=self.unit)}
        levels = np.array([int(record['level']) for record in records])
        known = [n for n, kind in enumerate(kinds) if kind and levels[n] > 0]
        if len({(kinds[n], levels[n]) for n in known}) > len({kinds[n] for n in known}):
            figures['levels'] = plots.levels(
                predicted[known], levels[known], [kinds[n] for n in known], true=true[known]
            )
        return figures

    def ranked_figure(self, rng: np.random.Generator, record: Record) -> Any:
        """A source image and its sub-images at each level of one chain (Fig. 2)."""
        chain = self._draw_chain(rng)
        made = self._ladder(rng, record, chain)
        name = chain.replace('_', ' ')
        return plots.ranked_set(record['image'], made, 0 - np.arange(len(made)), name=name)
