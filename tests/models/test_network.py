import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rank_ssl.errors import UserError
from rank_ssl.models import make_network
from rank_ssl.models.heads import DensityHead, FCHead, PoolHead
from rank_ssl.models.network import decay_mask, init_params, make_apply, param_groups
from rank_ssl.models.pixels import CONVENTIONS, preprocess
from tests.drawn import he_params

FIELDS = dict(
    backbone='vgg8',
    width=0.0625,
    blocks=5,
    last_pool=False,
    frozen_blocks=0,
    dtype='float32',
    remat=False,
    pixels='torch',
)


class DropoutHead(nn.Module):
    """A score [] of mean features under dropout."""

    @nn.compact
    def __call__(self, features, *, valid=None, train=False):
        del valid
        pooled = nn.Dropout(0.5, deterministic=not train)(features.mean((0, 1)))
        return nn.Dense(1, name='score')(pooled)[0]


def network(head=None, **changes):
    return make_network(**{**FIELDS, **changes}, head=head or DensityHead())


def photo(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def random_params(net):
    return he_params(jax.eval_shape(lambda: init_params(net, jax.random.key(0), 32)))


@functools.cache
def compiled(net):
    return jax.jit(make_apply(net))


def jitted(net):
    """apply as one program for each network and shape, its results as NumPy arrays."""

    def apply(*args, **options):
        return np.asarray(compiled(net)(*args, **options))

    return apply


def test_pixels_of_one_colour_by_hand():
    image = np.array([[[10, 20, 30]]], np.uint8)
    expected = {
        'caffe': (30 - 103.939, 20 - 116.779, 10 - 123.68),
        'torch': (
            (10 / 255 - 0.485) / 0.229,
            (20 / 255 - 0.456) / 0.224,
            (30 / 255 - 0.406) / 0.225,
        ),
        'raw_bgr': (30, 20, 10),
        'raw_rgb': (10, 20, 30),
    }
    assert expected.keys() == CONVENTIONS.keys()
    for name, values in expected.items():
        found = preprocess(image, name)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found[0, 0], values, rtol=1e-5)


def test_the_network_is_backbone_after_pixels_then_head():
    net, image = network(), photo(48, 32, 3)
    params = random_params(net)
    pixels = preprocess(image, 'torch')
    features = jax.jit(net.backbone.apply)({'params': params['backbone']}, pixels)
    expected = jax.jit(net.head.apply)({'params': params['head']}, features)
    found = jitted(net)(params, image)
    assert found.shape == (3, 2) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('height, width, pixels', [(32, 48, 'caffe'), (48, 16, 'raw_rgb')])
def test_a_padded_image_gives_the_density_of_the_unpadded_one(height, width, pixels):
    net = network(pixels=pixels)
    params, padded = random_params(net), photo(64, 64, 3)
    apply = jitted(net)
    found = apply(params, padded, valid=np.array([height, width]))
    expected = apply(params, padded[:height, :width])
    h, w = height // 16, width // 16
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found[:h, :w], expected, rtol=1e-5, atol=1e-5 * scale)
    assert not found[h:].any() and not found[:, w:].any()


def test_vmapped_with_valid_equals_one_by_one():
    net, batch = network(), photo(3, 32, 48, 3)
    params, valid = random_params(net), np.array([[32, 48], [16, 16], [32, 32]])
    apply = jitted(net)
    mapped = jax.vmap(lambda image, v: make_apply(net)(params, image, valid=v))
    together = jax.jit(mapped)(batch, valid)
    alone = [apply(params, image, valid=v) for image, v in zip(batch, valid, strict=True)]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5, atol=1e-6)


def test_bfloat16_and_remat_reach_the_backbone_and_the_density_stays_float32():
    net, plain, image = network(dtype='bfloat16', remat=True), network(), photo(32, 32, 3)
    params = random_params(net)
    assert net.backbone.remat and net.backbone.dtype == jnp.bfloat16
    found, expected = jitted(net)(params, image), jitted(plain)(params, image)
    assert found.dtype == jnp.float32
    error = np.abs(found - expected).max()
    assert 0 < error < 0.05 * np.abs(expected).max()


def test_a_key_turns_dropout_on_and_none_is_deterministic():
    net, image = network(DropoutHead(), width=0.25), photo(32, 32, 3)
    params, apply = random_params(net), jitted(net)
    assert apply(params, image) == apply(params, image)
    one, two = (apply(params, image, key=jax.random.key(k)) for k in (1, 2))
    assert one == apply(params, image, key=jax.random.key(1))
    assert one != two and one != apply(params, image)


def test_a_head_without_dropout_ignores_the_key():
    net, image = network(), photo(32, 32, 3)
    params, apply = random_params(net), jitted(net)
    np.testing.assert_array_equal(apply(params, image), apply(params, image, key=jax.random.key(1)))


