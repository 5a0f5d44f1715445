import pickle
import re
import zipfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from rank_ssl.errors import UserError
from rank_ssl.models.vgg import LAYOUTS, VGG
from rank_ssl.models.weights import PICKLES, load_backbone, merge_backbone

# Written out from torchvision's published state dictionaries, so that they are an oracle.
TORCH_INDICES = {
    'vgg16': [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    'vgg11': [0, 3, 6, 8, 11, 13, 16, 18],
    'vgg8': [0, 3, 6, 9, 12],
}
VGG8 = LAYOUTS['vgg8']


@pytest.fixture(scope='module')
def convs():
    """Random float32 weights of a full-width vgg8, two blocks of which most tests keep."""
    shapes = jax.eval_shape(lambda: VGG(VGG8).init(jax.random.key(0), jnp.zeros((16, 16, 3))))
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda a: rng.normal(size=a.shape, scale=0.05).astype(np.float32), shapes['params']
    )


def flat(convs):
    return {f'{conv}/{name}': a for conv, leaves in convs.items() for name, a in leaves.items()}


def torch_keys(convs, layout, prefix='', stem='features.'):
    found = {}
    for conv, index in zip(sorted(convs), TORCH_INDICES[layout], strict=False):
        kernel = np.transpose(convs[conv]['kernel'], (3, 2, 0, 1))
        found[f'{prefix}{stem}{index}.weight'] = np.ascontiguousarray(kernel)
        found[f'{prefix}{stem}{index}.bias'] = convs[conv]['bias']
    return found


def small(convs):
    return {name: convs[name] for name in ('block1_conv1', 'block2_conv1')}


def load(path, *, layout=VGG8, width=1.0, blocks=2):
    return load_backbone(path, layout=layout, width=width, blocks=blocks)


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert '\n' not in message and str(path) in message
    return message


def save_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def save_safetensors(path, arrays):
    save_file(arrays, path)
    return path


def assert_equal_convs(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == np.float32 and one.flags['C_CONTIGUOUS']
        np.testing.assert_array_equal(one, two)


TORCHVISION_EXTRAS = {
    'classifier.0.weight': np.zeros((4, 8), np.float32),
    'classifier.0.bias': np.full(4, np.nan, np.float32),
    'num_batches_tracked': np.zeros((), np.int64),
}
TIMM_EXTRAS = {
    'pre_logits.fc1.weight': np.zeros((4, 8, 7, 7), np.float32),
    'head.fc.bias': np.zeros(4, np.float32),
}


@pytest.mark.parametrize(
    'prefix, stem, extras',
    [
        ('', 'features.', TORCHVISION_EXTRAS),
        ('', 'features.', TIMM_EXTRAS),
        ('', 'features_', {}),
        ('backbone.', 'features.', {}),
        ('model.encoder.', 'features.', TIMM_EXTRAS),
    ],
)
def test_torch_names_give_the_features_of_the_npz(tmp_path, convs, prefix, stem, extras):
    npz, caffe = load(save_npz(tmp_path / 'w.npz', flat(convs)), blocks=5)
    arrays = {**torch_keys(convs, 'vgg8', prefix, stem), **extras}
    found, torch = load(save_safetensors(tmp_path / 'w.safetensors', arrays), blocks=5)
    assert (caffe, torch) == ('caffe', 'torch')
    assert_equal_convs(npz, convs)
    assert_equal_convs(found, convs)
    image = jnp.asarray(np.random.default_rng(1).normal(size=(32, 32, 3)), jnp.float32)
    one, two = (VGG(VGG8).apply({'params': p}, image) for p in (npz, found))
    assert (one > 0).any() and (one == two).all()


def test_real_weights_survive_torch_names(tmp_path, real_data):
    path = real_data / 'weights/vgg16_imagenet_convs_f16.npz'
    vgg16 = LAYOUTS['vgg16']
    real, _ = load(path, layout=vgg16, blocks=5)
    assert len(real) == 13
    half = jax.tree.map(lambda a: a.astype(np.float16) if a.ndim == 4 else a, real)
    arrays = torch_keys(half, 'vgg16')
    assert len(arrays) == 26
    found, _ = load(save_safetensors(tmp_path / 'w.safetensors', arrays), layout=vgg16, blocks=5)
    assert_equal_convs(found, real)


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floating_types_become_float32(tmp_path, convs, dtype):
    arrays = {key: a.astype(dtype) for key, a in torch_keys(small(convs), 'vgg8').items()}
    found, _ = load(save_safetensors(tmp_path / 'w.safetensors', arrays))
    expected = jax.tree.map(lambda a: a.astype(dtype).astype(np.float32), small(convs))
    assert_equal_convs(found, expected)


def test_blocks_above_the_kept_ones_may_lack_or_be_left_out(tmp_path, convs):
    assert set(load(save_npz(tmp_path / 'two.npz', flat(small(convs))))[0]) == set(small(convs))
    assert set(load(save_npz(tmp_path / 'all.npz', flat(convs)))[0]) == set(small(convs))


def test_a_missing_file_names_the_field(tmp_path):
    message = refusal(tmp_path / 'absent.npz')
    assert 'config.model.weights=' in message and 'is not a file' in message
    assert 'is not a file' in refusal(tmp_path)


@pytest.mark.fault(
    row=11,
    injected='a pickle under each of its suffixes',
    outcome='refused unopened, with the way to convert it',
)
@pytest.mark.parametrize('suffix', PICKLES)
def test_a_pickle_is_refused_unopened_with_the_cure(tmp_path, suffix):
    path = tmp_path / f'vgg16{suffix}'
    path.write_bytes(pickle.dumps(print))
    message = refusal(path)
    assert 'is a pickle' in message and 'save_file(torch.load(FILE, weights_only=True)' in message


@pytest.mark.parametrize('name', ['vgg.h5', 'vgg'])
def test_an_unknown_suffix_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b'x')
    assert 'use .npz or .safetensors' in refusal(tmp_path / name)


