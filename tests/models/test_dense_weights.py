import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from rank_ssl.errors import UserError
from rank_ssl.models.dense_weights import DenseSizes, load_dense, merge_dense
from rank_ssl.models.heads import FCHead

SIZES = DenseSizes(cells=(3, 2), channels=4, features=5)
JOINED = 4 * 3 * 2
FILES = ['torchvision', 'timm', 'prefixed', 'npz']


def torch_arrays(seed=0, sizes=SIZES):
    """What torch holds: weights [out, in], the inputs of the first joined as CHW."""
    rng = np.random.default_rng(seed)
    joined, f = sizes.channels * sizes.cells[0] * sizes.cells[1], sizes.features
    shapes = {
        'classifier.0.weight': (f, joined),
        'classifier.0.bias': (f,),
        'classifier.3.weight': (f, f),
        'classifier.3.bias': (f,),
    }
    return {key: rng.normal(size=s, scale=0.4).astype(np.float32) for key, s in shapes.items()}


def timm_arrays(arrays):
    return {
        'pre_logits.fc1.weight': arrays['classifier.0.weight'].reshape(5, 4, 3, 2),
        'pre_logits.fc1.bias': arrays['classifier.0.bias'],
        'pre_logits.fc2.weight': arrays['classifier.3.weight'].reshape(5, 5, 1, 1),
        'pre_logits.fc2.bias': arrays['classifier.3.bias'],
        'head.fc.weight': np.zeros((7, 5), np.float32),
    }


def npz_arrays(arrays):
    """Kernels [in, out], one cell after another: by loops over its places."""
    kernel = np.zeros((JOINED, 5), np.float32)
    for y, x, c in np.ndindex(3, 2, 4):
        kernel[(y * 2 + x) * 4 + c] = arrays['classifier.0.weight'][:, (c * 3 + y) * 2 + x]
    return {
        'fc6/kernel': kernel,
        'fc6/bias': arrays['classifier.0.bias'],
        'fc7/kernel': arrays['classifier.3.weight'].T.copy(),
        'fc7/bias': arrays['classifier.3.bias'],
    }


def save(folder, kind, arrays, *, convs=True):
    """A file of that kind, with a convolution beside the layers."""
    conv = {'features.0.weight': np.ones((2, 3, 3, 3), np.float32)} if convs else {}
    path = folder / f'{kind}.safetensors'
    if kind == 'npz':
        path = path.with_suffix('.npz')
        np.savez(path, **({'block1_conv1/bias': np.ones(2)} if convs else {}), **npz_arrays(arrays))
    elif kind == 'timm':
        save_file(conv | timm_arrays(arrays), path)
    elif kind == 'prefixed':
        named = {f'model.{key}': array for key, array in (conv | arrays).items()}
        # On top of the network stands a classifier of someone's own.
        save_file(named | {'classifier.0.weight': np.zeros((2, 5), np.float32)}, path)
    else:
        extra = {'classifier.6.weight': np.zeros((7, 5), np.float32)}
        save_file(conv | extra | arrays, path)
    return path


def refusal(path, sizes=SIZES):
    with pytest.raises(UserError) as caught:
        load_dense(path, sizes)
    message = str(caught.value)
    assert '\n' not in message and str(path) in message
    return message


@pytest.mark.parametrize('kind', FILES)
def test_the_head_computes_what_torch_would(tmp_path, kind):
    arrays = torch_arrays()
    layers, why = load_dense(save(tmp_path, kind, arrays), SIZES)
    assert why == '' and set(layers) == {'fc6', 'fc7'}
    assert all(a.dtype == np.float32 and a.flags['C_CONTIGUOUS'] for a in jax.tree.leaves(layers))
    image = np.random.default_rng(1).normal(size=(3, 2, 4))
    double = {key: array.astype(np.float64) for key, array in arrays.items()}
    x = image.transpose(2, 0, 1).reshape(-1)
    for layer in ('classifier.0', 'classifier.3'):
        x = np.maximum(double[f'{layer}.weight'] @ x + double[f'{layer}.bias'], 0)
    output = {'kernel': jnp.arange(5.0)[:, None], 'bias': jnp.ones(1)}
    head = FCHead(features=5)
    found = head.apply({'params': layers | {'output': output}}, jnp.asarray(image, jnp.float32))
    assert (x > 0).sum() > 1
    np.testing.assert_allclose(found, x @ np.arange(5) + 1, rtol=1e-5)


