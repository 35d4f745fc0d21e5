"""Masks, masked moments, and how what must not count is kept out of gradients."""

import helpers
import numpy as np
import oracles
import pytest
import tensorflow as tf

from ppo_agent.maths import masking

FIRST, MID, LAST = helpers.FIRST, helpers.MID, helpers.LAST


def test_transition_mask_equals_the_loop(rng):
    step_type, next_step_type, _ = helpers.random_steps(rng, 8, 20)
    expected = oracles.transitions(step_type, next_step_type)
    assert not expected.all()
    np.testing.assert_array_equal(masking.transition_mask(step_type, next_step_type), expected)


def test_transition_mask_of_each_kind_of_row():
    rows = [(FIRST, MID), (MID, MID), (MID, LAST), (FIRST, LAST), (LAST, FIRST), (FIRST, FIRST), (MID, FIRST)]
    mask = masking.transition_mask(*np.array(rows, np.int32).T)
    np.testing.assert_array_equal(mask, [True, True, True, True, False, False, False])


def test_observation_mask_counts_final_observations_and_no_padding():
    rows = [(FIRST, MID), (MID, LAST), (LAST, FIRST), (FIRST, LAST), (LAST, FIRST), (LAST, FIRST), (FIRST, FIRST)]
    step_type, next_step_type = np.array(rows, np.int32).T[:, None]
    mask = masking.observation_mask(step_type, next_step_type)
    np.testing.assert_array_equal(mask, [[True, True, True, True, True, False, False]])


def test_observation_mask_of_rollouts_is_true(rng):
    step_type, next_step_type, _ = helpers.random_steps(rng, 8, 20)
    assert masking.observation_mask(step_type, next_step_type).numpy().all()


@pytest.fixture
def values_and_mask(rng):
    values, mask = rng.normal(3, 2, (4, 9)).astype(np.float32), rng.random((4, 9)) < 0.6
    values[~mask] = np.array([np.nan, np.inf, 1e30])[rng.integers(0, 3, (~mask).sum())]
    return values, mask


def test_masked_moments(values_and_mask):
    values, mask = values_and_mask
    mean, variance = masking.masked_moments(values, mask)
    np.testing.assert_allclose(mean, values[mask].mean(), rtol=1e-5)
    np.testing.assert_allclose(variance, values[mask].var(), rtol=1e-5)
    np.testing.assert_allclose(masking.masked_mean(values, mask.astype(np.float32)), values[mask].mean(), rtol=1e-5)
    np.testing.assert_allclose(masking.mean_of_valid(values, mask), values[mask].mean(), rtol=1e-5)


