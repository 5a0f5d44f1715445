"""TFDS builder of a folder of photos with points."""

import tensorflow_datasets as tfds

from data_prep.builder import SourceBuilder, crowd_features_spec
from data_prep.points_folder.source import PointsFolderSource


class PointsFolder(SourceBuilder):
    """Photos of one's own with one point per person."""

    SOURCE = PointsFolderSource
    VERSION = tfds.core.Version(PointsFolderSource.version)
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = PointsFolderSource.tree('default')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in PointsFolderSource.configs]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.features_info(crowd_features_spec())