@pytest.mark.parametrize('kind', FILES[1:])
def test_all_kinds_of_file_give_the_same_numbers(tmp_path, kind):
    arrays = torch_arrays()
    one, _ = load_dense(save(tmp_path, 'torchvision', arrays), SIZES)
    other, _ = load_dense(save(tmp_path, kind, arrays), SIZES)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize('name', ['w.npz', 'w.safetensors'])
def test_a_file_of_convolutions_alone_has_none_and_says_so(tmp_path, name):
    path = tmp_path / name
    if name == 'w.npz':
        np.savez(path, **{'block1_conv1/bias': np.ones(2)})
    else:
        save_file({'features.0.bias': np.ones(2, np.float32)}, path)
    assert load_dense(path, SIZES) == ({}, f'{name} holds convolutions alone')


@pytest.mark.parametrize('sizes', [SIZES._replace(cells=(2, 2)), SIZES._replace(features=6)])
@pytest.mark.parametrize('kind', FILES)
def test_layers_of_other_sizes_are_left_and_both_shapes_named(tmp_path, kind, sizes):
    path = save(tmp_path, kind, torch_arrays())
    layers, why = load_dense(path, sizes)
    key = {'npz': 'fc6/kernel', 'timm': 'pre_logits.fc1.weight'}.get(kind, 'classifier.0.weight')
    held = {'npz': (JOINED, 5), 'timm': (5, 4, 3, 2)}.get(kind, (5, JOINED))
    assert layers == {}
    assert why.startswith(f'{key} of {path.name} has shape {held}, the head takes (')


@pytest.mark.parametrize('key', ['classifier.0.weight', 'classifier.0.bias', 'classifier.3.weight'])
def test_a_missing_array_is_named_with_its_shape(tmp_path, key):
    arrays = torch_arrays()
    shape = arrays.pop(key).shape
    assert f'lacks {key} of shape {shape}' in refusal(save(tmp_path, 'torchvision', arrays))


def test_a_wrong_shape_behind_the_right_first_one_is_refused(tmp_path):
    arrays = torch_arrays() | {'classifier.3.weight': np.zeros((5, 6), np.float32)}
    message = refusal(save(tmp_path, 'torchvision', arrays))
    assert 'classifier.3.weight has shape (5, 6), expected (5, 5)' in message


@pytest.mark.parametrize(
    'value, words', [(np.nan, 'has 1 values that are not finite'), (1, 'has dtype int32')]
)
def test_values_that_are_no_numbers_of_a_network_are_refused(tmp_path, value, words):
    arrays = torch_arrays()
    bias = arrays['classifier.3.bias']
    arrays['classifier.3.bias'] = np.where(np.arange(5) == 2, np.float32(value), bias)
    if value == 1:
        arrays['classifier.3.bias'] = np.ones(5, np.int32)
    assert f'classifier.3.bias {words}' in refusal(save(tmp_path, 'torchvision', arrays))


@pytest.mark.parametrize('kind', ['npz', 'torchvision'])
def test_a_truncated_file_is_refused(tmp_path, kind):
    path = save(tmp_path, kind, torch_arrays())
    path.write_bytes(path.read_bytes()[:-40])
    assert 'cannot be read' in refusal(path)


@pytest.mark.fault(row=11, injected='an object array in an npz', outcome='refused, not unpickled')
def test_objects_inside_an_npz_are_not_unpickled(tmp_path):
    path = tmp_path / 'w.npz'
    np.savez(path, **{'fc6/kernel': np.array([print], object)})
    assert 'cannot be read' in refusal(path)


def test_merge_replaces_these_layers_and_keeps_the_output(tmp_path):
    layers, _ = load_dense(save(tmp_path, 'torchvision', torch_arrays()), SIZES)
    head = FCHead(features=5).init(jax.random.key(0), jnp.zeros((3, 2, 4)))['params']
    params = {'backbone': {'kept': jnp.ones(1)}, 'head': head}
    merged = merge_dense(params, layers)
    assert merged['backbone'] is params['backbone']
    assert merged['head']['output'] is head['output']
    jax.tree.map(np.testing.assert_array_equal, {n: merged['head'][n] for n in layers}, layers)
    assert merged['head']['fc6'] is not head['fc6'] and params['head'] is head
    unchanged = merge_dense(params, {})
    jax.tree.map(np.testing.assert_array_equal, unchanged, params)


def test_merge_refuses_another_shape():
    params = {'backbone': {}, 'head': {'fc6': {'bias': jnp.zeros(4)}}}
    with pytest.raises(UserError, match=r'fc6/bias has shape \(5,\), expected \(4,\)'):
        merge_dense(params, {'fc6': {'bias': np.zeros(5)}})
