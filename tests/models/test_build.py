"""The network of a config: which weights are read, and what pixels it expects."""

import pytest

from rank_ssl.config import Config, Model
from rank_ssl.errors import UserError
from rank_ssl.models.build import SCRATCH_PIXELS, build_network
from rank_ssl.tasks.crowd import Crowd


def config(**fields) -> Config:
    return Config(task=Crowd(size=32), model=Model(backbone='vgg8', width=0.1, **fields))


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
