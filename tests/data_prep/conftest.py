"""Made data in published layouts, and the prepare command in this process and in one of its own."""

import io
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep import prepare
from data_prep.shanghaitech import made

ROOT = pathlib.Path(__file__).resolve().parents[2]


def jpeg(seed: int, shape: tuple[int, int] = (40, 56), mode: str = 'RGB') -> bytes:
    """JPEG bytes of a smooth random picture of (H, W)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    picture = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, 'JPEG')
    return buffer.getvalue()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    return jpeg


@pytest.fixture
def write_shanghaitech() -> Callable[..., pathlib.Path]:
    """write(part_folder, train=3, test=2, truth=...); image n has n + 1 points."""

    def write(
        part: pathlib.Path, *, train: int = 3, test: int = 2, truth: str = 'ground-truth'
    ) -> pathlib.Path:
        for split, number in (('train', train), ('test', test)):
            images, truths = (part / f'{split}_data' / name for name in ('images', truth))
            images.mkdir(parents=True)
            truths.mkdir()
            for n in range(1, number + 1):
                seed = n if split == 'train' else 1000 + n
                mode = 'L' if n == 2 else 'RGB'
                (images / f'IMG_{n}.jpg').write_bytes(jpeg(seed, mode=mode))
                points = np.random.default_rng(seed).uniform(0, 40, (n + 1, 2))
                made.write_annotation(truths / f'GT_IMG_{n}.mat', points)
        return part

    return write


@pytest.fixture
def run(tmp_path, capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """run(*args) -> (exit code, stdout, stderr) of prepare in this process."""
    monkeypatch.delenv('RANK_SSL_DATA', raising=False)

    def call(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = prepare.main([*args, f'--data_dir={tmp_path / "prepared"}'])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def start(tmp_path) -> Callable[..., subprocess.Popen[str]]:
    """start(*args) -> the prepare command as a process, data_dir in tmp_path."""

    def begin(*args: str) -> subprocess.Popen[str]:
        command = [sys.executable, '-m', 'data_prep.prepare', *args]
        return subprocess.Popen(
            [*command, f'--data_dir={tmp_path / "prepared"}'],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if k != 'RANK_SSL_DATA'},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.fixture
def read_back() -> Callable[[str], tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]]:
    """read_back(path) -> (prepared.json, split -> examples with encoded image bytes)."""

    def read(path: str) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
        import tensorflow_datasets as tfds

        record = json.loads((pathlib.Path(path) / 'prepared.json').read_text(encoding='utf-8'))
        builder = tfds.builder_from_directory(path)
        decoders = {'image': tfds.decode.SkipDecoding()}
        sources = {
            split: builder.as_data_source(split, decoders=decoders) for split in builder.info.splits
        }
        return record, {
            split: [data[i] for i in range(len(data))] for split, data in sources.items()
        }

    return read
