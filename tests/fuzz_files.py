"""Whole files for each reader of fuzz_readers.py, written into a folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ['a', 'b', 'c', 'd']


def images(folder: Path) -> list[Path]:
    from PIL import Image

    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    image = Image.fromarray(rgb).resize((40, 32), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = Image.fromarray(np.arange(1280, dtype=np.uint16).reshape(32, 40) * 51)
    forms: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        'rgb.png': (image, {}), 'alpha.png': (image.convert('RGBA'), {}),
        'palette.png': (image.quantize(16), {}), 'deep.png': (grey, {}),
        'a.jpg': (image, {'exif': exif}), 'b.jpg': (image, {'progressive': True}),
        'cmyk.jpg': (image.convert('CMYK'), {}), 'a.bmp': (image, {}),
        'a.gif': (image.quantize(8), {'save_all': True, 'append_images': [image.rotate(9)]}),
        'a.tif': (image, {}), 'b.tif': (image, {'compression': 'tiff_lzw'}),
        'c.tif': (image, {'compression': 'jpeg'}), 'a.webp': (image, {}),
        'b.webp': (image.convert('RGBA'), {'lossless': True}), 'a.ppm': (image, {}),
    }  # fmt: skip
    for name, (made, options) in forms.items():
        made.save(folder / name, **options)
    return [folder / name for name in forms]


def mat(folder: Path) -> list[Path]:
    import scipy.io

    from data_prep.shanghaitech import made

    points = np.random.default_rng(0).uniform(0, 40, (12, 2))
    made.write_annotation(folder / 'packed.mat', points)
    content = scipy.io.loadmat(folder / 'packed.mat')
    scipy.io.savemat(folder / 'plain.mat', {'image_info': content['image_info']})
    return [folder / 'packed.mat', folder / 'plain.mat']


def points(folder: Path) -> list[Path]:
    text = 'image,x,y\n' + ''.join(f'{n}.jpg,{x}.5,{x}\n' for n in NAMES for x in range(4))
    (folder / 'points.csv').write_text(f'{text}"e, f.jpg",,\n')
    return [folder / 'points.csv']


def scores(folder: Path) -> list[Path]:
    for name in NAMES:
        (folder / f'{name}.png').write_bytes(b'')
    rows = [f'{n}.png,{k * 9.5},{n},blur,{k},{"train" if k else "test"}\n'
            for k, n in enumerate(NAMES)]  # fmt: skip
    text = f'# range 0 100\nimage,mos,reference,kind,level,split\n{"".join(rows)}'
    (folder / 'scores.csv').write_text(text)
    return [folder / 'scores.csv']


def _convs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(64, 3, 3, 3)).astype(np.float32)
    return {'features.0.weight': kernel, 'features.0.bias': np.ones(64, np.float32)}


def npz(folder: Path) -> list[Path]:
    kernel, bias = _convs().values()
    arrays: dict[str, Any] = {'block1_conv1/kernel': kernel.transpose(2, 3, 1, 0),
                              'block1_conv1/bias': bias}  # fmt: skip
    np.savez(folder / 'a.npz', **arrays)
    np.savez_compressed(folder / 'b.npz', **arrays)
    return [folder / 'a.npz', folder / 'b.npz']


def safetensors(folder: Path) -> list[Path]:
    from safetensors.numpy import save_file

    save_file(_convs(), folder / 'a.safetensors')
    return [folder / 'a.safetensors']


def checkpoint(folder: Path) -> list[Path]:
    from rank_ssl import checkpoint

    for step in (1, 2):
        checkpoint.save(folder, step, {'params': np.full((3, 4), step, np.float32)}, {'n': step})
    return sorted(path for path in (folder / '2').rglob('*') if path.is_file())


def _config() -> Any:
    from rank_ssl.config import Config
    from rank_ssl.tasks.crowd import Crowd

    return Config(task=Crowd())


def config(folder: Path) -> list[Path]:
    (folder / 'config.json').write_text(json.dumps(_config().to_dict(), indent=2))
    return [folder / 'config.json']


def noted() -> dict[str, Any]:
    return {'config': _config().to_dict(), 'seed': 0, 'versions': {'jax': '1', 'numpy': '2'},
            'device': 'cpu', 'devices': 1, 'processes': 1, 'xla_flags': '',
            'data_fingerprint': 'f', 'unlabeled_fingerprint': 'u', 'weights_sha256': None,
            'git': {'revision': 'r', 'changed': False}, 'gone_on_with': [{'seed': 1}],
            'params_sha256': 64 * 'a'}  # fmt: skip


def reproduce(folder: Path) -> list[Path]:
    (folder / 'reproduce.json').write_text(json.dumps(noted(), indent=2))
    return [folder / 'reproduce.json']


def metrics(folder: Path) -> list[Path]:
    rows = [{'step': n, 'train/loss': n / 3, 'val/mae': None} for n in range(20)]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return [folder / 'metrics.jsonl']


def acquisition(folder: Path) -> list[Path]:
    from rank_ssl.active.acquired import Acquired, write_csv

    numbers = np.array([1 / 3, 1.0, np.nan, 0.1])
    pool = np.array([True, False, True, True])
    found = Acquired(NAMES, pool, numbers, numbers[::-1], np.array([3, 0]))
    write_csv(folder / 'acquisition.csv', found.rows())
    return [folder / 'acquisition.csv']
