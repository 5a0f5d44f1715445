"""Images that a training step forwards, counted in its traced program: equal for all samplers."""

import io

import jax
import numpy as np
import optax
import pytest
from jax import lax
from PIL import Image

from rank_ssl import data
from rank_ssl.bench.programs import Convolution, convolutions, forwards
from rank_ssl.bench.siamese import siamese_loss
from rank_ssl.config import SAMPLERS, Config, Data, Model
from rank_ssl.models.build import build_network
from rank_ssl.models.network import init_params, make_apply
from rank_ssl.step import create_state, make_train_step, step_of
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.tasks.iqa import IQA
from rank_ssl.types import Batch

SIZE, GROUPS, LABELS = 32, 4, 2
IQA_FIELDS = {'size': SIZE, 'last': 'pool'}
TASKS = {
    'crowd of 4': Crowd(size=SIZE, levels=4),
    'crowd of 5': Crowd(size=SIZE, levels=5),
    'tid2013 of 5': IQA(**IQA_FIELDS, chains='mean_shift_up,contrast_up'),
    'live of 6': IQA(**IQA_FIELDS, ladder='live', chains='live_noise,live_blur'),
}


@pytest.fixture(scope='module')
def splits() -> data.Splits:
    """Eight made pictures with the annotations of both tasks."""
    rows = []
    for n in range(8):
        file = io.BytesIO()
        pixels = np.random.default_rng(n).integers(0, 256, (72, 80, 3), np.uint8)
        Image.fromarray(pixels).save(file, 'PNG')
        rows.append({'image': file.getvalue(), 'id': f'{n}'.encode(), 'height': 72, 'width': 80,
                     'points': np.zeros((0, 2)), 'count': 0, 'score': float(n), 'kind': b'',
                     'lower_is_better': 0, 'reference': b'', 'level': 0})  # fmt: skip
    records = data.Records([rows], [(0, n) for n in range(8)])
    return data.Splits(records, records, records, records, partial=False, fingerprint='')


def made_config(task, *, sampler: str, regime: str = 'multitask') -> Config:
    config = Config(task=task, sampler=sampler, regime=regime)
    config.model = Model(backbone='vgg8', width=0.1, weights='none')
    config.data = Data(groups=GROUPS, labeled_per_group=LABELS)
    config.check()
    return config


def made_batch(config: Config, splits: data.Splits) -> Batch:
    return Batch(**data.Batches(config, splits, range(config.groups))[0])


def network_of(config: Config):
    network, _ = build_network(config)
    params = jax.eval_shape(lambda key: init_params(network, key, SIZE), jax.random.key(0))
    return make_apply(network), params


def count(program, params) -> int:
    kernel = params['backbone']['block1_conv1']['kernel'].shape
    return forwards(program, kernel=kernel, pixels=SIZE**2)


def counted(config: Config, batch: Batch) -> int:
    """Images that pass the first convolution in the traced training step."""
    apply_fn, params = network_of(config)
    tx = optax.sgd(1e-3, momentum=0.9)
    state = jax.eval_shape(lambda p, k: create_state(apply_fn, p, tx, k), params, jax.random.key(0))
    return count(jax.make_jaxpr(step_of(config, tx))(state, batch), params)


@pytest.mark.parametrize('name', TASKS)
@pytest.mark.parametrize('regime', ['multitask', 'ranking'])
def test_all_samplers_forward_the_same_images_each_once(splits, name, regime):
    task = TASKS[name]
    labels = LABELS if regime == 'multitask' else 0
    found = {}
    for sampler in SAMPLERS:
        config = made_config(task, sampler=sampler, regime=regime)
        found[sampler] = counted(config, made_batch(config, splits))
        assert found[sampler] == config.groups * (config.ranked + config.labeled)
    assert found == dict.fromkeys(SAMPLERS, GROUPS * (task.levels + labels))


