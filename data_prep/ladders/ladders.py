"""TFDS builder of any folder of pristine images with their ladders."""

import tensorflow_datasets as tfds

from data_prep.builder import SourceBuilder
from data_prep.ladders import features
from data_prep.ladders.source import LaddersSource


class Ladders(SourceBuilder):
    """Pristine images of a folder and the costly levels of their distortion ladders."""

    SOURCE = LaddersSource
    VERSION = tfds.core.Version(LaddersSource.version)
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'Any folder of pristine images.'
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in LaddersSource.configs]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.features_info(features.spec())
