"""TFDS builder of drawn crowd scenes."""

import tensorflow_datasets as tfds

from data_prep.builder import SourceBuilder, crowd_features_spec
from data_prep.synthetic_crowd.source import SyntheticCrowdSource


class SyntheticCrowd(SourceBuilder):
    """Drawn crowd scenes with head points."""

    SOURCE = SyntheticCrowdSource
    VERSION = tfds.core.Version(SyntheticCrowdSource.version)
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in SyntheticCrowdSource.configs]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.features_info(crowd_features_spec())
