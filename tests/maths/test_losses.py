"""The terms of the objective against loops, and their gradients against finite differences."""

import numpy as np
import oracles
import pytest
import tensorflow as tf

from ppo_agent.maths import losses


def central_difference(function, x, step):
    """Derivative of a sum of per-entry functions."""
    return (function(x + step) - function(x - step)) / (2 * step)


@pytest.fixture
def ratios(rng):
    """New and old log-probabilities whose ratios lie on both sides of the clipping range, and advantages."""
    old = rng.normal(-1.0, 1.0, (5, 7))
    return tuple(x.astype(np.float32) for x in (old + rng.normal(0, 0.4, old.shape), old, rng.normal(size=old.shape)))


@pytest.mark.parametrize("clipping", [0.0, 0.1, 0.3])
def test_surrogate_loss(ratios, clipping):
    loss, parts = losses.surrogate_loss(*ratios, clipping or None)
    np.testing.assert_allclose(loss, oracles.surrogate(*ratios, clipping), rtol=1e-5)
    np.testing.assert_allclose(parts.importance_ratio, np.exp(ratios[0] - ratios[1]), rtol=1e-5)
    np.testing.assert_allclose(parts.objective, parts.importance_ratio * ratios[2], rtol=1e-6)
    np.testing.assert_allclose(parts.clipped_objective, parts.clipped_ratio * ratios[2], rtol=1e-6)


@pytest.mark.parametrize("clipping", [0.0, 0.2])
def test_surrogate_gradient(ratios, clipping):
    new, old, advantages = (np.float64(x) for x in ratios)
    with tf.GradientTape() as tape:
        variable = tf.constant(new)
        tape.watch(variable)
        loss, _ = losses.surrogate_loss(variable, old, advantages, clipping or None)
    gradient = tape.gradient(loss, variable).numpy()
    expected = central_difference(lambda x: oracles.surrogate(x, old, advantages, clipping), new, 1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)
    if clipping:
        ratio = np.exp(new - old)
        stuck = ((ratio > 1 + clipping) & (advantages > 0)) | ((ratio < 1 - clipping) & (advantages < 0))
        assert stuck.any()
        np.testing.assert_array_equal(gradient[stuck], 0)


@pytest.mark.parametrize(("clipping", "dual"), [(0.0, 1.2), (0.2, 1.5), (0.1, 3.0)])
def test_dual_clipping_and_its_gradient(rng, clipping, dual):
    old, advantages = rng.normal(-1.0, 1.0, (6, 9)), rng.normal(size=(6, 9))
    new = old + rng.normal(0.3, 0.8, old.shape)
    with tf.GradientTape() as tape:
        variable = tf.constant(new)
        tape.watch(variable)
        loss, _ = losses.surrogate_loss(variable, old, advantages, clipping or None, dual)
    np.testing.assert_allclose(loss, oracles.surrogate(new, old, advantages, clipping, dual), rtol=1e-6)
    slope = central_difference(lambda x: oracles.surrogate(x, old, advantages, clipping, dual), new, 1e-6)
    gradient = tape.gradient(loss, variable).numpy()
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-7)
    bounded = (np.exp(new - old) > dual) & (advantages < 0)
    assert bounded.any()
    np.testing.assert_array_equal(gradient[bounded], 0)


def test_dual_clipping_bounds_infinite_ratios():
    new = tf.constant([100.0, 1000.0, 3e38])
    with tf.GradientTape() as tape:
        tape.watch(new)
        loss, _ = losses.surrogate_loss(new, tf.zeros(3), -tf.constant([1.0, 2.0, 3.0]), 0.2, 3.0)
    np.testing.assert_allclose(loss, [3.0, 6.0, 9.0])
    np.testing.assert_array_equal(tape.gradient(loss, new), [0, 0, 0])


@pytest.mark.parametrize("clipping", [0.0, 0.3])
def test_value_loss_and_its_gradient(rng, clipping):
    values, returns, old = rng.normal(size=(3, 5, 7))
    expected = oracles.value_loss(values, returns, old, clipping)
    variable = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        loss = losses.value_loss(variable, returns, old, clipping)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    slope = central_difference(lambda x: oracles.value_loss(x, returns, old, clipping), values, 1e-6)
    np.testing.assert_allclose(tape.gradient(loss, variable), slope, rtol=1e-4, atol=1e-7)


def test_value_clipping_takes_the_worse_prediction():
    # The prediction moved by 2 towards the target 3; only 0.5 of that may count.
    np.testing.assert_allclose(losses.value_loss(*tf.constant([[2.0], [3.0], [0.0]]), 0.5), [2.5**2])
    np.testing.assert_allclose(losses.value_loss(*tf.constant([[-2.0], [3.0], [0.0]]), 0.5), [25.0])


