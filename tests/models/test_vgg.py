import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from PIL import Image

from rank_ssl.models.vgg import (
    LAYOUTS,
    VGG,
    block_channels,
    block_features,
    conv3x3,
    keep_valid,
    max_pool2,
    stride,
)
from rank_ssl.models.weights import load_backbone
from tests.drawn import he_params

# Primitives: the convolution, forward or of an input's gradient, and the weight gradient.
CONVS = ('conv3x3', 'conv3x3_weight_gradient')
CAFFE_MEAN = np.array([103.939, 116.779, 123.68])


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def shapes_of(net):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((32, 32, 3))))


def random_params(net):
    return he_params(shapes_of(net))


@functools.cache
def compiled(net):
    return jax.jit(net.apply)


def run(net, params, image, valid=None):
    return np.asarray(compiled(net)(params, image, valid=valid))


def numpy_conv(x, kernel):
    """By im2col in float64, from the definition."""
    h, w, _ = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    columns = [padded[dy : dy + h, dx : dx + w] for dy in range(3) for dx in range(3)]
    return np.concatenate(columns, -1) @ kernel.reshape(-1, kernel.shape[-1])


def numpy_pool(x):
    h, w = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    corners = [x[dy:h:2, dx:w:2] for dy in range(2) for dx in range(2)]
    return np.max(corners, axis=0)


def numpy_vgg(x, convs, layout, pools):
    for b, count in enumerate(layout, start=1):
        for c in range(1, count + 1):
            conv = {name: a.astype(np.float64) for name, a in convs[f'block{b}_conv{c}'].items()}
            x = np.maximum(numpy_conv(x, conv['kernel']) + conv['bias'], 0)
        x = numpy_pool(x) if b <= pools else x
    return x


def count_convs(function, *args):
    text = str(jax.make_jaxpr(function)(*args))
    return sum(len(re.findall(rf'= {name} ', text)) for name in CONVS)


@pytest.mark.parametrize('blocks, last_pool', [(5, False), (4, True)])
def test_real_features_equal_numpy(real_data, blocks, last_pool):
    path = real_data / 'weights/vgg16_imagenet_convs_f16.npz'
    convs, pixels = load_backbone(path, layout=LAYOUTS['vgg16'], width=1, blocks=blocks)
    assert pixels == 'caffe'
    photo = real_data / 'shanghaitech/part_A/test_data/images/IMG_1.jpg'
    rgb = np.asarray(Image.open(photo).convert('RGB'))[100:132, 200:248]
    x = rgb[..., ::-1].astype(np.float64) - CAFFE_MEAN
    net = VGG(blocks=blocks, last_pool=last_pool)
    ours = run(net, {'params': convs}, x.astype(np.float32))
    expected = numpy_vgg(x, convs, LAYOUTS['vgg16'][:blocks], blocks - 1 + last_pool)
    assert ours.shape == expected.shape == (2, 3, 512)
    assert np.abs(ours - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.mean(expected > 0) > 0.01


def test_conv3x3_of_an_impulse_is_the_flipped_kernel():
    kernel = images(3, 3, 1, 2)
    impulse = np.zeros((5, 5, 1), np.float32)
    impulse[2, 2, 0] = 1
    found = np.asarray(conv3x3(impulse, kernel))
    np.testing.assert_array_equal(found[1:4, 1:4], kernel[::-1, ::-1, 0])


def test_max_pool2_drops_an_odd_edge_and_shares_the_gradient_of_ties():
    x = jnp.asarray([[1.0, 2, 9], [4, 3, 9], [9, 9, 9]])[..., None]
    assert max_pool2(x).tolist() == [[[4.0]]]
    grad = jax.grad(lambda a: max_pool2(a).sum())(jnp.ones((2, 2, 1)))
    assert grad[..., 0].tolist() == [[0.25, 0.25], [0.25, 0.25]]


def test_keep_valid():
    keep = jax.jit(keep_valid)
    kept = np.asarray(keep(np.ones((3, 4, 2)), np.array([2, 1])))
    assert kept.sum() == 4 and (kept[:2, :1] == 1).all()
    assert np.asarray(keep(np.ones((3, 4)), np.array([1, 3]))).sum() == 3
    assert np.asarray(keep(np.ones((3, 4)), None)).sum() == 12


@pytest.mark.parametrize('blocks, last_pool', [(5, False), (4, True), (5, True)])
def test_a_padded_image_gives_the_features_of_the_unpadded_one(blocks, last_pool):
    net = VGG(LAYOUTS['vgg8'], width=0.125, blocks=blocks, last_pool=last_pool)
    params = random_params(net)
    padded = images(80, 96, 3)  # with noise, not zeros, outside
    for height, width in [(64, 48), (80, 96), (48, 32), (53, 39)]:
        found = run(net, params, padded, np.array([height, width]))
        expected = run(net, params, padded[:height, :width])
        h, w, _ = expected.shape
        np.testing.assert_allclose(found[:h, :w], expected, rtol=1e-5, atol=1e-5)
        assert not found[h:].any() and not found[:, w:].any()


def test_the_mask_is_needed():
    net = VGG(LAYOUTS['vgg8'], width=0.125)
    params = random_params(net)
    image = images(48, 48, 3)
    masked = np.pad(image[:32, :32], ((0, 16), (0, 16), (0, 0)))
    whole = run(net, params, masked)
    alone = run(net, params, image[:32, :32])
    assert np.abs(whole[:2, :2] - alone).max() > 1e-2


def test_vmapped_equals_one_by_one_and_makes_no_grouped_convolution():
    net = VGG(LAYOUTS['vgg8'], width=0.125)
    params = random_params(net)
    batch, valid = images(3, 32, 48, 3), np.array([[32, 48], [16, 32], [32, 16]])

    together = jax.jit(jax.vmap(lambda image, v: net.apply(params, image, valid=v)))(batch, valid)
    alone = [run(net, params, image, v) for image, v in zip(batch, valid, strict=True)]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5, atol=1e-5)

    def loss(p):
        return jax.vmap(lambda image: net.apply(p, image))(batch).sum()

    traced = jax.jit(jax.grad(loss)).trace(params)
    text = traced.lower().as_text()
    assert 'feature_group_count = 1 ' in text
    assert 'feature_group_count = 3' not in text and 'batch_group_count = 3' not in text
    assert '[3,3,3,8,16]' not in str(traced.jaxpr)  # no weight gradient per image
    assert '<3x3x3x8x16x' not in text


