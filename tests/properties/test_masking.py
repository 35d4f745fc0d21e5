"""Masks: what does not count may be anything."""

import numpy as np
import oracles
import strategies
import tensorflow as tf
from hypothesis import strategies as st
from strategies import FIRST, LAST, episodes, generators, holds_for, masks

from ppo_agent.maths import masking

SHAPE = (3, 8)


@holds_for(steps=episodes(), padding=st.integers(0, 3))
def test_masks_of_rollouts_with_padding(steps, padding):
    step_type, next_step_type, _ = (np.pad(x, [[0, 0], [0, padding]]) for x in steps)
    length = step_type.shape[1] - padding
    transitions = np.asarray(masking.transition_mask(*map(tf.constant, (step_type, next_step_type))))
    np.testing.assert_array_equal(transitions, oracles.transitions(step_type, next_step_type))
    present = np.asarray(masking.observation_mask(*map(tf.constant, (step_type, next_step_type))))
    assert present[:, :length].all()
    assert not present[:, length:].any()
    assert (present | ~transitions).all()


@holds_for(
    step_type=st.lists(st.sampled_from([FIRST, 1, LAST]), min_size=6, max_size=6),
    next_step_type=st.lists(st.sampled_from([FIRST, 1, LAST]), min_size=6, max_size=6),
)
def test_every_transition_has_an_observation_whatever_the_step_types(step_type, next_step_type):
    rows = tf.constant([step_type]), tf.constant([next_step_type])
    assert (masking.observation_mask(*rows).numpy() | ~masking.transition_mask(*rows).numpy()).all()


@holds_for(mask=masks(SHAPE), rng=generators())
def test_moments_are_those_of_the_valid_rows(mask, rng):
    values = strategies.floats_like(rng, SHAPE)
    mean, variance = masking.masked_moments(strategies.spoilt(values, mask, rng), mask)
    kept = values[mask] if mask.any() else np.zeros(1)
    np.testing.assert_allclose(mean, kept.mean(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(variance, kept.var(), rtol=1e-4, atol=1e-4)


@holds_for(mask=masks(SHAPE), rng=generators())
def test_weights_sum_to_the_number_of_rows(mask, rng):
    weights = masking.balanced_weights(mask).numpy()
    np.testing.assert_allclose(weights.sum(), mask.size if mask.any() else 0, rtol=1e-5)
    np.testing.assert_array_equal(weights[~mask], 0)


@holds_for(mask=masks(SHAPE), rng=generators(), factor=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_normalised_advantages(mask, rng, factor, shift):
    values = strategies.floats_like(rng, SHAPE)
    found = masking.normalize_advantages(strategies.spoilt(values, mask, rng), mask).numpy()
    np.testing.assert_array_equal(found[~mask], 0)
    assert np.isfinite(found).all()
    if mask.sum() < 2 or values[mask].std() < 0.1:
        return
    np.testing.assert_allclose(found, oracles.normalized(values, mask), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found[mask].mean(), 0, atol=1e-4)
    other = masking.normalize_advantages(np.float32(factor) * values + np.float32(shift), mask)
    np.testing.assert_allclose(other, found, rtol=1e-2, atol=2e-2)


OFFSETS = st.floats(-6, 8).flatmap(lambda e: st.sampled_from([10.0**e, -(10.0**e)]))
PLAIN = tf.function(masking.normalize_advantages)
COMPILED = tf.function(masking.normalize_advantages, jit_compile=True)


@holds_for(mask=masks(SHAPE), rng=generators(), offset=OFFSETS)
def test_equal_advantages_become_0_however_large(mask, rng, offset):
    values = tf.constant(strategies.spoilt(np.full(SHAPE, offset, np.float32), mask, rng))
    for normalize in (masking.normalize_advantages, PLAIN, COMPILED):
        np.testing.assert_array_equal(normalize(values, tf.constant(mask)), np.zeros(SHAPE))


@holds_for(mask=masks(SHAPE), rng=generators(), offset=OFFSETS, ratio=st.floats(-6, 1))
def test_advantages_far_from_zero_keep_their_distances(mask, rng, offset, ratio):
    values = (offset * (1 + 10.0**ratio * rng.normal(size=SHAPE))).astype(np.float32)
    spoilt = tf.constant(strategies.spoilt(values, mask, rng))
    exact = values[mask].astype(np.float64)
    expected = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-8) if mask.any() else exact
    for normalize in (masking.normalize_advantages, PLAIN, COMPILED):
        found = normalize(spoilt, tf.constant(mask)).numpy()
        np.testing.assert_allclose(found[mask], expected, rtol=1e-3, atol=1e-4)


@holds_for(mask=masks(SHAPE), rng=generators())
def test_nothing_invalid_reaches_a_value_or_a_gradient(mask, rng):
    rows = strategies.floats_like(rng, (*SHAPE, 2))
    spoilt = strategies.spoilt(rows, mask, rng)

    def loss_and_gradient(rows):
        weight = tf.Variable([0.5, -0.5])
        with tf.GradientTape() as tape:
            replaced = masking.replace_invalid_rows({"x": rows}, tf.constant(mask))["x"]
            per_row = tf.reduce_sum(tf.exp(-tf.abs(replaced * weight)), axis=-1)
            loss = tf.reduce_mean(per_row * masking.balanced_weights(mask))
        return loss, tape.gradient(loss, weight)

    if mask.any():
        for x, y in zip(loss_and_gradient(tf.constant(spoilt)), loss_and_gradient(tf.constant(rows)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