def test_value_clipping_needs_old_values():
    with pytest.raises(ValueError, match=r"old_value_predictions is None, but value_clipping"):
        losses.value_loss([1.0], [2.0], None, 0.5)


@pytest.mark.parametrize("compiled", [None, False, True])
@pytest.mark.parametrize("extreme", [88.0, 89.0, 100.0, 1e4, 3e38, np.inf, -100.0, -np.inf])
def test_an_extreme_ratio_behind_the_clip_has_no_gradient(rng, extreme, compiled):
    new = np.array([extreme, extreme, 0.1, 0.0], np.float32)
    advantages = np.array([abs(rng.normal()), 0.0, 1.0, -1.0], np.float32)

    def loss_and_gradient(new, advantages):
        with tf.GradientTape() as tape:
            tape.watch(new)
            loss, _ = losses.surrogate_loss(new, tf.zeros(4), advantages, 0.2)
        return loss, tape.gradient(loss, new)

    function = loss_and_gradient if compiled is None else tf.function(loss_and_gradient, jit_compile=compiled)
    loss, gradient = function(tf.constant(new), tf.constant(advantages))
    bound = 1.2 if extreme > 0 else 0.0
    np.testing.assert_allclose(loss, [-bound * advantages[0], 0, -np.exp(0.1), 1], rtol=1e-5)
    np.testing.assert_allclose(gradient, [0, 0, -np.exp(0.1), 1], rtol=1e-5, atol=1e-30)


def test_a_negative_advantage_pushes_back_from_any_ratio():
    new = tf.constant([1.0, 50.0, 88.0, 89.0])
    with tf.GradientTape() as tape:
        tape.watch(new)
        loss, _ = losses.surrogate_loss(new, tf.zeros(4), -tf.ones(4), 0.2)
    expected = [*np.exp([1.0, 50.0, 88.0]), np.inf]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, new), expected, rtol=1e-5)


def test_without_clipping_only_an_advantage_of_0_is_safe_from_an_infinite_ratio():
    new = tf.constant([100.0, np.inf, 1.0, 100.0])
    with tf.GradientTape() as tape:
        tape.watch(new)
        loss, _ = losses.surrogate_loss(new, tf.zeros(4), tf.constant([0.0, 0.0, 2.0, 1.0]), None)
    np.testing.assert_allclose(loss, [0, 0, -2 * np.e, -np.inf], rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, new), [0, 0, -2 * np.e, -np.inf], rtol=1e-5)


@pytest.mark.parametrize(
    ("log_ratio", "expected"), [(np.inf, np.inf), (-np.inf, np.inf), (100.0, np.inf), (-50.0, 49.0)]
)
def test_approximate_kl_of_extreme_ratios_is_a_number(log_ratio, expected):
    np.testing.assert_allclose(losses.approximate_kl(np.float32([log_ratio]), np.float32([0])), [expected], rtol=1e-6)


def test_clipped_tells_ratios_outside_the_range():
    np.testing.assert_array_equal(losses.clipped(tf.constant([0.7, 0.9, 1.0, 1.1, 1.3]), 0.2), [1, 0, 0, 0, 1])


def test_approximate_kl_is_unbiased_and_never_negative(rng):
    logits = rng.normal(size=(2, 5))
    old, new = (oracles.Categorical(x, outer_rank=0) for x in logits)
    estimates = losses.approximate_kl(new.log_p, old.log_p).numpy()
    assert (estimates >= 0).all()
    np.testing.assert_allclose((np.exp(old.log_p) * estimates).sum(), old.kl(new), rtol=1e-6)


@pytest.mark.parametrize(("mean_kl", "expected"), [(0.01, 0.0), (0.02, 0.0), (0.05, 1000 * 0.03**2)])
def test_kl_cutoff_loss(mean_kl, expected):
    np.testing.assert_allclose(losses.kl_cutoff_loss(tf.constant(mean_kl), 0.02, 1000.0), expected, rtol=1e-5)


def test_kl_cutoff_gradient():
    mean_kl = tf.constant([0.01, 0.05])
    with tf.GradientTape() as tape:
        tape.watch(mean_kl)
        loss = losses.kl_cutoff_loss(mean_kl, 0.02, 1000.0)
    np.testing.assert_allclose(tape.gradient(loss, mean_kl), [0.0, 2 * 1000 * 0.03], rtol=1e-5)


def test_weighted_mean_divides_by_all_entries(rng):
    loss, weights = rng.normal(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(losses.weighted_mean(loss, weights), np.sum(loss * weights) / 12, rtol=1e-5)


def test_l2_loss(rng):
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (4,))]
    expected = 0.3 * sum(np.sum(a**2) for a in arrays)
    np.testing.assert_allclose(losses.l2_loss([tf.Variable(a) for a in arrays], 0.3), expected, rtol=1e-5)
    assert losses.l2_loss([], 0.3) == 0
