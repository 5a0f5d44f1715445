"""TFDS builder of BIQ2021."""

import tensorflow_datasets as tfds

from data_prep.biq2021.source import Biq2021Source
from data_prep.builder import SourceBuilder, score_features_spec


class Biq2021(SourceBuilder):
    """Photos with distortions as they occur, with MOS from 0 to 1."""

    SOURCE = Biq2021Source
    VERSION = tfds.core.Version(Biq2021Source.version)
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = Biq2021Source.tree('default')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in Biq2021Source.configs]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.features_info(score_features_spec())
