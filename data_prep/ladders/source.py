"""Reads any folder of pristine images, however deep, and makes the costly levels of each."""

from __future__ import annotations

from data_prep.image_folder.source import ImageFolderSource
from data_prep.ladders.reader import LadderReader
from data_prep.source import Listing


class LaddersSource(LadderReader, ImageFolderSource):
    """One split `train` of the images below manual_dir; the relative path is the id."""

    name = 'ladders'
    version = '1.0.0'
    license = "The images' own."
    builder = 'Ladders'

    def items(self) -> Listing:
        return {split: self._remember(items) for split, items in super().items().items()}


SOURCE = LaddersSource