def test_normalize_advantages(values_and_mask):
    values, mask = values_and_mask
    actual = masking.normalize_advantages(values, mask)
    np.testing.assert_allclose(actual, oracles.normalized(values, mask), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("constant", [123.456, 10000.1, -100.1, 1e8, -1e-6, 3e38])
@pytest.mark.parametrize("shape", [(64, 1), (4, 512), (1, 7)])
def test_equal_advantages_become_exactly_0(rng, constant, shape):
    values, mask = np.full(shape, constant, np.float32), rng.random(shape) < 0.9
    mask[0, 0] = True
    values[~mask] = np.nan
    for jit in (None, False, True):
        normalize = (
            masking.normalize_advantages if jit is None else tf.function(masking.normalize_advantages, jit_compile=jit)
        )
        np.testing.assert_array_equal(normalize(tf.constant(values), tf.constant(mask)), np.zeros(shape))
    mean, variance = masking.masked_moments(values, mask)
    assert mean == np.float32(constant)
    assert variance == 0


def test_moments_far_from_zero(rng):
    values, mask = (1e7 + rng.normal(0, 30, (40, 50))).astype(np.float32), rng.random((40, 50)) < 0.5
    exact = values[mask].astype(np.float64)
    _, variance = masking.masked_moments(values, mask)
    np.testing.assert_allclose(variance, exact.var(), rtol=1e-5)
    expected = (exact - exact.mean()) / exact.std()
    np.testing.assert_allclose(masking.normalize_advantages(values, mask).numpy()[mask], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("jit", [None, False, True])
@pytest.mark.parametrize("draw", [
    lambda rng, shape: 1e20 * rng.normal(size=shape), lambda rng, shape: -3e37 + 1e37 * rng.normal(size=shape),
    lambda rng, shape: np.where(rng.random(shape) < 0.1, 1e25, rng.normal(size=shape)),
    lambda rng, shape: rng.choice([-2e38, 2e38], shape), lambda rng, shape: 1e15 * rng.normal(size=shape),
])  # fmt: skip
def test_advantages_whose_squares_are_infinite(rng, draw, jit):
    """They were all normalised to 0, or NaN."""
    values, mask = draw(rng, (64, 3)).astype(np.float32), rng.random((64, 3)) < 0.8
    values[~mask] = np.nan
    normalize = masking.normalize_advantages
    if jit is not None:
        normalize = tf.function(normalize, jit_compile=jit)
    exact = values[mask].astype(np.float64)
    found = normalize(tf.constant(values), tf.constant(mask)).numpy()
    np.testing.assert_allclose(found[mask], (exact - exact.mean()) / exact.std(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[~mask], 0)


def test_no_valid_row_gives_zeros():
    values, mask = np.full((2, 3), np.nan, np.float32), np.zeros((2, 3), bool)
    assert masking.masked_mean(values, mask) == 0
    assert masking.mean_of_valid(values, mask) == 0
    np.testing.assert_array_equal(masking.normalize_advantages(values, mask), np.zeros((2, 3)))
    np.testing.assert_array_equal(masking.balanced_weights(mask), np.zeros((2, 3)))


def test_balanced_weights_make_a_mean_over_all_rows_one_over_valid_rows(values_and_mask):
    values, mask = values_and_mask
    weights = masking.balanced_weights(mask)
    mean = np.mean(np.where(mask, values, 0) * weights)
    np.testing.assert_allclose(mean, values[mask].mean(), rtol=1e-5)
    np.testing.assert_allclose(np.sum(weights), mask.size, rtol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 1.0])
def test_replace_invalid_rows_keeps_valid_rows_and_copies_them_in_turn_elsewhere(rng, share, jit):
    mask = rng.random((6, 9)) < share
    mask[2, 1] = True
    nest = {"a": rng.normal(size=(6, 9, 2)).astype(np.float32), "b": (np.arange(54).reshape(6, 9),)}
    replace = tf.function(masking.replace_invalid_rows, jit_compile=jit)
    replaced = replace(tf.nest.map_structure(tf.constant, nest), tf.constant(mask))
    for original, result in zip(tf.nest.flatten(nest), tf.nest.flatten(replaced), strict=True):
        np.testing.assert_array_equal(result.numpy()[mask], original[mask])
    values, counts = np.unique(replaced["b"][0], return_counts=True)
    np.testing.assert_array_equal(values, nest["b"][0][mask])
    assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(replaced["a"], nest["a"].reshape(54, 2)[replaced["b"][0].numpy()])


def test_replace_invalid_rows_without_a_valid_row_keeps_shapes():
    replaced = masking.replace_invalid_rows(tf.ones([2, 3, 4]), tf.zeros([2, 3], tf.bool))
    assert replaced.shape == [2, 3, 4]


def test_nan_in_invalid_rows_reaches_no_gradient(rng):
    mask = np.array([[True, False, True]])
    rows = tf.constant(rng.normal(size=(1, 3, 2)).astype(np.float32) * np.array([1, np.nan, 1], np.float32)[:, None])
    weight = tf.Variable([0.5, -0.5])
    with tf.GradientTape() as tape:
        per_row = tf.reduce_sum(tf.math.log(tf.square(masking.replace_invalid_rows(rows, mask) * weight)), axis=-1)
        loss = tf.reduce_mean(per_row * masking.balanced_weights(mask))
    assert np.isfinite(loss)
    assert np.isfinite(tape.gradient(loss, weight)).all()
