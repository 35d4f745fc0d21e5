"""The terms of the objective for any numbers, and the whole loss for any experience."""

import numpy as np
import oracles
import tensorflow as tf
from hypothesis import strategies as st
from strategies import coefficients, generators, holds_for

from ppo_agent.maths import losses

SHAPE = (3, 8)


def log_probabilities(rng, distance):
    """Old and new ones; `distance` is that between them."""
    old = rng.normal(-1.0, 1.0, SHAPE)
    return old, old + rng.normal(0.0, distance, SHAPE)


@holds_for(rng=generators(), distance=st.floats(0, 5), clipping=coefficients(2.0))
def test_the_surrogate_is_the_textbooks_and_clipping_never_helps(rng, distance, clipping):
    old, new = log_probabilities(rng, distance)
    advantages = rng.normal(size=SHAPE)
    loss, parts = losses.surrogate_loss(new, old, advantages, clipping or None)
    np.testing.assert_allclose(loss, oracles.surrogate(new, old, advantages, clipping), rtol=1e-6, atol=1e-9)
    assert (loss.numpy() >= -parts.objective.numpy()).all()
    assert (parts.importance_ratio.numpy() >= 0).all()


def _loss_and_gradient(new, old, advantages):
    with tf.GradientTape() as tape:
        tape.watch(new)
        loss, _ = losses.surrogate_loss(new, old, advantages, 0.2)
    return loss, tape.gradient(loss, new)


SURROGATES = [_loss_and_gradient, *(tf.function(_loss_and_gradient, jit_compile=jit) for jit in (False, True))]


@holds_for(rng=generators(), extreme=st.floats(width=32, allow_nan=False), spoilt_share=st.floats(0, 1))
def test_no_ratio_makes_a_gradient_nan(rng, extreme, spoilt_share):
    old, new = (x.astype(np.float32) for x in log_probabilities(rng, 0.3))
    new[rng.random(SHAPE) < spoilt_share] = extreme
    with np.errstate(over="ignore"):
        ratio = np.exp(new.astype(np.float64) - old).astype(np.float32)
    advantages = rng.normal(size=SHAPE).astype(np.float32) * (rng.random(SHAPE) < 0.7)
    advantages[~np.isfinite(ratio)] = np.abs(advantages[~np.isfinite(ratio)])
    moves = (advantages != 0) & np.where(advantages > 0, ratio < 1.2, ratio > 0.8)
    with np.errstate(invalid="ignore"):
        expected = np.where(moves, -ratio * advantages, 0)
    for function in SURROGATES:
        loss, gradient = (x.numpy() for x in function(*map(tf.constant, (new, old, advantages))))
        assert np.isfinite(loss).all()
        near = np.minimum(np.abs(ratio - 1.2), np.abs(ratio - 0.8)) < 1e-4  # Rounding decides.
        np.testing.assert_allclose(gradient[~near], expected[~near], rtol=1e-4, atol=1e-30)


@holds_for(rng=generators(), distance=st.floats(0, 5), clipping=coefficients(2.0), wider=coefficients(2.0))
def test_less_is_clipped_by_a_wider_range(rng, distance, clipping, wider):
    old, new = log_probabilities(rng, distance)
    ratio = np.exp(new - old)
    narrow, wide = losses.clipped(ratio, clipping).numpy(), losses.clipped(ratio, clipping + wider).numpy()
    assert set(np.unique(narrow)) <= {0, 1}
    assert (wide <= narrow).all()


@holds_for(rng=generators(), distance=st.floats(0, 20))
def test_approximate_kl_is_never_negative_and_nothing_at_the_same_policy(rng, distance):
    old, new = (x.astype(np.float32) for x in log_probabilities(rng, distance))
    assert (losses.approximate_kl(new, old).numpy() >= 0).all()
    np.testing.assert_array_equal(losses.approximate_kl(old, old), 0)


@holds_for(rng=generators(), clipping=coefficients(5.0))
def test_the_value_loss_is_the_textbooks_and_clipping_never_lowers_it(rng, clipping):
    values, returns, old = rng.normal(0, 3, (3, *SHAPE))
    loss = losses.value_loss(values, returns, old, clipping).numpy()
    np.testing.assert_allclose(loss, oracles.value_loss(values, returns, old, clipping), rtol=1e-6, atol=1e-9)
    assert (loss >= (values - returns) ** 2 - 1e-9).all()


@holds_for(mean_kl=st.floats(0, 10), cutoff=coefficients(), coefficient=coefficients(1000.0))
def test_the_kl_cutoff_is_nothing_below_the_threshold_and_grows_beyond_it(mean_kl, cutoff, coefficient):
    at, beyond = (losses.kl_cutoff_loss(np.float64(x), cutoff, coefficient).numpy() for x in (mean_kl, mean_kl + 1))
    assert at >= 0
    assert beyond >= at
    if mean_kl <= cutoff:
        assert at == 0
