"""The TFDS side: a base class for builders made from a Source, and their unattended build."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import io
import pathlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import shuffle

from data_prep import validate
from data_prep.progress import Progress
from data_prep.source import TINY_MARKER, BadFile, Listing, Source, bad_files_message, shortfall
from rank_ssl.errors import UserError

# TFDS keeps the name 'all' for the union of a set's splits: a set with one split is read by it.
RENAMED = {'all': 'whole'}
PACKAGES = ('tensorflow-datasets', 'array-record', 'numpy', 'scipy', 'pillow',
            'opencv-python-headless')  # fmt: skip


class SourceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A TFDS builder whose examples come from `SOURCE`.

    Subclasses give SOURCE, VERSION, BUILDER_CONFIGS and _info. `build` sets source, listing and
    report; in plain TFDS use they come from manual_dir and bad files are errors.
    """

    SOURCE: ClassVar[type[Source]]
    source: Source | None = None
    listing: Listing | None = None
    report: Report | None = None

    @tfds.core.utils.classproperty
    @classmethod
    def code_path(cls) -> epath.Path:
        """The builder's file.

        TFDS 4.9.10 finds it through importlib_resources, a package it does not require.
        """
        return epath.Path(inspect.getfile(cls))

    def features_info(self, features: dict[str, Any]) -> tfds.core.DatasetInfo:
        """DatasetInfo with the README.md and CITATIONS.bib beside the builder; order is kept."""
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            license=self.SOURCE.license,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        if self.source is None:
            self.source = self._source_in(dl_manager)
            self.listing = self.source.items()
            if missing := shortfall(self.source, self.listing):
                raise UserError(f'{self.name} in {self.source.folder} is incomplete: {missing}')
        report = self.report or Report(self.source, self.listing or {}, on_bad='error')
        return {
            RENAMED.get(split, split): self._generate_examples(report, split)
            for split in self.listing or {}
        }

    def _source_in(self, dl_manager: tfds.download.DownloadManager) -> Source:
        config = self.builder_config.name
        if not self.SOURCE.needs_folder:
            return self.SOURCE(config, None)
        manual_dir = pathlib.Path(dl_manager.manual_dir)
        folder = self.SOURCE.locate(config, manual_dir)
        if folder is None:
            raise UserError(f'{self.name} is not in {manual_dir}\n{self.SOURCE.tree(config)}')
        return self.SOURCE(config, folder)

    def _generate_examples(self, report: Report, split: str) -> Iterator[tuple[int, Any]]:
        yield from report.examples(split)
        if self.report is None:
            report.check()


def crowd_features_spec() -> dict[str, Any]:
    """The features every counting set has; points are (x, y) in px inside the image."""
    return {
        'image': tfds.features.Image(doc='encoded bytes as published'),
        'id': tfds.features.Text(),
        'points': tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
        'count': tfds.features.Scalar(dtype=np.int32, doc='persons as annotated'),
        'outside': tfds.features.Scalar(dtype=np.int32, doc='annotated points off the image'),
        'height': tfds.features.Scalar(dtype=np.int32),
        'width': tfds.features.Scalar(dtype=np.int32),
    }


def score_features_spec() -> dict[str, Any]:
    """The features every image quality set has; scores as published, whichever way they run."""
    return {
        'image': tfds.features.Image(doc='encoded bytes as published'),
        'id': tfds.features.Text(),
        'height': tfds.features.Scalar(dtype=np.int32),
        'width': tfds.features.Scalar(dtype=np.int32),
        'score': tfds.features.Scalar(dtype=np.float32, doc='as published'),
        'lower_is_better': tfds.features.Scalar(dtype=np.int32, doc='1 for DMOS, else 0'),
        'reference': tfds.features.Text(doc='the pristine picture it was made from, or empty'),
        'kind': tfds.features.Text(doc='type of distortion, or empty'),
        'level': tfds.features.Scalar(dtype=np.int32, doc='of the distortion, from 1; 0 = unknown'),
    }


