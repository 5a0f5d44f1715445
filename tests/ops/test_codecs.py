"""JPEG and JPEG2000: rates, layers against encodes of their own, and parts of an image."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from rank_ssl.ops import codecs, images, ladders

RATIOS = ladders.JPEG2000_RATIOS


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def _picture(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Smooth colours with some texture, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
    smooth = np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC), np.float32)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def _read(path) -> np.ndarray:
    return images.decode(path.read_bytes())


@pytest.fixture(scope='module')
def kodak(real_data) -> list[np.ndarray]:
    return [_read(real_data / f'pristine/kodak24/kodim{n:02d}.png') for n in (5, 13, 23)]


def test_jpeg_is_baseline_with_halved_chroma():
    image = _picture(0, (64, 80))
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=43, subsampling=2)
    with Image.open(buffer) as opened:
        assert opened.layer[0][1:3] == (2, 2)
        np.testing.assert_array_equal(codecs.jpeg(image, 43), np.asarray(opened))


def test_jpeg_falls_with_quality_and_refuses_others():
    image = _picture(1, (64, 80))
    psnr = [_psnr(image, codecs.jpeg(image, quality)) for quality in (100, 43, 12, 7, 4, 0)]
    assert psnr == sorted(psnr, reverse=True) and len(set(psnr)) == 6
    for quality in (-1, 101):
        with pytest.raises(ValueError, match=r'quality=.* 0\.\.100'):
            codecs.jpeg(image, quality)


def test_one_quantization_step_beats_the_standard_tables_at_equal_size():
    image = _picture(2, (128, 128))
    fine = codecs.encode_fine(image, 8)
    sizes = {}
    for quality in range(50, 100):
        buffer = io.BytesIO()
        Image.fromarray(image).save(
            buffer, 'JPEG', quality=quality, subsampling='4:4:4', optimize=True
        )
        sizes[len(buffer.getvalue())] = codecs.decode_jpeg(buffer.getvalue())
    nearest = min(size for size in sizes if size >= len(fine))
    assert _psnr(image, codecs.decode_jpeg(fine)) > _psnr(image, sizes[nearest])


def test_noise_that_no_optimized_file_holds_is_stored_all_the_same():
    noise = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    assert _psnr(noise, codecs.decode_jpeg(codecs.encode_fine(noise, 1))) > 45


@pytest.mark.parametrize('ratio', [20, 52, 150])
def test_a_jpeg2000_stream_has_the_size_its_ratio_says(ratio):
    image = _picture(3, (256, 320))
    size = len(codecs.encode_layers(image, [ratio]))
    assert 0.85 < size / (image.size / ratio) <= 1.005


def test_layers_agree_with_encodes_of_their_own(kodak):
    differences = []
    for image in kodak:
        stream = codecs.encode_layers(image, RATIOS)
        for layer, ratio in enumerate(RATIOS):
            alone = _psnr(image, codecs.jpeg2000(image, ratio))
            differences.append(_psnr(image, codecs.decode_layer(stream, layer)) - alone)
    assert np.abs(differences).max() <= 0.1
    assert abs(np.mean(differences)) <= 0.05


def test_tid2013_and_live_share_a_stream(kodak):
    image = kodak[1]
    stream = codecs.encode_layers(image, RATIOS)
    for layer, ratio in enumerate((52, 150, 343, 600)):
        alone = _psnr(image, codecs.jpeg2000(image, ratio))
        assert abs(_psnr(image, codecs.decode_layer(stream, layer)) - alone) <= 0.1


def test_the_order_of_the_ratios_does_not_matter_and_layer_0_is_the_best():
    image = _picture(4, (120, 90))
    stream = codecs.encode_layers(image, RATIOS)
    assert codecs.encode_layers(image, RATIOS[::-1]) == stream
    psnr = [_psnr(image, codecs.decode_layer(stream, layer)) for layer in range(5)]
    assert psnr == sorted(psnr, reverse=True) and psnr[0] > psnr[3]


def test_all_layers_decode_as_the_whole_stream_does():
    stream = codecs.encode_layers(_picture(5, (96, 96)), (10, 40))
    with Image.open(io.BytesIO(stream)) as opened:
        np.testing.assert_array_equal(codecs.decode_layer(stream, 0), np.asarray(opened))


@pytest.mark.parametrize('layer', [-1, 2])
def test_a_layer_the_stream_lacks_is_an_error(layer):
    stream = codecs.encode_layers(_picture(6, (64, 64)), (10, 40))
    with pytest.raises(ValueError, match='the stream has 2 layers'):
        codecs.decode_layer(stream, layer)


@pytest.mark.parametrize('ratios', [[], [0.5], [10, float('nan')]])
def test_ratios_below_one_or_none_are_errors(ratios):
    with pytest.raises(ValueError, match='at least 1'):
        codecs.encode_layers(_picture(7, (64, 64)), ratios)


@pytest.mark.parametrize('shape', [(1, 1), (1, 40), (7, 5), (16, 16), (33, 64)])
def test_any_size_there_and_back(shape):
    image = _picture(8, shape)
    stream = codecs.encode_layers(image, RATIOS)
    for layer in range(5):
        assert codecs.decode_layer(stream, layer).shape == image.shape
    assert codecs.jpeg(image, 7).shape == image.shape


@pytest.mark.parametrize('shape', [(1, 1), (1, 40), (7, 5), (33, 64), (97, 130)])
def test_jpeg_gives_the_pixels_of_pillow(shape):
    image = _picture(9, shape)
    for quality in (0, 1, 4, 7, 12, 43, 77, 95, 100):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, 'JPEG', quality=quality, subsampling='4:2:0')
        with Image.open(buffer) as opened:
            np.testing.assert_array_equal(codecs.jpeg(image, quality), np.asarray(opened))


@pytest.mark.parametrize('shape', [(1, 1), (1, 40), (7, 5), (33, 64), (97, 130)])
def test_each_layer_has_the_pixels_of_pillow(shape):
    """Pillow reads a stream cut to its first layers, which its header then names."""
    stream = codecs.encode_layers(_picture(10, shape), RATIOS)
    for layer in range(5):
        with Image.open(io.BytesIO(codecs._truncate(stream, layer))) as opened:
            np.testing.assert_array_equal(codecs.decode_layer(stream, layer), np.asarray(opened))


def test_threads_give_the_same_bytes():
    image = _picture(13, (96, 128))
    stream = codecs.encode_layers(image, RATIOS)

    def work(layer: int) -> tuple[bytes, bytes]:
        made = codecs.encode_layers(image, RATIOS)
        return made, codecs.decode_layer(made, layer).tobytes()

    with ThreadPoolExecutor(4) as pool:
        for layer, (made, pixels) in enumerate(pool.map(work, range(5))):
            assert made == stream
            assert pixels == codecs.decode_layer(stream, layer).tobytes()
