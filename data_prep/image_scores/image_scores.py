"""TFDS builder of a folder of images with scores."""

import tensorflow_datasets as tfds

from data_prep.builder import SourceBuilder, score_features_spec
from data_prep.image_scores.source import ImageScoresSource


class ImageScores(SourceBuilder):
    """Images of one's own with one quality score each."""

    SOURCE = ImageScoresSource
    VERSION = tfds.core.Version(ImageScoresSource.version)
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = ImageScoresSource.tree('default')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ImageScoresSource.configs]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.features_info(score_features_spec())