def test_a_width_with_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'config\.model\.width=0\.5 .*config\.model\.weights=none'):
        load(tmp_path / 'w.npz', width=0.5)


@pytest.mark.fault(row=11, injected='an object array in an npz', outcome='refused, not unpickled')
def test_objects_inside_an_npz_are_not_unpickled(tmp_path):
    path = save_npz(tmp_path / 'w.npz', {'block1_conv1/kernel': np.array([print], object)})
    assert 'cannot be read' in refusal(path) and 'allow_pickle=False' in refusal(path)


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors'])
@pytest.mark.parametrize('content', [b'', b'not a file of weights', b'\x00' * 4000, b'\xff' * 99])
def test_other_bytes_are_refused(tmp_path, suffix, content):
    path = tmp_path / f'w{suffix}'
    path.write_bytes(content)
    assert 'cannot be read' in refusal(path)


@pytest.mark.parametrize('save, suffix', [(save_npz, '.npz'), (save_safetensors, '.safetensors')])
def test_a_truncated_file_is_refused(tmp_path, convs, save, suffix):
    keys = flat(small(convs)) if suffix == '.npz' else torch_keys(small(convs), 'vgg8')
    path = save(tmp_path / f'w{suffix}', keys)
    content = path.read_bytes()
    for part in (0.1, 0.5, 0.999):
        path.write_bytes(content[: int(len(content) * part)])
        assert 'cannot be read' in refusal(path)


