"""TFDS builder of the Waterloo Exploration Database's pristine images."""

import tensorflow_datasets as tfds

from data_prep.builder import SourceBuilder
from data_prep.ladders import features
from data_prep.waterloo.source import WaterlooSource


class Waterloo(SourceBuilder):
    """4,744 pristine images and the costly levels of their distortion ladders."""

    SOURCE = WaterlooSource
    VERSION = tfds.core.Version(WaterlooSource.version)
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = WaterlooSource.tree('default')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in WaterlooSource.configs]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.features_info(features.spec())
