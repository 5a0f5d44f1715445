"""The CPU's own convolutions, their gradients and what surrounds them, against XLA's."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from rank_ssl.models import conv, cpu_conv, make_network, vgg
from rank_ssl.models.conv import bias_relu, conv3x3, max_pool2
from rank_ssl.models.network import make_apply
from rank_ssl.step import create_state, make_train_step
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.types import Batch
from tests.drawn import drawn_params, norm

CASES = [  # N, H, W, I, O: odd sides, one strip and many, a last strip or group that is smaller
    (1, 1, 1, 2, 3, 'float64', 1e-13),
    (3, 30, 31, 3, 2, 'float64', 1e-13),
    (7, 20, 24, 2, 3, 'float32', 3e-6),
    (1, 90, 70, 2, 1, 'float64', 1e-13),
]
FORMS = ['strips', 'winograd']


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture(params=FORMS)
def small(request, monkeypatch):
    """Small arrays take the form of large ones."""
    for name in ('LEAST_PRODUCTS', 'LEAST_CHANNELS', 'LEAST_LOOP', 'WINOGRAD_IMAGES'):
        monkeypatch.setattr(cpu_conv, name, 0)
    monkeypatch.setattr(cpu_conv, 'WINOGRAD_PRODUCTS', 0)
    limit = 0 if request.param == 'winograd' else np.inf
    monkeypatch.setattr(cpu_conv, 'WINOGRAD_CHANNELS', limit)
    return request.param


def near(found, expected, tolerance):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    found, expected = np.asarray(found), np.asarray(expected)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize('n, h, w, i, o, dtype, tolerance', CASES)
def test_all_forms_are_xlas(n, h, w, i, o, dtype, tolerance):
    with jax.enable_x64(True):
        x, kernel = draw(n, h, w, i).astype(dtype), draw(3, 3, i, o).astype(dtype)
        dy = draw(n, h, w, o, seed=1).astype(dtype)
        expected = conv.xla_weight_gradient(x, dy)
        near(jax.jit(cpu_conv.strip_weight_gradient)(x, dy), expected, tolerance)
        near(jax.jit(cpu_conv.winograd_weight_gradient)(x, dy), expected, tolerance)
        found = jax.jit(cpu_conv.winograd_conv)(x, kernel)
        near(found, conv.xla_conv(x, kernel), tolerance)


@pytest.mark.parametrize(
    'shape, outputs, expected',
    [
        ((8, 224, 224, 64), 64, 'strips'),
        ((8, 56, 56, 256), 256, 'winograd'),
        ((1, 56, 56, 256), 256, 'strips'),  # evaluated: a program for each size of image
        ((8, 224, 224, 3), 64, 'xla'),
        ((8, 14, 14, 512), 1, 'xla'),
        ((25, 32, 32, 26), 51, 'xla'),
        ((25, 8, 8, 64), 64, 'xla'),
    ],
)
def test_which_form_is_taken(shape, outputs, expected):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert cpu_conv.form(FakeArray(x), outputs) == expected
    half = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    assert cpu_conv.form(FakeArray(half), outputs) == 'xla'


class FakeArray:
    """Shape and type of an array too large to make."""

    def __init__(self, struct):
        self.shape, self.dtype, self.size = struct.shape, struct.dtype, struct.size

    def __len__(self):
        return self.shape[0]


def loss_of(function):
    """A loss of a doubly vmapped convolution, with a weight for each output."""

    def loss(x, kernel, weight):
        y = jax.vmap(jax.vmap(lambda image: function(image, kernel)))(x)
        return (weight * jnp.sin(y)).sum()

    return loss


def plain_conv(x, kernel):
    return conv.xla_conv(x[None], kernel)[0]


# Compiled for both forms at once, which it has nothing of.
plain_value_and_gradients = jax.jit(jax.value_and_grad(loss_of(plain_conv), (0, 1)))


def test_gradients_of_two_vmaps_are_xlas(small):
    with jax.enable_x64(True):
        x, kernel = draw(2, 3, 11, 8, 3), draw(3, 3, 3, 5)
        weight = draw(2, 3, 11, 8, 5, seed=1)
        found = jax.jit(jax.value_and_grad(loss_of(conv3x3), (0, 1)))(x, kernel, weight)
        expected = plain_value_and_gradients(x, kernel, weight)
        jax.tree.map(lambda a, b: near(a, b, 1e-12), found, expected)
        remade = jax.grad(loss_of(jax.checkpoint(conv3x3)), (0, 1))
        jax.tree.map(
            lambda a, b: near(a, b, 1e-12), jax.jit(remade)(x, kernel, weight), expected[1]
        )


def test_two_vmaps_make_one_larger_mini_batch():
    shapes = ((2, 3, 11, 8, 3), (3, 3, 3, 5), (5,))
    x, kernel, weight = (np.zeros(shape, np.float32) for shape in shapes)
    for function in (conv3x3, jax.checkpoint(conv3x3)):
        trace = jax.make_jaxpr(jax.grad(loss_of(function), 1))(x, kernel, weight)
        found = re.findall(r':(f32\S+) = conv3x3_weight_gradient (?:.*\n)?', str(trace))
        assert found == ['f32[3,3,3,5]']
        assert ':f32[6,11,8,5] = conv3x3 ' in str(trace)


@pytest.mark.parametrize(
    'small', ['strips', pytest.param('winograd', marks=pytest.mark.slow)], indirect=True
)
def test_gradients_of_one_image_and_second_ones_equal_finite_differences(small):
    with jax.enable_x64(True):
        x, kernel = jnp.asarray(draw(5, 4, 2)), jnp.asarray(draw(3, 3, 2, 2))
        # A function of its own for each form: called eagerly, a convolution of the same shape keeps
        # the form that it was compiled in first.
        check_grads(jax.jit(lambda x, kernel: conv3x3(x, kernel)), (x, kernel), order=2)


def test_vmap_of_a_gradient_is_one_for_each_image(small):
    x, kernel = draw(4, 6, 5, 2).astype('f4'), draw(3, 3, 2, 3).astype('f4')

    def gradient(image, kernel):
        return jax.grad(lambda k: jnp.sin(conv3x3(image, k)).sum())(kernel)

    expected = np.stack([gradient(image, kernel) for image in x])
    near(jax.jit(jax.vmap(gradient, (0, None)))(x, kernel), expected, 1e-5)
    kernels = np.stack([kernel, 2 * kernel, 3 * kernel, -kernel])
    expected = np.stack([conv3x3(*pair) for pair in zip(x, kernels, strict=True)])
    near(jax.jit(jax.vmap(conv3x3))(x, kernels), expected, 1e-5)
    shared = np.asarray(jax.jit(jax.vmap(conv3x3, (None, 0)))(x[0], kernels))
    near(shared[3], -np.asarray(conv3x3(x[0], kernel)), 1e-5)


def test_bfloat16_stays_bfloat16(small):
    x, kernel = jnp.asarray(draw(3, 8, 6, 2), 'bfloat16'), jnp.asarray(draw(3, 3, 2, 3), 'bfloat16')

    def loss(function):
        return lambda k: jax.vmap(lambda image: function(image, k))(x).astype('f4').sum()

    found, expected = (jax.jit(jax.grad(loss(f)))(kernel) for f in (conv3x3, plain_conv))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype('f4'), expected.astype('f4'))


@pytest.mark.parametrize('shape', [(3, 8, 6, 2), (2, 7, 5, 3)])
def test_bias_relu_and_its_gradient(small, shape):
    x, bias = draw(*shape).astype('f4'), np.zeros(shape[-1], 'f4')
    x[0, 0, 0, 0] = 0

    def loss(function):
        return lambda x, bias: (jax.vmap(lambda a: function(a, bias))(x) ** 2 + 1).sum()

    def plain(a, b):
        return jax.nn.relu(a + b)

    ours, theirs = (jax.jit(jax.value_and_grad(loss(f), (0, 1))) for f in (bias_relu, plain))
    for at in (bias, bias + np.float32(0.3)):
        found, expected = ours(x, at), theirs(x, at)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
    assert np.asarray(jax.grad(lambda a: bias_relu(a, bias).sum())(x[0]))[0, 0, 0] == 0
    assert jax.vmap(bias_relu)(x, np.ones((len(x), shape[-1]), 'f4')).shape == shape


@pytest.mark.parametrize('shape', [(3, 8, 6, 2), (2, 7, 5, 3)])
def test_max_pool2_shares_the_gradient_of_equal_maxima(small, shape):
    x = np.random.default_rng(0).integers(0, 3, shape).astype('f4')
    n, h, w, c = shape
    weight = draw(n, h // 2, w // 2, c).astype('f4')

    def plain(image):
        return image[: h // 2 * 2, : w // 2 * 2].reshape(h // 2, 2, w // 2, 2, c).max((1, 3))

    found, expected = (
        jax.jit(jax.value_and_grad(lambda x, f=f: (weight * jax.vmap(f)(x)).sum()))(x)
        for f in (max_pool2, plain)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def test_other_platforms_get_xlas_convolutions(small):
    x, kernel = np.zeros((4, 8, 8, 2), 'f4'), np.zeros((3, 3, 2, 3), 'f4')

    def loss(x, kernel):
        y = jax.vmap(lambda image: max_pool2(bias_relu(conv3x3(image, kernel), kernel[0, 0, 0])))(x)
        return y.sum()

    traced = jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel)
    own = traced.lower(lowering_platforms=('cpu',)).as_text()
    assert 'stablehlo.while' in own
    for platform in ('cuda', 'tpu'):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count('stablehlo.convolution') == 3
        assert 'stablehlo.while' not in text and 'dot_general' not in text


GROUPS, IMAGES = 2, 3
TASK = Crowd(size=32)


def train_step_of(**options):
    """The real training step of a small network, its state and its batch."""
    network = make_network(
        backbone='vgg8', width=0.125, blocks=2, last_pool=False, dtype='float32',
        pixels='torch', head=TASK.head(), **{'frozen_blocks': 0, 'remat': False, **options},
    )  # fmt: skip
    params = jax.tree.map(jnp.asarray, drawn_params(network, 32))
    tx = optax.sgd(1.0)
    state = create_state(make_apply(network), params, tx, jax.random.key(1))
    rng = np.random.default_rng(0)
    batch = Batch(
        image=rng.integers(0, 256, (GROUPS, IMAGES, 32, 32, 3)).astype(np.uint8),
        phi=np.tile([2.0, 1.0], (GROUPS, 1)).astype(np.float32),
        segments=np.zeros((GROUPS, 2), np.int32),
        ranked_where=np.ones((GROUPS, 2), bool),
        target=rng.random((GROUPS, 1, 16, 16)).astype(np.float32),
        labeled_where=np.ones((GROUPS, 1), bool),
    )
    return make_train_step(TASK, tx, rank_weight=1, margin=0.5), state, batch


def kernels_per_image(step, state, batch):
    """Shapes [..., 3, 3, I, O] with more than one image, in the step's trace and its program."""
    traced = step.trace(state, batch)
    text = str(traced.jaxpr) + traced.lower().as_text().replace('x', ',')
    counts = '|'.join(str(n) for n in (GROUPS, IMAGES, GROUPS * IMAGES))
    return re.findall(rf'[\[<](?:1,)*(?:(?:{counts}),)+3,3,\d+,\d+[\],]', text)


