"""TFDS builder of LIVE release 2."""

import tensorflow_datasets as tfds

from data_prep.builder import SourceBuilder, score_features_spec
from data_prep.live.source import LiveSource


class Live(SourceBuilder):
    """Distorted images of LIVE release 2 with DMOS: the lower, the better."""

    SOURCE = LiveSource
    VERSION = tfds.core.Version(LiveSource.version)
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = LiveSource.tree('default')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in LiveSource.configs]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.features_info(score_features_spec())
