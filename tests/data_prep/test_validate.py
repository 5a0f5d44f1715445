"""Near-duplicates: closed-form hashes, brute force, and made pairs."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep import validate


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))


def test_dhash_of_a_rising_and_a_falling_ramp():
    ramp = np.tile(np.arange(90, dtype=np.uint8) * 2, (64, 1))
    assert validate.dhash(ramp) == 2**64 - 1
    assert validate.dhash(ramp[:, ::-1]) == 0


@given(st.lists(st.integers(0, 2**64 - 1), max_size=12), st.integers(0, 63), st.integers(0, 6))
def test_close_pairs_equal_brute_force(values, shift, flips):
    if values:  # a near copy of the first hash
        values = [*values, values[0] ^ ((2**flips - 1) << shift) % 2**64]
    expected = [
        (i, j)
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if (values[i] ^ values[j]).bit_count() <= validate.HAMMING
    ]
    assert list(validate.close_pairs(np.array(values, np.uint64))) == expected


def test_four_of_64_bits_is_close_and_five_is_not():
    pair = np.array([0, 0b1111, 0b11111 << 40], np.uint64)
    assert list(validate.close_pairs(pair)) == [(0, 1)]


def test_finds_copies_recompressed_and_resized_but_not_others(picture):
    validator = validate.Validator()
    originals = [picture(seed, (120, 160)) for seed in range(12)]
    for i, data in enumerate(originals):
        validator.add('train', f'set/train/IMG_{i}', data, decoded(data))
    buffer = io.BytesIO()
    Image.fromarray(decoded(originals[3])).resize((100, 80)).save(buffer, 'JPEG', quality=40)
    validator.add('test', 'set/test/IMG_7', buffer.getvalue(), decoded(buffer.getvalue()))
    validator.add('test', 'set/test/IMG_8', originals[5], decoded(originals[5]))
    found = validator.duplicates()
    assert [(d.first, d.second, d.same_bytes) for d in found] == [
        (('train', 'set/train/IMG_3'), ('test', 'set/test/IMG_7'), False),
        (('train', 'set/train/IMG_5'), ('test', 'set/test/IMG_8'), True),
    ]
    assert validate.summary([d.as_json() for d in found]) == [
        '2 near-duplicates between train and test: IMG_3 = test IMG_7, IMG_5 = test IMG_8'
    ]


def test_an_equal_hash_with_another_picture_is_no_duplicate():
    rng = np.random.default_rng(0)
    validator = validate.Validator()
    for i in range(2):  # flat but for noise below one grey level of the 9x8 means
        noise = rng.integers(0, 2, (64, 72, 1), np.uint8) * 255
        image = np.repeat(noise, 3, axis=2)
        validator.add('train', str(i), bytes([i]), image)
    validator.hashes = [0, 0]
    assert validator.duplicates() == []


def test_flat_images_are_duplicates_only_with_equal_bytes():
    validator = validate.Validator()
    for name, data, level in (('a', b'1', 10), ('b', b'2', 200), ('c', b'2', 200)):
        validator.add('train', name, data, np.full((8, 9, 3), level, np.uint8))
    assert [(d.first[1], d.second[1]) for d in validator.duplicates()] == [('b', 'c')]


def test_summary_inside_a_split_is_cut_short():
    records = [
        {'first': ['train', f'a/{i}'], 'second': ['train', f'a/{i + 50}']} for i in range(12)
    ]
    (line,) = validate.summary(records)
    assert line.startswith('12 near-duplicates inside train: 0 = 50, 1 = 51, ')
    assert line.endswith('9 = 59, 2 more')


def test_very_large_sets_compare_equal_hashes_alone(monkeypatch, picture):
    monkeypatch.setattr(validate, 'PAIRWISE_LIMIT', 2)
    validator = validate.Validator()
    for name, seed in (('a', 1), ('b', 2), ('c', 1)):
        validator.add('train', name, bytes([seed]), decoded(picture(seed)))
    assert len(validator.thumbnails) == 2
    assert [(d.first[1], d.second[1]) for d in validator.duplicates()] == [('a', 'c')]


@pytest.mark.parametrize('seed', range(3))
def test_synthetic_scenes_are_no_near_duplicates(seed):
    from data_prep.synthetic_crowd import scenes

    validator = validate.Validator()
    for i in range(15):
        image, _ = scenes.draw(scenes.image_rng(seed, 0, i), (96, 128))
        validator.add('train', str(i), bytes([i]), image)
    assert validator.duplicates() == []