@pytest.mark.parametrize('name', TASKS)
def test_two_branches_forward_each_image_once_for_each_pair_it_is_in(splits, name):
    task = TASKS[name]
    config = made_config(task, sampler='all', regime='ranking')
    batch = made_batch(config, splits)
    apply_fn, params = network_of(config)
    loss = siamese_loss(task.score, apply_fn, margin=1.0)
    keys = jax.eval_shape(lambda key: jax.random.split(key, batch.phi.shape), jax.random.key(0))
    two = count(jax.make_jaxpr(jax.value_and_grad(loss))(params, batch, keys), params)
    assert two == GROUPS * task.levels * (task.levels - 1)
    assert two == (task.levels - 1) * counted(config, batch)


def test_accumulated_parts_forward_no_more(splits):
    config = made_config(TASKS['crowd of 5'], sampler='all')
    apply_fn, params = network_of(config)
    tx = optax.sgd(1e-3)
    state = jax.eval_shape(lambda p, k: create_state(apply_fn, p, tx, k), params, jax.random.key(0))
    step = make_train_step(config.task, tx, rank_weight=1, margin=1, parts=2)
    program = jax.make_jaxpr(step)(state, made_batch(config, splits))
    assert count(program, params) == GROUPS * (5 + LABELS)


def conv(x, kernel, layout=('NHWC', 'HWIO', 'NHWC')):
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=layout)


def test_traced_and_compiled_programs_list_their_convolutions():
    x, kernel = np.ones((4, 10, 12, 3), 'f4'), np.ones((3, 3, 3, 5), 'f4')
    expected = [Convolution(4, 120, (3, 3, 3, 5))]
    assert expected[0].flops == 2 * 4 * 120 * 27 * 5
    assert convolutions(jax.make_jaxpr(conv)(x, kernel)) == expected
    compiled = jax.jit(conv).lower(x, kernel).compile()
    assert convolutions(compiled.as_text()) == expected
    assert compiled.cost_analysis()['flops'] <= expected[0].flops  # it leaves the padding out
    first = (np.moveaxis(x, 3, 1), np.transpose(kernel, (3, 2, 0, 1)))
    channels_first = jax.make_jaxpr(lambda a, b: conv(a, b, ('NCHW', 'OIHW', 'NCHW')))(*first)
    assert convolutions(channels_first) == expected


def test_repeated_calls_and_loops_count_each_time():
    x, kernel = np.ones((4, 8, 8, 3), 'f4'), np.ones((3, 3, 3, 3), 'f4')
    again = jax.jit(conv)

    def f(x, kernel):
        x = again(again(x, kernel), kernel)
        return lax.scan(lambda c, _: (again(c, kernel), None), x, length=5)[0]

    program = jax.make_jaxpr(f)(x, kernel)
    assert forwards(program, kernel=kernel.shape, pixels=64) == 4 * 7
    assert forwards(program, kernel=(3, 3, 3, 4), pixels=64) == 0


def test_strips_of_an_image_add_up_and_part_of_one_is_refused():
    x, kernel = np.ones((4, 8, 8, 3), 'f4'), np.ones((3, 3, 3, 5), 'f4')
    halves = jax.make_jaxpr(lambda x, k: [conv(x[:, :4], k), conv(x[:, 4:], k)])(x, kernel)
    assert forwards(halves, kernel=kernel.shape, pixels=64) == 4
    with pytest.raises(ValueError, match='no multiple of 1000'):
        forwards(halves, kernel=kernel.shape, pixels=1000)


def test_a_library_call_is_a_convolution():
    text = """
  %p.0 = f32[20,3,64,64]{3,2,1,0} parameter(0)
  %p.1 = f32[16,3,3,3]{3,2,1,0} parameter(1)
  %call.1 = (f32[20,16,64,64]{3,2,1,0}, u8[128]{0}) custom-call(%p.0, %p.1), window={size=3x3 \
pad=1_1x1_1}, dim_labels=bf01_oi01->bf01, custom_call_target="__cudnn$convForward"
"""
    assert convolutions(text) == [Convolution(20, 64 * 64, (3, 3, 3, 16))]
