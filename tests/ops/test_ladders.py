"""Ladders: positions, stored and computed levels, mirrored small images, threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from rank_ssl.errors import UserError
from rank_ssl.ops import codecs, crops, distortions, images, ladders

ALL = (*ladders.chains('tid2013'), *ladders.chains('live'))


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def _picture(seed: int, shape: tuple[int, int]) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    resized = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
    return np.array(resized)


def _positions(shape: tuple[int, int]) -> np.ndarray:
    """An image whose pixels say where they stand (sides up to 256 px)."""
    y, x = np.indices(shape)
    return np.stack([y, x, np.zeros_like(y)], axis=-1).astype(np.uint8)


@pytest.fixture(scope='module')
def kodak(real_data) -> np.ndarray:
    data = (real_data / 'pristine/kodak24/kodim23.png').read_bytes()
    return images.decode(data)[100:356, 100:400]


@pytest.fixture(scope='module')
def stored(kodak) -> dict[str, bytes]:
    return ladders.costly(kodak, 'kodim23')


def test_the_chains():
    assert len(ladders.chains('tid2013')) == 19 and len(ladders.chains('live')) == 4
    assert {ladders.levels(chain) for chain in ladders.chains('tid2013')} == {4}
    assert {ladders.levels(chain) for chain in ladders.chains('live')} == {5}
    with pytest.raises(UserError, match="kind='csiq' must be one of tid2013, live"):
        ladders.chains('csiq')


@pytest.mark.parametrize(
    'options', [{'chain': 'blur'}, {'crop': 'random'}, {'compat': 'matlab'}], ids=str
)
def test_a_misspelt_choice_is_one_line(options):
    given = {'chain': 'jpeg', 'crop': 'independent', 'compat': 'paper', **options}
    chain = given.pop('chain')
    with pytest.raises(UserError) as error:
        ladders.ladder(_rng(), _picture(0, (40, 40)), chain, size=32, **given)
    assert '\n' not in str(error.value) and next(iter(options.values())) in str(error.value)


@pytest.mark.parametrize('chain', ALL)
def test_level_0_is_the_pristine_crop_and_the_others_are_not(chain):
    image = _picture(1, (70, 90))
    made = ladders.ladder(_rng(), image, chain, size=70)
    assert made.shape == (ladders.levels(chain) + 1, 70, 70, 3) and made.dtype == np.uint8
    y0, x0, y1, x1 = crops.sub_box(_rng(), (70, 90), 70)
    np.testing.assert_array_equal(made[0], image[y0:y1, x0:x1])
    aligned = ladders.ladder(_rng(), image, chain, size=70, crop='aligned')
    assert all((aligned[0] != level).any() for level in aligned[1:])
    # So small an image has no bytes left for JPEG2000's last levels.
    different = 3 if 'jpeg2000' in chain else len(aligned)
    assert len({level.tobytes() for level in aligned}) >= different


def test_positions_are_drawn_before_all_else_one_for_each_level():
    image = _positions((90, 120))
    rng = _rng(2)
    boxes = [crops.sub_box(rng, (90, 120), 32) for _ in range(5)]
    for chain in ('mean_shift_up', 'white_noise', 'impulse_noise'):
        made = ladders.ladder(_rng(2), image, chain, size=32)
        for level, (y0, x0, y1, x1) in enumerate(boxes):
            shift = distortions.value(chain, level) if chain == 'mean_shift_up' and level else 0
            whole = np.minimum(image[y0:y1, x0:x1] + np.float64(shift), 255)
            assert np.abs(np.median(made[level] - whole)) <= 1
    assert len({tuple(box) for box in boxes}) == 5


def test_aligned_levels_share_one_uniform_position():
    image = _positions((90, 120))
    made = ladders.ladder(_rng(3), image, 'mean_shift_up', size=32, crop='aligned')
    corners = made[:, 0, 0, 1].astype(int)
    np.testing.assert_array_equal(corners - corners[0], [0, 15, 30, 45, 60])
    tops = [
        ladders.ladder(_rng(seed), image, 'mean_shift_up', size=32, crop='aligned')[0, 0, 0, 0]
        for seed in range(400)
    ]
    assert min(tops) == 0 and max(tops) == 90 - 32 and 25 < np.mean(tops) < 33


@pytest.mark.parametrize('chain', ['white_noise', 'impulse_noise', 'multiplicative_noise'])
def test_the_noise_of_levels_is_independent(chain):
    image = np.full((64, 64, 3), 128, np.uint8)
    made = ladders.ladder(_rng(4), image, chain, size=64, crop='aligned')[1:].astype(float)
    values = (made - 128).reshape(len(made), -1)
    correlation = np.corrcoef(values) - np.eye(len(made))
    assert np.abs(correlation).max() < 0.05


@pytest.mark.parametrize('chain', ALL)
def test_the_same_rng_gives_the_same_bytes_also_in_threads(chain):
    image = _picture(5, (60, 70))
    expected = ladders.ladder(_rng(6), image, chain, size=40).tobytes()
    with ThreadPoolExecutor(3) as pool:
        made = pool.map(
            lambda _: ladders.ladder(_rng(6), image, chain, size=40).tobytes(), range(3)
        )
        assert list(made) == [expected] * 3
    assert ladders.ladder(_rng(7), image, chain, size=40).tobytes() != expected


def test_stored_jpeg2000_is_the_computed_ladder_at_the_same_positions(kodak, stored):
    computed = ladders.ladder(_rng(8), kodak, 'live_jpeg2000', size=200)
    decoded = ladders.ladder(_rng(8), kodak, 'live_jpeg2000', size=200, stored=stored)
    np.testing.assert_array_equal(computed, decoded)


def test_tid2013_takes_the_first_layers_of_the_stored_stream(kodak, stored):
    live = ladders.ladder(_rng(8), kodak, 'live_jpeg2000', size=200, stored=stored, crop='aligned')
    made = ladders.ladder(_rng(8), kodak, 'jpeg2000', size=200, stored=stored, crop='aligned')
    np.testing.assert_array_equal(made, live[:5])
    computed = ladders.ladder(_rng(8), kodak, 'jpeg2000', size=200, crop='aligned')
    for level in range(1, 5):
        difference = _psnr(live[0], made[level]) - _psnr(live[0], computed[level])
        assert abs(difference) < 0.3


def test_stored_whole_layers_have_the_psnr_of_encodes_of_their_own(kodak, stored):
    for level in range(1, 6):
        alone = distortions.distort(_rng(), kodak, 'live_jpeg2000', level)
        layer = codecs.decode_layer(stored['jpeg2000'], level - 1)
        # Fewer bytes than a whole image's: the layers' granularity shows more.
        assert abs(_psnr(kodak, alone) - _psnr(kodak, layer)) <= 0.15


def test_stored_denoising_is_the_frozen_draw_to_40_db(kodak, stored):
    rng = ladders.frozen_rng('kodim23')
    sizes = []
    for level, key in enumerate(ladders.DENOISED, 1):
        frozen = distortions.distort(rng, kodak, 'denoising', level)
        whole = codecs.decode_jpeg(stored[key])
        assert 40 <= _psnr(frozen, whole) < 43
        sizes.append(len(stored[key]))
        made = ladders.ladder(_rng(9), kodak, 'denoising', size=64, stored=stored)[level]
        positions = _rng(9)
        box = [crops.sub_box(positions, kodak.shape[:2], 64) for _ in range(5)][level]
        np.testing.assert_array_equal(made, whole[box[0] : box[2], box[1] : box[3]])


def test_what_is_stored_is_for_the_papers_denoising(kodak, stored):
    made = ladders.ladder(_rng(9), kodak, 'denoising', size=64, stored=stored, compat='caffe')
    plain = ladders.ladder(_rng(9), kodak, 'denoising', size=64, compat='caffe')
    np.testing.assert_array_equal(made, plain)


def test_a_store_without_the_keys_or_with_empty_ones_is_as_good_as_none():
    image = _picture(10, (60, 60))
    empty = dict.fromkeys(('jpeg2000', *ladders.DENOISED), b'')
    for chain in ('jpeg2000', 'denoising'):
        expected = ladders.ladder(_rng(), image, chain, size=40).tobytes()
        for store in ({}, empty, {'other': b'x'}):
            assert ladders.ladder(_rng(), image, chain, size=40, stored=store).tobytes() == expected


@pytest.mark.parametrize('name', ['kodak24/kodim13.png', 'bsds500/train/365073.jpg'])
def test_what_costly_adds_is_below_the_image_as_png(real_data, tmp_path, name):
    image = images.decode((real_data / 'pristine' / name).read_bytes())  # the largest of each set
    Image.fromarray(image).save(tmp_path / 'a.png')
    added = sum(len(data) for data in ladders.costly(image, name).values())
    assert added < (tmp_path / 'a.png').stat().st_size


def test_costly_depends_on_the_id_and_the_pixels_alone():
    image = _picture(11, (64, 80))
    first = ladders.costly(image, 'a')
    assert list(first) == ['jpeg2000', 'denoised_1', 'denoised_2', 'denoised_3', 'denoised_4']
    with ThreadPoolExecutor(3) as pool:
        assert all(made == first for made in pool.map(ladders.costly, [image] * 3, ['a'] * 3))
    other = ladders.costly(image, 'b')
    assert other['jpeg2000'] == first['jpeg2000'] and other['denoised_2'] != first['denoised_2']


def test_the_frozen_draw_never_changes():
    draws = ladders.frozen_rng('00001').integers(0, 1000, 5)
    np.testing.assert_array_equal(draws, [999, 236, 611, 723, 950])
    assert (ladders.frozen_rng('é').integers(0, 1000, 5) != draws).any()


@pytest.mark.parametrize('chain', ALL)
@pytest.mark.parametrize('shape', [(24, 90), (90, 24), (30, 20)])
def test_a_small_image_is_mirrored_after_its_distortion(chain, shape):
    image = _picture(12, shape)
    made = ladders.ladder(_rng(13), image, chain, size=48)
    height, width = (min(side, 48) for side in shape)
    for level in made:
        own = level[:height, :width]
        np.testing.assert_array_equal(images.extend(own, 48), level)


@pytest.mark.parametrize('chain', ['jpeg2000', 'denoising'])
def test_a_small_image_with_a_store(chain):
    image = _picture(14, (24, 90))
    made = ladders.ladder(_rng(), image, chain, size=48, stored=ladders.costly(image, 'x'))
    assert made.shape[1:] == (48, 48, 3)
    np.testing.assert_array_equal(images.extend(made[2][:24], 48), made[2])
