"""The network of a config: which weights are read, and what pixels it expects."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from rank_ssl.config import Config, Model
from rank_ssl.errors import UserError
from rank_ssl.models.build import (
    SCRATCH_PIXELS,
    build_backbone,
    build_network,
    initial_params,
)
from rank_ssl.models.heads import FCHead
from rank_ssl.tasks.crowd import Crowd


def config(**fields) -> Config:
    return Config(task=Crowd(size=32), model=Model(backbone='vgg8', width=0.1, **fields))


class Scored(Crowd):
    """A task whose head is fully connected, and that takes any stride."""

    def head(self):
        return FCHead(features=3)

    def stride(self):
        return None


def scored(path, *, size=4) -> Config:
    """One block of a full-width vgg8, pooled: 2 x 2 cells of 64 channels for 4 px."""
    model = Model(backbone='vgg8', blocks=1, last_pool=True, weights=str(path))
    return Config(task=Scored(size=size), model=model)


def torch_file(path, *, dense=True):
    shapes = {'features.0.weight': (64, 3, 3, 3), 'features.0.bias': (64,)}
    if dense:
        shapes |= {'classifier.0.weight': (3, 256), 'classifier.0.bias': (3,)}
        shapes |= {'classifier.3.weight': (3, 3), 'classifier.3.bias': (3,)}
    rng = np.random.default_rng(0)
    arrays = {key: rng.normal(size=s).astype(np.float32) for key, s in shapes.items()}
    save_file(arrays, path)
    return arrays


def test_from_scratch_the_input_has_zero_mean_and_unit_variance():
    network, loaded = build_network(config(weights='none'))
    assert loaded is None and network.pixels == SCRATCH_PIXELS == 'torch'


def test_a_run_that_goes_on_reads_no_weights():
    with pytest.raises(UserError, match='config.model.weights=/nonexistent does not exist'):
        build_network(config(weights='/nonexistent'))
    for pixels in ('caffe', 'torch', 'raw_rgb'):
        network, loaded = build_network(config(weights='/nonexistent'), pixels=pixels)
        assert loaded is None and network.pixels == pixels


@pytest.mark.parametrize('pixels', [None, 'caffe'])
def test_pixels_that_are_named_in_the_config_stand(pixels):
    network, _ = build_network(config(weights='none', pixels='raw_bgr'), pixels=pixels)
    assert network.pixels == 'raw_bgr'


def test_a_stride_that_the_task_does_not_have_is_refused():
    with pytest.raises(UserError, match='give a stride of 32 px, the task needs 16'):
        build_network(config(weights='none', last_pool=True))


class Strided(Crowd):
    """A task that needs the stride which its `cell` names."""

    def check(self):
        pass


@pytest.mark.parametrize(
    'needed, cure',
    [
        (16, 'use 5 and False, or 4 and True'),
        (32, 'use 5 and True'),
        (1, 'use 1 and False'),
        (12, 'no blocks of a VGG give that'),
    ],
)
def test_the_fields_that_give_a_stride_are_named(needed, cure):
    wrong = config(weights='none', blocks=3)
    wrong.task = Strided(size=32, cell=needed)
    with pytest.raises(UserError, match=f'a stride of 4 px, the task needs {needed}: {cure}'):
        build_network(wrong)


def test_a_fully_connected_head_starts_from_the_files_layers(tmp_path, capsys):
    arrays = torch_file(tmp_path / 'w.safetensors')
    network, loaded = build_network(scored(tmp_path / 'w.safetensors'))
    assert network.pixels == 'torch'
    params = initial_params(network, loaded, key=jax.random.key(0), size=4)
    drawn = initial_params(network, None, key=jax.random.key(0), size=4)
    head = params['head']
    np.testing.assert_array_equal(head['fc6']['bias'], arrays['classifier.0.bias'])
    np.testing.assert_array_equal(head['fc7']['kernel'], arrays['classifier.3.weight'].T)
    # Cell (0, 1) of channel 5: place 1 * 64 + 5 in the features, 5 * 4 + 1 in torch's row.
    np.testing.assert_array_equal(
        head['fc6']['kernel'][69], arrays['classifier.0.weight'][:, 5 * 4 + 1]
    )
    jax.tree.map(np.testing.assert_array_equal, head['output'], drawn['head']['output'])
    assert (params['backbone']['block1_conv1']['bias'] == arrays['features.0.bias']).all()
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
    'dense, size, why',
    [
        (False, 4, 'w.safetensors holds convolutions alone'),
        (True, 6, 'classifier.0.weight of w.safetensors has shape (3, 256), the head takes'),
    ],
)
def test_layers_that_the_file_has_not_are_drawn_and_a_line_says_so(
    tmp_path, capsys, dense, size, why
):
    torch_file(tmp_path / 'w.safetensors', dense=dense)
    network, loaded = build_network(scored(tmp_path / 'w.safetensors', size=size))
    said = capsys.readouterr().err
    assert said.startswith(f'fc6 and fc7 start from random values: {why}')
    assert said.count('\n') == 1
    params = initial_params(network, loaded, key=jax.random.key(0), size=size)
    drawn = initial_params(network, None, key=jax.random.key(0), size=size)
    jax.tree.map(np.testing.assert_array_equal, params['head'], drawn['head'])
    kernels = [p['backbone']['block1_conv1']['kernel'] for p in (params, drawn)]
    assert (kernels[0] != kernels[1]).all()


def test_from_scratch_or_without_such_a_head_nothing_is_said(tmp_path, capsys):
    build_network(scored('none'))
    torch_file(tmp_path / 'w.safetensors')
    plain = scored(tmp_path / 'w.safetensors')
    plain.task = Crowd(size=4, cell=2)
    _, loaded = build_network(plain)
    assert loaded['dense'] == {} and capsys.readouterr().err == ''


def test_the_backbone_alone_is_that_of_the_whole_network(tmp_path):
    torch_file(tmp_path / 'w.safetensors')
    for made in (scored(tmp_path / 'w.safetensors'), scored('none')):
        key = jax.random.key(3)
        alone, backbone = build_backbone(made, key=key)
        network, loaded = build_network(made)
        whole = initial_params(network, loaded, key=key, size=4)['backbone']
        assert alone.pixels == network.pixels
        jax.tree.map(np.testing.assert_array_equal, backbone, whole)
