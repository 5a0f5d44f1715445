"""The bench of the training step: equal arithmetic, its processes, its numbers and their table."""

import importlib.util
import json

import numpy as np
import pytest

from rank_ssl import bench
from rank_ssl.bench import step, stepper
from rank_ssl.bench.stepper import Setting
from rank_ssl.errors import UserError
from rank_ssl.models import make_network
from rank_ssl.models.network import init_params, make_apply
from rank_ssl.models.vgg import LAYOUTS
from rank_ssl.tasks.crowd import Crowd

TINY = Setting(backbone='vgg8', width=0.1, side=32, batch=2, rate=1e-4)
SAID = {'device': 'cpu cpu', 'dtype': 'float32', 'threads': 2, 'start': 100}


def said(seconds, losses, *, matmul=1e12, peak=300, **more):
    return {**SAID, 'seconds': seconds, 'losses': losses, 'matmul': matmul, 'peak': peak, **more}


@pytest.fixture
def no_torch(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name == 'torch' else find(name)
    )


def test_the_full_network_has_the_published_flops():
    # 15.470 GMAC are published for 224 px, of them 0.124 in fully connected layers.
    assert Setting().flops == pytest.approx(6 * (15.470e9 - 0.1236e9), rel=1e-3)
    assert len(Setting().layers) == sum(LAYOUTS['vgg16']) + 1
    # Five layers of 3 -> 6 -> 13 -> 26 -> 51 -> 51 channels and the head, by hand.
    pairs = [(3, 6, 32), (6, 13, 16), (13, 26, 8), (26, 51, 4), (51, 51, 2), (51, 1, 2)]
    assert TINY.flops == sum(6 * 9 * i * o * side**2 for i, o, side in pairs)


def test_both_start_from_the_same_arrays():
    one, two = stepper.draw(TINY), stepper.draw(TINY)
    for a, b in zip([*one.kernels, *one[1:]], [*two.kernels, *two[1:]], strict=True):
        np.testing.assert_array_equal(a, b)
    params = stepper.our_params(TINY, one.kernels)
    network = make_network(
        backbone='vgg8', width=0.1, blocks=5, last_pool=False, frozen_blocks=0,
        dtype='float32', remat=False, pixels=stepper.PIXELS, head=Crowd(size=32).head(),
    )  # fmt: skip
    import jax

    shapes = jax.eval_shape(lambda key: init_params(network, key, 32), jax.random.key(0))
    found = jax.tree.map(lambda a: (a.shape, a.dtype), params)
    assert found == jax.tree.map(lambda a: (a.shape, a.dtype), shapes)


def plain_loss(setting, made):
    """What both should compute, in plain jax."""
    network = make_network(
        backbone='vgg8', width=0.1, blocks=5, last_pool=False, frozen_blocks=0,
        dtype='float32', remat=False, pixels=stepper.PIXELS, head=Crowd(size=32).head(),
    )  # fmt: skip
    params = stepper.our_params(setting, made.kernels)
    density = np.stack([make_apply(network)(params, image) for image in made.image])
    return float(((density - made.target) ** 2).sum((1, 2)).mean())


@pytest.mark.slow
def test_a_run_without_torch_says_so_and_measures_ours(no_torch, capsys):
    result = step.measure(TINY, rounds=2)
    json.dumps(result)
    text = capsys.readouterr().out
    assert 'not installed' in text and 'ours / torch' not in text
    assert result['torch'] is None and result['ratio'] is None
    assert result['ours'] == pytest.approx(2 / np.median(result['ours_seconds']))
    assert len(result['ours_seconds']) == 2 and len(result['ours_losses']) == 3
    assert result['ours_losses'][0] == pytest.approx(plain_loss(TINY, stepper.draw(TINY)), rel=1e-4)
    assert result['ours_losses'][2] < result['ours_losses'][0]
    assert 1e6 < result['ours_memory'] < 4e9 and result['ceiling_gflops'] > 0.1


@pytest.mark.skipif(importlib.util.find_spec('torch') is None, reason='torch is not installed')
def test_torch_computes_the_same_losses(capsys):
    result = step.measure(TINY, rounds=5)
    np.testing.assert_allclose(result['torch_losses'], result['ours_losses'], rtol=1e-4)
    assert result['loss_gap'] < 1e-4 and result['torch'] > 0
    assert 'ours / torch' in capsys.readouterr().out


def test_the_numbers_of_two_rows():
    losses = [8.0, 4.0, 2.0, 1.0, 1.0, 1.0, 5.0]
    found = {
        'ours': said([1.0, 2.0, 3.0], losses, matmul=2e9, peak=400),
        'torch': said([2.0, 2.0, 9.0], [8.0, 4.0, 2.0, 1.1, 1.0, 9.0, 5.0], peak=350),
    }
    result = step.summary(found, TINY)
    assert result['ours'] == 1.0 and result['torch'] == 1.0
    assert result['ratio'] == 2.0  # of 2, 1 and 3: steps that ran side by side
    assert result['ceiling_gflops'] == 1000  # the better of the two libraries
    assert result['ours_share'] == pytest.approx(TINY.flops / 1e12)
    assert result['memory_ratio'] == pytest.approx(300 / 250)
    assert result['loss_gap'] == pytest.approx(0.1 / 1.1)  # the sixth step isn't compared
    assert result['mfu'] is None
    text = '\n'.join(step.lines(result))
    assert 'images/s 2.00, target 0.90;' in text and 'memory 1.20, at most 1.5' in text
    assert 'missed' not in text
    found['ours']['seconds'], found['ours']['peak'] = [3.0, 3.0, 3.0], 600
    text = '\n'.join(step.lines(step.summary(found, TINY)))
    assert 'images/s 0.67, target 0.90: missed; memory 2.00, at most 1.5: missed' in text


def test_a_gpu_has_a_utilisation_and_no_target():
    device = {'device': 'gpu NVIDIA H100 80GB HBM3', 'dtype': 'bfloat16'}
    found = {name: said([0.5, 0.5], [1.0, 1.0], **device) for name in ('ours', 'torch')}
    result = step.summary(found, Setting())
    assert result['mfu'] == pytest.approx(16 * 92.09e9 / 989e12, rel=1e-3)
    text = '\n'.join(step.lines(result))
    assert 'utilisation' in text and 'target' not in text and 'bfloat16' in text


def test_a_child_that_fails_is_one_line(monkeypatch):
    monkeypatch.setenv('JAX_PLATFORMS', 'nothing')
    with pytest.raises(UserError, match='the process of ours ended with 1'):
        step.measure(TINY, rounds=1)


def test_the_bench_is_registered():
    assert bench.BENCHES['step'] == 'rank_ssl.bench.step'
    assert '    step ' in bench.__doc__
