"""TFDS builder of TID2013."""

import tensorflow_datasets as tfds

from data_prep.builder import SourceBuilder, score_features_spec
from data_prep.tid2013.source import Tid2013Source


class Tid2013(SourceBuilder):
    """Distorted images of TID2013 with MOS; config `natural` leaves out the synthetic picture."""

    SOURCE = Tid2013Source
    VERSION = tfds.core.Version(Tid2013Source.version)
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = Tid2013Source.tree('natural')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in Tid2013Source.configs]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.features_info(score_features_spec())