class Report:
    """Reads a source's examples and remembers what prepared.json says about them."""

    def __init__(self, source: Source, listing: Listing, *, on_bad: str) -> None:
        self.source = source
        self.listing = listing
        self.on_bad = on_bad
        self.splits: dict[str, int] = {}
        self.persons: dict[str, int] = {}
        self.outside: dict[str, int] = {}
        self.scores: dict[str, tuple[float, float]] = {}  # split -> lowest, highest
        self.references: dict[str, set[str]] = {}
        self.kinds: Counter[str] = Counter()
        self._bad: dict[str, None] = {}  # in order; one file may serve many examples
        self.validator = validate.Validator()
        self.label = f'{source.name} {source.config}'

    def examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """(position, features) of each usable example of one split."""
        self.splits[split] = 0
        items = self.listing[split]
        progress = Progress(f'{self.label} {split}', len(items))
        for index, item in enumerate(items):
            try:
                features, image = self.source.read(item, split, index)
            except BadFile as error:
                self._bad[str(error)] = None
            else:
                self._count(split, features)
                group = features.get('reference', '')
                self.validator.add(split, features['id'], features['image'], image, group=group)
                yield index, features
            progress.step()
        progress.close()
        if not self.splits[split]:
            raise UserError(bad_files_message(f'{self.label} {split}: no usable example', self.bad))

    @property
    def bad(self) -> list[str]:
        """What is wrong with each bad file."""
        return list(self._bad)

    def _count(self, split: str, features: dict[str, Any]) -> None:
        self.splits[split] += 1
        for total, key in ((self.persons, 'count'), (self.outside, 'outside')):
            if key in features:
                total[split] = total.get(split, 0) + features[key]
        if 'score' in features:
            self._count_score(split, features)

    def _count_score(self, split: str, features: dict[str, Any]) -> None:
        score = features['score']
        low, high = self.scores.get(split, (score, score))
        self.scores[split] = min(low, score), max(high, score)
        references = self.references.setdefault(split, set())
        if features['reference']:
            references.add(features['reference'])
        if features['kind']:
            self.kinds[features['kind']] += 1

    def check(self) -> None:
        """Raises UserError that lists the bad files, unless they are to be skipped."""
        if self.bad and self.on_bad == 'error':
            raise UserError(bad_files_message(self.label, self.bad))

    def record(self, fingerprint: str) -> dict[str, Any]:
        """What prepared.json holds, without the file list."""
        source = self.source
        expected = source.expected() or dict(self.splits)
        partial = any(self.splits.get(split, 0) < n for split, n in expected.items())
        return {
            'name': source.name,
            'config': source.config,
            'version': source.version,
            'fingerprint': fingerprint,
            'options': source.values,
            'source': str(source.folder.resolve()) if source.folder else None,
            'made': bool(source.folder and (source.folder / TINY_MARKER).exists()),
            'partial': partial,
            'expected': expected,
            'splits': self.splits,
            'persons': self.persons,
            'outside': self.outside,
            'scale': source.scale.as_json() if source.scale else None,
            'scores': self.scores,
            'references': {split: len(names) for split, names in self.references.items()},
            'kinds': dict(self.kinds),
            'bad_files': self.bad,
            'notes': source.notes,
            'near_duplicates': [d.as_json() for d in self.validator.duplicates()],
            'license': source.license,
            'packages': {name: importlib.metadata.version(name) for name in PACKAGES},
        }


class _Spool(shuffle.Shuffler):
    """TFDS's Shuffler for ordered examples, with the records in a file.

    TFDS's own holds up to 1 GiB in memory, then writes through TensorFlow, which isn't installed.
    """

    def __init__(self, dirpath: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(dirpath, *args, **kwargs)
        self._file = tempfile.TemporaryFile(dir=dirpath)  # noqa: SIM115 (closed in _iter_mem)

    def _add_to_mem_buffer(self, hkey: int, data: bytes) -> None:
        self._mem_buffer.append((hkey, self._file.tell(), len(data)))
        self._file.write(data)

    def _iter_mem(self) -> Iterator[tuple[int, bytes]]:
        for hkey, start, size in sorted(self._mem_buffer):
            self._file.seek(start)
            yield hkey, self._file.read(size)
        self._file.close()


def build(
    source: Source, listing: Listing, folder: pathlib.Path, *, on_bad: str
) -> tuple[pathlib.Path, Report]:
    """Writes the set below `folder` and returns its TFDS version folder with the report.

    Raises UserError for bad files unless `on_bad` is 'skip'.
    """
    module = importlib.import_module(f'data_prep.{source.name}.{source.name}')
    report = Report(source, listing, on_bad=on_bad)
    tfds.disable_progress_bar()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(shuffle, 'Shuffler', _Spool),
        source,
    ):
        builder = getattr(module, source.builder)(
            config=source.config, data_dir=str(folder), file_format='array_record'
        )
        builder.source, builder.listing, builder.report = source, listing, report
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=str(folder))
        )
    report.check()
    return pathlib.Path(builder.data_dir), report
