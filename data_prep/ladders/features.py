"""The TFDS features of a ladder set."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep.ladders import reader


def spec() -> dict[str, Any]:
    """The image, its name and size, and the encoded levels `rank_ssl.ops.ladders` decodes."""
    return {
        'image': tfds.features.Image(doc='encoded bytes as published, PNG for uncompressed ones'),
        'id': tfds.features.Text(),
        'height': tfds.features.Scalar(dtype=np.int32),
        'width': tfds.features.Scalar(dtype=np.int32),
        **{key: tfds.features.Text(doc='encoded image') for key in reader.stored_keys()},
    }
