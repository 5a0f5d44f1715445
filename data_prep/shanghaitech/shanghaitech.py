"""TFDS builder of ShanghaiTech."""

import tensorflow_datasets as tfds

from data_prep.builder import SourceBuilder, crowd_features_spec
from data_prep.shanghaitech.source import ShanghaitechSource


class Shanghaitech(SourceBuilder):
    """ShanghaiTech parts A (crowded, from the web) and B (streets), with head points."""

    SOURCE = ShanghaitechSource
    VERSION = tfds.core.Version(ShanghaitechSource.version)
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = ShanghaitechSource.tree('part_A')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ShanghaitechSource.configs]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.features_info(crowd_features_spec())