@pytest.mark.parametrize('frozen, remat', [(0, False), (1, True), (3, False), (5, False)])
def test_frozen_blocks_have_no_backward_convolution(frozen, remat):
    net = VGG(LAYOUTS['vgg8'], width=0.125, frozen_blocks=frozen, remat=remat)
    params, image = random_params(net), images(32, 32, 3)

    def loss(p):
        return (net.apply(p, image) ** 2).sum()

    grads = jax.jit(jax.grad(loss))(params)['params']
    for b in range(1, 6):
        moved = [bool(np.asarray(a).any()) for a in jax.tree.leaves(grads[f'block{b}_conv1'])]
        assert moved == [b > frozen] * 2
    # Five forward; for each trained one a weight gradient, and an input gradient but for the first.
    trained = 5 - frozen
    again = trained if remat else 0
    assert count_convs(jax.grad(loss), params) == 5 + max(0, 2 * trained - 1) + again


def test_remat_gives_equal_gradients():
    plain, again = (VGG(LAYOUTS['vgg8'], width=0.125, remat=remat) for remat in (False, True))
    params, image, valid = random_params(plain), images(48, 32, 3), np.array([32, 32])

    def grads(net):
        loss = jax.jit(jax.grad(lambda p: (net.apply(p, image, valid=valid) ** 2).sum()))
        return jax.tree.map(np.asarray, loss(params))

    assert 'prevent_cse' in str(jax.make_jaxpr(lambda p: again.apply(p, image))(params))
    for one, two in zip(jax.tree.leaves(grads(plain)), jax.tree.leaves(grads(again)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5 * np.abs(one).max())


def test_gradient_equals_finite_differences():
    net = VGG(LAYOUTS['vgg8'], width=0.0625, blocks=2, last_pool=True, dtype=jnp.float64)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: a.astype(np.float64), random_params(net))
        image = np.random.default_rng(0).normal(size=(8, 12, 3))
        loss = jax.jit(lambda p: (net.apply(p, image) ** 2).sum())
        check_grads(loss, (params,), order=1, modes=['rev'], eps=1e-6)