def test_a_flipped_bit_in_an_npz_is_refused(tmp_path, convs):
    path = save_npz(tmp_path / 'w.npz', flat(small(convs)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert 'cannot be read' in refusal(path) and 'CRC' in refusal(path)


@pytest.mark.fault(
    row=11,
    injected="an npy and torch's pickle archive named .npz",
    outcome='refused',
)
def test_an_npy_or_a_torch_archive_named_npz_is_refused(tmp_path):
    with open(tmp_path / 'w.npz', 'wb') as file:
        np.save(file, np.zeros(3))
    assert 'cannot be read' in refusal(tmp_path / 'w.npz')
    with zipfile.ZipFile(tmp_path / 't.npz', 'w') as file:
        file.writestr('archive/data.pkl', pickle.dumps(print))
    assert 'lacks block1_conv1/kernel' in refusal(tmp_path / 't.npz')


def test_a_missing_key_is_named_with_its_shape(tmp_path, convs):
    arrays = flat(small(convs))
    del arrays['block2_conv1/bias']
    path = save_npz(tmp_path / 'w.npz', arrays)
    assert 'lacks block2_conv1/bias of shape (128,)' in refusal(path)
    arrays = torch_keys(small(convs), 'vgg8')
    del arrays['features.3.weight']
    path = save_safetensors(tmp_path / 'w.safetensors', arrays)
    assert 'lacks features.3.weight of shape (128, 64, 3, 3)' in refusal(path)


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path, convs):
    arrays = flat(small(convs)) | {'block1_conv1/kernel': np.zeros((3, 3, 1, 64), np.float32)}
    message = refusal(save_npz(tmp_path / 'w.npz', arrays))
    assert 'block1_conv1/kernel has shape (3, 3, 1, 64), expected (3, 3, 3, 64)' in message
    arrays = torch_keys(small(convs), 'vgg8') | {'features.3.bias': np.zeros(64, np.float32)}
    message = refusal(save_safetensors(tmp_path / 'w.safetensors', arrays))
    assert 'features.3.bias has shape (64,), expected (128,)' in message


def test_batch_normalisation_is_refused_by_name(tmp_path, convs):
    first = torch_keys(small(convs), 'vgg8')
    norm = np.ones(64, np.float32)
    arrays = {
        'features.0.weight': first['features.0.weight'],
        'features.0.bias': first['features.0.bias'],
        'features.1.weight': norm,
        'features.1.bias': norm,
    }
    message = refusal(save_safetensors(tmp_path / 'w.safetensors', arrays))
    assert 'features.1.weight of shape (64,) is batch normalisation' in message


def test_a_deeper_network_is_refused_and_named(tmp_path):
    # Shapes alone would let the first block of a vgg16 pass for a vgg11 of one block.
    def zeros(*names):
        return {name: np.zeros((1,), np.float32) for name in names}

    vgg16 = {
        f'block{b}_conv{c}' for b, n in enumerate(LAYOUTS['vgg16'], 1) for c in range(1, n + 1)
    }
    arrays = zeros(*(f'{conv}/{name}' for conv in vgg16 for name in ('kernel', 'bias')))
    path = save_npz(tmp_path / 'w.npz', arrays)
    message = refusal(path, layout=LAYOUTS['vgg11'], blocks=1)
    assert re.search(r'has block\d_conv\d/\w+ of shape \(1,\)', message)
    assert 'it is a vgg16: set config.model.backbone=vgg16' in message
    names = [f'features.{i}.{leaf}' for i in TORCH_INDICES['vgg11'] for leaf in ('weight', 'bias')]
    arrays = {name: np.zeros((1, 1), np.float32) for name in names}
    path = save_safetensors(tmp_path / 'w.safetensors', arrays)
    message = refusal(path, layout=LAYOUTS['vgg16'])
    assert 'lacks features.2.weight of shape (64, 64, 3, 3)' in message
    assert 'it is a vgg11: set config.model.backbone=vgg11' in message


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, convs, value):
    bias = convs['block2_conv1']['bias'].copy()
    bias[3] = value
    arrays = flat(small(convs)) | {'block2_conv1/bias': bias}
    message = refusal(save_npz(tmp_path / 'w.npz', arrays))
    assert 'block2_conv1/bias has 1 values that are not finite' in message


def test_integers_and_two_networks_in_one_file_are_refused(tmp_path, convs):
    arrays = torch_keys(small(convs), 'vgg8')
    coded = arrays | {'features.0.bias': np.zeros(64, np.int8)}
    path = save_safetensors(tmp_path / 'int.safetensors', coded)
    assert 'features.0.bias has dtype int8' in refusal(path)
    two = arrays | {f'teacher.{key}': a for key, a in arrays.items()}
    path = save_safetensors(tmp_path / 'two.safetensors', two)
    assert "several networks (prefixes '', 'teacher.' of features.)" in refusal(path)


def test_merge_replaces_the_backbone_and_keeps_the_head(convs):
    head = {'kernel': jnp.ones(3)}
    params = {'backbone': jax.tree.map(jnp.zeros_like, small(convs)), 'head': head}
    merged = merge_backbone(params, small(convs))
    assert merged['head'] is head
    assert all(isinstance(a, jax.Array) for a in jax.tree.leaves(merged['backbone']))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), merged['backbone'], small(convs))
    assert all(jax.tree.leaves(same))
    assert not params['backbone']['block1_conv1']['kernel'].any()


def test_merge_refuses_other_blocks_and_shapes(convs):
    params = {'backbone': small(convs), 'head': {}}
    with pytest.raises(UserError, match='block3_conv1 is only in the weights'):
        merge_backbone(params, {**small(convs), 'block3_conv1': convs['block3_conv1']})
    with pytest.raises(UserError, match='block2_conv1 is only in the network'):
        merge_backbone(params, {'block1_conv1': convs['block1_conv1']})
    wrong = {**convs['block2_conv1'], 'bias': np.zeros(4, np.float32)}
    shapes = r'block2_conv1/bias has shape \(4,\), expected \(128,\)'
    with pytest.raises(UserError, match=shapes):
        merge_backbone(params, {**small(convs), 'block2_conv1': wrong})
