"""TFDS builder of TID2013 re-made from Kodak's images."""

import numpy as np
import tensorflow_datasets as tfds

from data_prep.builder import SourceBuilder, score_features_spec
from data_prep.tid2013_kodak.source import Tid2013KodakSource


class Tid2013Kodak(SourceBuilder):
    """12 types of TID2013 re-made from Kodak's images by calibrated PSNR, with the real MOS."""

    SOURCE = Tid2013KodakSource
    VERSION = tfds.core.Version(Tid2013KodakSource.version)
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = Tid2013KodakSource.tree('default')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in Tid2013KodakSource.configs]

    def _info(self) -> tfds.core.DatasetInfo:
        reached = {
            'psnr': tfds.features.Scalar(dtype=np.float32, doc='dB against the reference, reached'),
            'psnr_wanted': tfds.features.Scalar(dtype=np.float32, doc='dB of the level'),
            'value': tfds.features.Scalar(dtype=np.float32, doc="the type's parameter, as found"),
        }
        return self.features_info({**score_features_spec(), **reached})