@pytest.mark.parametrize('options', [{}, {'remat': True}])
def test_the_step_makes_no_weight_gradient_per_image(small, options):
    assert kernels_per_image(*train_step_of(**options)) == []


def test_a_naive_custom_vjp_makes_one_and_is_found(monkeypatch):
    @jax.custom_vjp
    def naive(x, kernel):
        return plain_conv(x, kernel)

    def backward(kept, dy):
        x, kernel = kept
        dx = plain_conv(dy, kernel[::-1, ::-1].swapaxes(2, 3))
        return dx, conv.xla_weight_gradient(x[None], dy[None])

    naive.defvjp(lambda x, kernel: (plain_conv(x, kernel), (x, kernel)), backward)
    monkeypatch.setattr(vgg, 'conv3x3', naive)
    assert kernels_per_image(*train_step_of()) != []


@pytest.mark.parametrize(
    'small, options',
    [
        pytest.param('strips', {'remat': True}, marks=pytest.mark.slow),
        ('strips', {}),
        pytest.param('winograd', {'frozen_blocks': 1}, marks=pytest.mark.slow),
    ],
    indirect=['small'],
)
def test_the_step_is_that_of_xlas_convolutions(small, options, monkeypatch):
    step, state, batch = train_step_of(**options)
    start = jax.tree.map(np.asarray, state.params)
    found, metrics = step(state, batch)
    for name, plain in (('conv3x3', plain_conv), ('bias_relu', lambda x, b: jax.nn.relu(x + b))):
        monkeypatch.setattr(vgg, name, plain)
    step, state, batch = train_step_of(**options)
    expected, plain_metrics = step(state, batch)
    np.testing.assert_allclose(metrics['loss'], plain_metrics['loss'], rtol=1e-5)
    moved = jax.tree.map(np.subtract, expected.params, start)
    gap = jax.tree.map(np.subtract, expected.params, found.params)
    assert norm(gap) < 1e-5 * norm(moved)
    frozen = norm(moved['backbone']['block1_conv1']) == 0
    assert frozen == ('frozen_blocks' in options)


def test_no_convolution_runs_in_a_loop(small):
    x, kernel = np.zeros((2, 60, 60, 2), 'f4'), np.zeros((3, 3, 2, 3), 'f4')

    def loss(x, kernel):
        y = jax.vmap(lambda image: bias_relu(conv3x3(image, kernel), kernel[0, 0, 0]))(x)
        return (y**2).sum()

    text = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).as_text()
    loops = text.split('stablehlo.while')[1:]
    assert loops and not any('convolution' in loop.split('stablehlo.return')[1] for loop in loops)
