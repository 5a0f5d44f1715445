"""TFDS builder of any folder of images."""

import numpy as np
import tensorflow_datasets as tfds

from data_prep.builder import SourceBuilder
from data_prep.image_folder.source import ImageFolderSource


class ImageFolder(SourceBuilder):
    """Images of a folder without labels."""

    SOURCE = ImageFolderSource
    VERSION = tfds.core.Version(ImageFolderSource.version)
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'Any folder of images.'
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ImageFolderSource.configs]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            'image': tfds.features.Image(doc='encoded bytes as they are'),
            'id': tfds.features.Text(doc='path relative to the folder'),
            'height': tfds.features.Scalar(dtype=np.int32),
            'width': tfds.features.Scalar(dtype=np.int32),
        }
        return self.features_info(features)