@pytest.mark.parametrize('name, count', [('vgg16', 14_714_688), ('vgg11', 9_220_480)])
def test_parameter_counts_are_the_published_ones(name, count):
    shapes = shapes_of(VGG(LAYOUTS[name]))
    assert sum(a.size for a in jax.tree.leaves(shapes)) == count


def test_parameter_names_and_shapes():
    shapes = shapes_of(VGG(width=0.5, blocks=2))['params']
    found = {f'{c}/{n}': a.shape for c, leaves in shapes.items() for n, a in leaves.items()}
    assert found == {
        'block1_conv1/kernel': (3, 3, 3, 32),
        'block1_conv1/bias': (32,),
        'block1_conv2/kernel': (3, 3, 32, 32),
        'block1_conv2/bias': (32,),
        'block2_conv1/kernel': (3, 3, 32, 64),
        'block2_conv1/bias': (64,),
        'block2_conv2/kernel': (3, 3, 64, 64),
        'block2_conv2/bias': (64,),
    }


@pytest.mark.parametrize(
    'width, expected',
    [
        (1, (64, 128, 256, 512, 512)),
        (0.25, (16, 32, 64, 128, 128)),
        (0.3, (19, 38, 77, 154, 154)),
        (0.001, (4, 4, 4, 4, 4)),
    ],
)
def test_width_factors(width, expected):
    assert block_channels(width) == expected


@pytest.mark.parametrize('blocks, last_pool, expected', [(5, False, 16), (4, True, 16), (1, 0, 1)])
def test_stride(blocks, last_pool, expected):
    assert stride(blocks=blocks, last_pool=last_pool) == expected


def test_init_keeps_the_scale_of_activations():
    net = VGG(width=0.5)
    params = jax.jit(net.init)(jax.random.key(0), np.zeros((32, 32, 3), np.float32))
    features = run(net, params, images(64, 64, 3))
    assert 0.1 < np.sqrt(np.mean(features**2)) < 10
    for conv in jax.tree.map(np.asarray, params['params']).values():
        assert not conv['bias'].any()
        deviation = (2 / np.prod(conv['kernel'].shape[:3])) ** 0.5
        np.testing.assert_allclose(conv['kernel'].std(), deviation, rtol=0.1)


def test_bfloat16_computes_in_bfloat16_with_float32_parameters():
    net = VGG(LAYOUTS['vgg8'], width=0.25)
    half = net.clone(dtype=jnp.bfloat16)
    params, image = random_params(half), images(32, 32, 3)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype('float32')}
    found, expected = run(half, params, image), run(net, params, image)
    assert found.dtype == jnp.bfloat16
    error = np.abs(found.astype(np.float32) - expected).max()
    assert 0 < error < 0.05 * np.abs(expected).max()
    grads = jax.eval_shape(jax.grad(lambda p: half.apply(p, image).astype('f4').sum()), params)
    assert {a.dtype for a in jax.tree.leaves(grads)} == {jnp.dtype('float32')}


@pytest.mark.parametrize('blocks', [(3, 4, 5), (2,), (4, 1)])
def test_block_features_are_those_of_networks_that_end_there(blocks):
    image = images(35, 50, 3)
    params = random_params(VGG(LAYOUTS['vgg11'], width=0.1))['params']
    features_of = functools.partial(block_features, layout=LAYOUTS['vgg11'], blocks=blocks)
    found = jax.jit(features_of)(params, image)
    assert len(found) == len(blocks)
    for b, features in zip(sorted(blocks), found, strict=True):
        kept = {n: a for n, a in params.items() if int(n[len('block')]) <= b}
        net = VGG(LAYOUTS['vgg11'], width=0.1, blocks=b)
        expected = run(net, {'params': kept}, image)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5 * scale)


def test_block_features_are_one_pass():
    image, params = images(32, 32, 3), shapes_of(VGG(width=0.1))['params']
    features = lambda params: block_features(params, image, layout=(2, 2, 3, 3, 3), blocks=(1, 5))  # noqa: E731
    assert count_convs(features, params) == 13
