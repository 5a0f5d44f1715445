"""Data sets as TFDS builders that need no TensorFlow; `python -m data_prep.prepare NAME`."""
