"""TFDS builder of UCF_CC_50."""

import numpy as np
import tensorflow_datasets as tfds

from data_prep.builder import SourceBuilder, crowd_features_spec
from data_prep.ucf_cc_50.source import UcfCc50Source


class UcfCc50(SourceBuilder):
    """UCF_CC_50 with head points and folds; `one_scene` ties the images of one scene together."""

    name = UcfCc50Source.name  # TFDS would make ucf_cc50 of the class's name
    SOURCE = UcfCc50Source
    VERSION = tfds.core.Version(UcfCc50Source.version)
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = UcfCc50Source.tree('published')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in UcfCc50Source.configs]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.features_info(
            {
                **crowd_features_spec(),
                'fold': tfds.features.Scalar(dtype=np.int32, doc='tested on together, from 1'),
                'reference': tfds.features.Text(doc='the scene of several images, or empty'),
            }
        )
