"""The ranking maths against hand arithmetic, Python loops, plain autodiff and rax."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rax
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import jaxprs_in_params

from rank_ssl import ranking

# Called eagerly, each operation compiles anew for each shape and type: what is not about these
# shares them, or is compiled as a whole.
SHAPES = [(7,), (3, 5), (2, 2, 3)]

loss_and_gradient = jax.jit(jax.value_and_grad(ranking.pairwise_hinge_loss))
certainty = jax.jit(ranking.certainty)
order_sign = jax.jit(ranking.order_sign)


@pytest.fixture(autouse=True)
def strict_ranks() -> Iterator[None]:
    with jax.numpy_rank_promotion('raise'):
        yield


@st.composite
def problems(draw: st.DrawFn, *, kinks: bool = True) -> tuple[np.ndarray, np.ndarray, dict]:
    """Scores, phi and options. phi may tie, `kinks` adds hinge arguments that are exactly 0."""
    shape = draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = rng.normal(size=shape) * draw(st.sampled_from([0.3, 3.0, 300.0]))
    if kinks and draw(st.booleans()):
        scores = rng.integers(-2, 3, shape).astype(float)
    phi = draw(
        st.sampled_from([rng.integers(0, 3, shape), rng.normal(size=shape), np.zeros(shape)])
    )
    return (
        scores,
        phi,
        {
            'margin': draw(st.sampled_from([0.25, 1.0, 5.0] + [0.0] * kinks)),
            'segments': draw(st.sampled_from([None, rng.integers(0, 2, shape)])),
            'where': draw(st.sampled_from([None, rng.random(shape) < 0.7])),
        },
    )


def loop_matrices(scores, phi, margin=0.0, segments=None, where=None):
    """l, the hinges of pairs phi_i < phi_j, and P, one pair at a time. Each [..., K, K]."""
    order, hinge, p = np.zeros((3, *scores.shape, scores.shape[-1]))
    for row in np.ndindex(scores.shape[:-1]):
        for i, j in product(range(scores.shape[-1]), repeat=2):
            a, b = (*row, i), (*row, j)
            if segments is not None and segments[a] != segments[b]:
                continue
            if where is not None and not (where[a] and where[b]):
                continue
            if phi[a] < phi[b]:
                order[a + (j,)], order[b + (i,)] = 1, -1
                hinge[a + (j,)] = max(0.0, scores[a] - scores[b] + margin)
                if hinge[a + (j,)] > 0:
                    p[a + (j,)], p[b + (i,)] = 1, -1
    return order, hinge, p


def relu_loss(scores, phi, *, margin, segments=None, where=None):
    """Eq. 8 as plain JAX, for autodiff to differentiate."""
    pairs = phi[..., :, None] < phi[..., None, :]
    if segments is not None:
        pairs &= segments[..., :, None] == segments[..., None, :]
    if where is not None:
        pairs &= where[..., :, None] & where[..., None, :]
    hinge = jax.nn.relu(scores[..., :, None] - scores[..., None, :] + margin)
    return jnp.where(pairs, hinge, 0).sum((-2, -1))


def pulled_back(loss, scores, cotangent):
    """The gradient in the scores of loss(scores) . cotangent."""
    return jax.vjp(loss, jnp.asarray(scores))[1](jnp.asarray(cotangent))[0]


@jax.jit
def autodiff_gradient(scores, phi, cotangent, options):
    return pulled_back(lambda s: relu_loss(s, phi, **options), scores, cotangent)


@jax.jit
def rax_value_and_gradient(scores, phi, margin, options):
    # rax knows the margin 1 alone: max(0, d + m) = m max(0, d / m + 1). Its labels, like phi,
    # are larger where the score has to be, and a pair counts if both items are kept.
    def loss(s):
        return margin * rax.pairwise_hinge_loss(s / margin, phi, reduce_fn=jnp.sum, **options)

    return jax.value_and_grad(loss)(scores)


def spelled_out(phi, options):
    """phi of one type, and options of which none is None: an oracle compiles once for a shape."""
    default = {'segments': np.zeros(phi.shape, int), 'where': np.ones(phi.shape, bool)}
    given = {name: value for name, value in options.items() if value is not None}
    return phi.astype(float), {**default, **given}


def assert_close_in_norm(got, want, rtol=1e-12):
    assert got.dtype == np.float64
    assert got.shape == want.shape
    assert np.linalg.norm(got - want) <= rtol * np.linalg.norm(want)


def test_three_items_by_hand():
    scores, phi = jnp.array([1.0, 3.0, 2.0]), jnp.array([0, 1, 2])
    # (0, 1): 1 - 3 + .5 < 0. (0, 2): 1 - 2 + .5 < 0. (1, 2): 3 - 2 + .5 = 1.5.
    assert ranking.pairwise_hinge_loss(scores, phi, margin=0.5) == 1.5
    np.testing.assert_array_equal(ranking.order_sign(phi), [[0, 1, 1], [-1, 0, 1], [-1, -1, 0]])
    np.testing.assert_array_equal(
        ranking.hinge_matrix(scores, phi, margin=0.5), [[0, 0, 0], [0, 0, 1], [0, -1, 0]]
    )
    gradient = jax.grad(ranking.pairwise_hinge_loss)(scores, phi, margin=0.5)
    np.testing.assert_array_equal(gradient, [0, 1, -1])  # descent lowers y_1 and lifts y_2
    assert ranking.certainty(scores, phi) == jnp.float32(2 / 3)


def test_order_sign_leaves_out_what_does_not_compare():
    phi = jnp.array([0.0, 0.0, 1.0, 2.0, jnp.nan, 3.0])
    segments = jnp.array([7, 7, 7, 8, 7, 7])
    where = jnp.array([True, True, True, True, True, False])
    want = np.zeros((6, 6))
    want[[0, 1], 2], want[2, [0, 1]] = 1, -1
    np.testing.assert_array_equal(order_sign(phi, segments=segments, where=where), want)


@settings(max_examples=50)
@given(problems(), st.integers(0, 99))
def test_gradient_is_p_the_loop_and_autodiff(problem, seed):
    scores, phi, options = problem
    cotangent = np.random.default_rng(seed).normal(size=scores.shape[:-1])
    order, hinge, p = loop_matrices(scores, phi, **options)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(
            ranking.order_sign(phi, segments=options['segments'], where=options['where']), order
        )
        np.testing.assert_array_equal(ranking.hinge_matrix(scores, phi, **options), p)
        loss = np.asarray(ranking.pairwise_hinge_loss(scores, phi, **options))
        gradient = np.asarray(
            pulled_back(lambda s: ranking.pairwise_hinge_loss(s, phi, **options), scores, cotangent)
        )
        plain_phi, plain = spelled_out(phi, options)
        autodiff = np.asarray(autodiff_gradient(scores, plain_phi, cotangent, plain))
    assert_close_in_norm(loss, hinge.sum((-2, -1)))
    assert_close_in_norm(gradient, cotangent[..., None] * p.sum(-1))
    assert_close_in_norm(gradient, autodiff)


@settings(max_examples=30)
@given(problems(kinks=False))
def test_loss_and_gradient_equal_rax(problem):
    scores, phi, options = problem
    margin = options.pop('margin')

    def ours(s):
        return ranking.pairwise_hinge_loss(s, phi, margin=margin, **options).sum()

    with jax.enable_x64(True):
        got, gradient = jax.value_and_grad(ours)(jnp.asarray(scores))
        plain_phi, plain = spelled_out(phi, options)
        want, expected = rax_value_and_gradient(scores, plain_phi, margin, plain)
        assert_close_in_norm(np.asarray(got), np.asarray(want))
        assert_close_in_norm(np.asarray(gradient), np.asarray(expected))


@settings(max_examples=30)
@given(problems())
def test_certainty_is_the_share_of_pairs_in_strict_order(problem):
    scores, phi, options = problem
    options.pop('margin')
    order, _, _ = loop_matrices(scores, phi, **options)
    right = (order > 0) & (scores[..., :, None] < scores[..., None, :])
    with np.errstate(invalid='ignore'):
        want = right.sum((-2, -1)) / (order > 0).sum((-2, -1))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(ranking.certainty(scores, phi, **options), want)


def test_certainty_takes_equal_scores_for_wrong_and_nan_for_no_pair():
    phi = np.array([[0, 1, 2], [0, 1, 2], [1, 1, 1]])
    scores = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(certainty(scores, phi), [0, 1, np.nan])


@pytest.mark.parametrize(('shift', 'want'), [(0.0, [0, 0]), (2.0**-20, [1, -1])])
@pytest.mark.parametrize('margin', [0.0, 1.0])
def test_gradient_on_the_kink_is_zero(margin, shift, want):
    scores, phi = jnp.array([2.0 + shift, 2.0 + margin]), jnp.array([0, 1])
    loss, gradient = loss_and_gradient(scores, phi, margin=margin)
    assert loss == shift
    np.testing.assert_array_equal(gradient, want)


@pytest.mark.parametrize('shape', [(0,), (3, 1), (0, 4)])
def test_no_item_and_single_items_cost_nothing(shape):
    scores, phi = np.ones(shape, np.float32), np.arange(np.prod(shape)).reshape(shape)

    @jax.jit
    def results(scores, phi):
        loss, pull = jax.vjp(lambda s: ranking.pairwise_hinge_loss(s, phi, margin=9.0), scores)
        p = ranking.hinge_matrix(scores, phi, margin=9.0)
        return loss, pull(jnp.ones(shape[:-1]))[0], p, ranking.certainty(scores, phi)

    loss, gradient, p, share = results(scores, phi)
    np.testing.assert_array_equal(loss, np.zeros(shape[:-1], np.float32), strict=True)
    np.testing.assert_array_equal(gradient, np.zeros(shape))
    assert p.shape == (*shape, shape[-1])
    np.testing.assert_array_equal(share, np.full(shape[:-1], np.nan))


@pytest.mark.parametrize(
    'options',
    [{'where': np.zeros(4, bool)}, {'segments': np.arange(4)}, {'where': np.arange(4) == 2}],
)
def test_no_pair_left_has_zero_loss_and_gradient(options):
    scores, phi = np.array([4.0, 3.0, 2.0, 1.0]), np.arange(4)
    loss, gradient = loss_and_gradient(scores, phi, margin=1.0, **options)
    assert loss == 0
    np.testing.assert_array_equal(gradient, np.zeros(4))
    assert np.isnan(certainty(scores, phi, **options))


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('jit', [True, False])
def test_masked_items_cannot_poison_the_rest(poison, jit):
    scores, phi = np.array([2.0, 0.0, 1.0, 0.5, 0.0]), np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    where = np.array([True, False, True, True, False])
    loss_of = loss_and_gradient if jit else jax.value_and_grad(ranking.pairwise_hinge_loss)
    certainty_of = certainty if jit else ranking.certainty
    want, expected = loss_of(scores[where], phi[where], margin=1.0)
    bad_scores, bad_phi = np.where(where, scores, poison), np.where(where, phi, np.nan)
    for order in (phi, bad_phi):
        loss, gradient = loss_of(bad_scores, order, margin=1.0, where=where)
        assert loss == want == 2 + 2.5 + 1.5
        np.testing.assert_array_equal(gradient, [2, 0, 0, -2, 0])
        np.testing.assert_array_equal(gradient[where], expected)
        assert certainty_of(bad_scores, order, where=where) == 0
    p = np.asarray(ranking.hinge_matrix(bad_scores, bad_phi, margin=1.0, where=where))
    assert not np.any(p[~where]) and not np.any(p[:, ~where])


def test_nan_in_a_kept_score_shows_in_the_loss():
    scores = jnp.array([0.0, jnp.nan, 1.0])
    assert jnp.isnan(ranking.pairwise_hinge_loss(scores, jnp.arange(3), margin=1.0))


def test_flat_masked_form_equals_the_grouped_form_summed():
    rng = np.random.default_rng(3)
    scores, phi = rng.normal(size=(6, 5)), rng.integers(0, 4, (6, 5))
    where, flat = rng.random((6, 5)) < 0.8, np.repeat(np.arange(6), 5)

    def grouped_loss(s):
        return ranking.pairwise_hinge_loss(s, phi, margin=0.7, where=where).sum()

    with jax.enable_x64(True):
        grouped, gradient = jax.jit(jax.value_and_grad(grouped_loss))(scores)
        loss, flat_gradient = loss_and_gradient(
            scores.ravel(), phi.ravel(), margin=0.7, segments=flat, where=where.ravel()
        )
    np.testing.assert_allclose(loss, grouped, rtol=1e-14)
    np.testing.assert_array_equal(flat_gradient.reshape(6, 5), gradient)


def test_backward_pass_is_the_hinge_matrix(monkeypatch):
    matrix = ranking.hinge_matrix
    monkeypatch.setattr(ranking, 'hinge_matrix', lambda *args, **kw: 10 * matrix(*args, **kw))
    scores, phi = jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[0, 1, 2]])
    gradient = jax.jit(jax.grad(lambda s: ranking.pairwise_hinge_loss(s, phi, margin=1.0).sum()))(
        scores
    )
    np.testing.assert_array_equal(gradient, [[20, 0, -20]])


def test_only_the_scores_get_a_gradient():
    scores, phi = jnp.array([3.0, 2.0, 1.0]), jnp.array([0.0, 1.0, 2.0])

    def loss(s, p, m):
        return ranking.pairwise_hinge_loss(s, p, margin=m)

    by_scores, by_phi, by_margin = jax.jit(jax.grad(loss, (0, 1, 2)))(scores, phi, 1.0)
    np.testing.assert_array_equal(by_scores, [2, 0, -2])
    assert not by_phi.any() and by_margin == 0
    np.testing.assert_array_equal(jax.jit(jax.hessian(loss))(scores, phi, 1.0), np.zeros((3, 3)))


def test_jit_and_vmap_change_nothing():
    rng = np.random.default_rng(5)
    scores, phi = rng.normal(size=(3, 5)), rng.integers(0, 4, (3, 5))
    segments, where = rng.integers(0, 2, (3, 5)), rng.random((3, 5)) < 0.8

    def loss(s, p, q, w, margin=0.5):
        return ranking.pairwise_hinge_loss(s, p, margin=margin, segments=q, where=w)

    def total(s, f, *args):
        return (f(s, *args) * np.arange(1.0, 4.0)).sum()

    rows = (phi, segments, where)
    with jax.enable_x64(True):
        want, expected = jax.value_and_grad(total)(jnp.asarray(scores), loss, *rows)
        for f in (jax.jit(loss), jax.jit(jax.vmap(loss))):
            value, gradient = jax.jit(jax.value_and_grad(total), static_argnums=1)(scores, f, *rows)
            np.testing.assert_allclose(value, want, rtol=1e-12)
            np.testing.assert_array_equal(gradient, expected)
        by_row = jax.jit(jax.vmap(jax.grad(loss)))(scores, *rows)
        np.testing.assert_array_equal(by_row * np.arange(1.0, 4.0)[:, None], expected)
        margins = np.array([0.0, 0.5, 2.0])
        by_margin = jax.jit(jax.vmap(loss, (None, None, None, None, 0)))(scores, *rows, margins)
        one_by_one = [loss(scores, *rows, margin) for margin in margins]
        np.testing.assert_allclose(by_margin, one_by_one, rtol=1e-12)
        for result in (ranking.certainty, partial(ranking.hinge_matrix, margin=0.5)):
            mapped = jax.jit(jax.vmap(result))(scores, phi)
            np.testing.assert_array_equal(mapped, result(scores, phi))


def test_leading_axes_broadcast_and_shared_scores_sum_their_gradient():
    scores, phi = np.array([3.0, 2.0, 1.0], np.float32), np.array([[0, 1, 2], [2, 1, 0]])

    def summed(s):
        loss = ranking.pairwise_hinge_loss(s, phi, margin=1.0)
        return loss.sum(), loss

    (_, loss), gradient = jax.jit(jax.value_and_grad(summed, has_aux=True))(scores)
    np.testing.assert_array_equal(loss, [2 + 2 + 3, 0])
    np.testing.assert_array_equal(gradient, [2, 0, -2])


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'float32', 'float64'])
@pytest.mark.parametrize('margin', [0, 0.5, np.float64(0.5), jnp.float32(0.5)])
def test_results_have_the_dtype_of_the_scores(dtype, margin):
    with jax.enable_x64(dtype == 'float64'):
        scores, phi = jnp.array([3.0, 1.0, 2.0], dtype), jnp.array([0.0, 1.0, 2.0])
        loss, pull = jax.vjp(lambda s: ranking.pairwise_hinge_loss(s, phi, margin=margin), scores)
        results = loss, pull(loss)[0], ranking.hinge_matrix(scores, phi, margin=margin)
        assert {str(r.dtype) for r in (*results, ranking.certainty(scores, phi))} == {dtype}
        assert float(loss) == 3 + 2 * float(margin)


def test_sixteen_bit_scores_are_compared_in_float32():
    # In bfloat16 the difference -254.9921875 would round to -255, onto the kink.
    scores, phi = jnp.array([1.0078125, 256.0], jnp.bfloat16), jnp.array([0, 1])
    loss, gradient = loss_and_gradient(scores, phi, margin=255.0)
    assert loss == 0.0078125
    np.testing.assert_array_equal(gradient.astype(float), [1, -1])


def array_sizes(jaxpr) -> Iterator[int]:
    for equation in jaxpr.eqns:
        yield from (np.prod(v.aval.shape, dtype=int) for v in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from array_sizes(inner)


def test_no_array_spans_the_pairs_of_two_batch_rows():
    scores, phi = jnp.ones((32, 5)), jnp.tile(jnp.arange(5), (32, 1))
    program = jax.make_jaxpr(
        jax.value_and_grad(
            lambda s: ranking.pairwise_hinge_loss(
                s, phi, margin=1.0, segments=phi, where=phi > 0
            ).sum()
        )
    )(scores)
    assert max(array_sizes(program.jaxpr)) == 32 * 5 * 5


def test_groups_split_over_devices_exchange_only_the_summed_loss():
    script = """
        import jax, numpy as np
        from jax.sharding import AxisType, NamedSharding, PartitionSpec
        from rank_ssl.ranking import pairwise_hinge_loss

        def loss(s, p):
            return pairwise_hinge_loss(s, p, margin=0.5).sum()

        scores = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
        phi = np.tile(np.arange(5), (8, 1))
        want = jax.jit(jax.grad(loss))(scores, phi)
        for axis in (AxisType.Auto, AxisType.Explicit):
            mesh = jax.make_mesh((4,), ('data',), axis_types=(axis,))
            split = NamedSharding(mesh, PartitionSpec('data'))
            placed = jax.device_put((scores, phi), split)
            step = jax.jit(jax.value_and_grad(loss)).lower(*placed).compile()
            assert (np.asarray(step(*placed)[1]) == want).all()
            program = step.as_text()
            assert 'all-reduce' in program
            assert not any(x in program for x in ('all-gather', 'all-to-all', 'permute'))
    """
    flags = {'XLA_FLAGS': '--xla_force_host_platform_device_count=4', 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(script)],
        cwd=Path(ranking.__file__).parents[1],
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ('scores', 'phi', 'margin', 'message'),
    [
        ((8, 1), (8,), 1.0, r'scores \(8, 1\), phi \(8,\) must be'),
        ((4, 1), (4, 5), 1.0, r'scores \(4, 1\), phi \(4, 5\) must be'),
        ((3, 5), (2, 5), 1.0, r'scores \(3, 5\), phi \(2, 5\) must be'),
        ((), (), 1.0, r'scores \(\), phi \(\) must be'),
        ((5,), (5,), np.ones(5), r'margin \(5,\) must be a scalar'),
    ],
)
def test_shapes_that_do_not_fit_are_refused(scores, phi, margin, message):
    with pytest.raises(ValueError, match=message):
        ranking.pairwise_hinge_loss(np.ones(scores), np.ones(phi), margin=margin)


@given(problem=problems(kinks=False), seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_weights_multiply_the_pairs_in_the_loss_and_in_p(problem, seed):
    scores, phi, options = problem
    half = np.random.default_rng(seed).random((*scores.shape, scores.shape[-1]))
    weights = half + np.swapaxes(half, -1, -2)
    _, hinge, p = loop_matrices(scores, phi, **options)
    with jax.enable_x64(True):
        loss = ranking.pairwise_hinge_loss(scores, phi, weights=weights, **options)
        found = ranking.hinge_matrix(scores, phi, weights=weights, **options)
        gradient = jax.grad(
            lambda y: ranking.pairwise_hinge_loss(y, phi, weights=weights, **options).sum()
        )(jnp.asarray(scores))
    assert_close_in_norm(np.asarray(loss), (hinge * weights).sum((-2, -1)))
    assert_close_in_norm(np.asarray(found), p * weights)
    assert_close_in_norm(np.asarray(gradient), (p * weights).sum(-1))


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r'weights \(3,\) and scores \(3,\) must be \(3, 3\)'):
        ranking.pairwise_hinge_loss(np.zeros(3), np.arange(3), margin=1, weights=np.ones(3))