def test_init_params_is_float32_and_a_function_of_the_key():
    net = network(dtype='bfloat16', blocks=2)
    # The first apart, or what is drawn while tracing would be the same in all.
    once = jax.jit(lambda key: init_params(net, key, 32))
    found = init_params(net, jax.random.key(3), 32), *(once(jax.random.key(k)) for k in (3, 4))
    one, again, other = jax.tree.map(np.asarray, found)
    assert set(one) == {'backbone', 'head'}
    assert {a.dtype for a in jax.tree.leaves(one)} == {jnp.dtype('float32')}
    same = jax.tree.map(lambda a, b: bool((a == b).all()), one, again)
    assert all(jax.tree.leaves(same))
    kernel = 'kernel'
    assert (one['head'][kernel] != other['head'][kernel]).all()
    first = one['backbone']['block2_conv1'][kernel]
    assert (first != other['backbone']['block2_conv1'][kernel]).any()


def test_init_params_refuses_an_input_below_one_cell():
    with pytest.raises(UserError, match='8 px is below one cell of 16 px'):
        init_params(network(), jax.random.key(0), 8)


def test_param_groups_label_frozen_backbone_and_head():
    params = random_params(network(backbone='vgg11', blocks=4, last_pool=True))
    groups = param_groups(params, frozen_blocks=2)
    assert jax.tree.structure(groups) == jax.tree.structure(params)
    assert groups['head'] == {'kernel': 'head', 'bias': 'head'}
    labels = {name: set(leaves.values()) for name, leaves in groups['backbone'].items()}
    assert labels == {
        'block1_conv1': {'frozen'},
        'block2_conv1': {'frozen'},
        'block3_conv1': {'backbone'},
        'block3_conv2': {'backbone'},
        'block4_conv1': {'backbone'},
        'block4_conv2': {'backbone'},
    }
    assert 'frozen' not in jax.tree.leaves(param_groups(params, frozen_blocks=0))


def test_fc6_and_fc7_are_in_the_backbones_group_and_the_output_in_the_heads():
    layer = {name: {'kernel': name, 'bias': name} for name in ('backbone', 'head')}
    net = network(FCHead(features=4), last_pool=True)
    groups = param_groups(random_params(net), frozen_blocks=5)
    assert groups['head'] == {
        'fc6': layer['backbone'],
        'fc7': layer['backbone'],
        'output': layer['head'],
    }
    assert set(jax.tree.leaves(groups['backbone'])) == {'frozen'}
    groups = param_groups(random_params(network(PoolHead())), frozen_blocks=0)
    assert groups['head'] == {'output': layer['head']}


def test_a_scoring_head_sees_one_image_with_and_without_dropout():
    for head in (FCHead(features=8), PoolHead()):
        net, image = network(head, last_pool=True), photo(32, 32, 3)
        params, apply = random_params(net), jitted(net)
        score = apply(params, image)
        assert score.shape == () and score == apply(params, image)
        assert score != apply(params, image, key=jax.random.key(1))


def test_frozen_labels_match_the_arrays_without_gradient():
    net, image = network(frozen_blocks=3), photo(32, 32, 3)
    params = random_params(net)
    grads = jax.jit(jax.grad(lambda p: (make_apply(net)(p, image) ** 2).sum()))(params)
    groups = param_groups(params, frozen_blocks=3)
    zero = jax.tree.map(lambda a: not np.asarray(a).any(), grads)
    assert zero == jax.tree.map(lambda label: label == 'frozen', groups)


def test_decay_mask_is_true_for_kernels_alone():
    params = random_params(network(DropoutHead(), blocks=1))
    leaf = {'kernel': True, 'bias': False}
    assert decay_mask(params) == {'backbone': {'block1_conv1': leaf}, 'head': {'score': leaf}}


@pytest.mark.parametrize(
    'field, value, message',
    [
        ('backbone', 'vgg19', 'config.model.backbone=vgg19 is unknown; use one of vgg16, vgg11'),
        ('dtype', 'float16', 'config.model.dtype=float16 is unknown; use one of float32, bfloat16'),
        ('pixels', 'bgr', 'config.model.pixels=bgr is unknown; use one of caffe, torch, raw_bgr'),
        ('width', 0.0, 'config.model.width=0.0 must be above 0'),
        ('width', float('nan'), 'config.model.width=nan must be above 0'),
        ('blocks', 6, r'config.model.blocks=6 must be in 1..5'),
        ('blocks', 0, r'config.model.blocks=0 must be in 1..5'),
        ('frozen_blocks', 6, r'config.model.frozen_blocks=6 must be in 0..5'),
        ('frozen_blocks', -1, r'config.model.frozen_blocks=-1 must be in 0..5'),
    ],
)
def test_refusals_name_the_field_and_the_rule(field, value, message):
    with pytest.raises(UserError, match=message) as caught:
        network(**{field: value})
    assert '\n' not in str(caught.value)
