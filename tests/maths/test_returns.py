"""Returns and advantages against plain loops over random rows of several episodes."""

import helpers
import numpy as np
import oracles
import pytest
import tensorflow as tf

from ppo_agent.maths import returns as return_ops


def random_rows(rng, batch=6, length=13, end=0.3, truncated=0.5):
    """Rewards, discounts, next step types [B, T], values [B, T + 1]."""
    _, next_step_type, discounts = helpers.random_steps(rng, batch, length, end, truncated)
    rewards = rng.normal(size=(batch, length)).astype(np.float32)
    values = rng.normal(2.0, 3.0, (batch, length + 1)).astype(np.float32)
    return rewards, discounts, next_step_type, values


def computed(rewards, discounts, next_step_type, values, gamma, lambda_):
    rewards, discounts, values = (tf.constant(x) for x in (rewards, discounts, values))
    cut_rewards, cut = return_ops.cut_at_episode_ends(
        rewards, gamma * discounts, values, next_step_type == helpers.LAST
    )
    returns = return_ops.discounted_returns(cut_rewards, cut, values[:, -1])
    advantages = return_ops.generalized_advantages(cut_rewards, cut, values, lambda_)
    return returns.numpy(), advantages.numpy()


@pytest.mark.parametrize("truncated", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("gamma", "lambda_"), [(0.99, 0.95), (0.9, 0.0), (0.9, 1.0), (1.0, 1.0), (0.0, 0.5), (1.0, 0.3)]
)
def test_equal_the_loop_over_episodes_cut_off_at_both_ends(rng, gamma, lambda_, truncated):
    rows = random_rows(rng, truncated=truncated)
    expected_returns, expected_advantages, _ = oracles.returns_and_advantages(*rows, gamma, lambda_)
    returns, advantages = computed(*rows, gamma, lambda_)
    np.testing.assert_allclose(returns, expected_returns, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(advantages, expected_advantages, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 9, 100])
def test_any_length(rng, length):
    rows = random_rows(rng, batch=3, length=length, end=0.1)
    expected_returns, expected_advantages, _ = oracles.returns_and_advantages(*rows, 0.97, 0.9)
    returns, advantages = computed(*rows, 0.97, 0.9)
    np.testing.assert_allclose(returns, expected_returns, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(advantages, expected_advantages, rtol=2e-5, atol=2e-5)


def test_lambda_one_is_the_monte_carlo_return_minus_the_value(rng):
    rows = random_rows(rng)
    returns, advantages = computed(*rows, 0.95, 1.0)
    np.testing.assert_allclose(advantages, returns - rows[3][:, :-1], atol=1e-4)


def test_lambda_zero_is_the_temporal_difference(rng):
    rewards, discounts, next_step_type, values = random_rows(rng)
    _, advantages = computed(rewards, discounts, next_step_type, values, 0.95, 0.0)
    expected = rewards + 0.95 * discounts * values[:, 1:] - values[:, :-1]
    np.testing.assert_allclose(advantages, expected, atol=1e-5)


def test_gamma_zero_is_the_reward(rng):
    rows = random_rows(rng)
    returns, advantages = computed(*rows, 0.0, 0.7)
    np.testing.assert_allclose(returns, rows[0], atol=1e-6)
    np.testing.assert_allclose(advantages, rows[0] - rows[3][:, :-1], atol=1e-6)


def test_nothing_crosses_the_end_of_an_episode(rng):
    rewards, discounts, next_step_type, values = random_rows(rng, end=0.0)
    next_step_type[:, 5] = helpers.LAST
    before = computed(rewards, discounts, next_step_type, values, 0.99, 0.95)
    rewards[:, 6:] += 100
    values[:, 7:] -= 50
    after = computed(rewards, discounts, next_step_type, values, 0.99, 0.95)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[:, :6], new[:, :6])
        assert np.all(np.abs(old[:, 6:] - new[:, 6:]) > 1)


@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_what_lies_behind_a_terminal_end_may_be_nan(rng, hole):
    rewards, discounts, next_step_type, values = random_rows(rng, end=0.0)
    next_step_type[:, 4], discounts[:, 4] = helpers.LAST, 0.0
    clean = computed(rewards, discounts, next_step_type, values, 0.99, 0.95)
    rewards[:, 5] = values[:, 5] = hole
    for expected, actual in zip(clean, computed(rewards, discounts, next_step_type, values, 0.99, 0.95), strict=True):
        np.testing.assert_array_equal(actual[:, :5], expected[:, :5])
        np.testing.assert_array_equal(actual[:, 6:], expected[:, 6:])


def test_a_terminal_end_gains_nothing_and_a_truncated_one_the_value_of_the_final_observation(rng):
    rewards, discounts, next_step_type, values = random_rows(rng)
    ends = next_step_type == helpers.LAST
    cut_rewards, cut_discounts = return_ops.cut_at_episode_ends(rewards, 0.9 * discounts, values, ends)
    truncated, terminal = ends & (discounts > 0), ends & (discounts == 0)
    assert truncated.any()
    assert terminal.any()
    gain = cut_rewards.numpy() - rewards
    np.testing.assert_allclose(gain[truncated], 0.9 * values[:, 1:][truncated], rtol=1e-4)
    np.testing.assert_array_equal(gain[~truncated], 0)
    np.testing.assert_array_equal(cut_discounts.numpy()[ends], 0)
    np.testing.assert_array_equal(cut_discounts.numpy()[~ends], (np.float32(0.9) * discounts)[~ends])


def test_unknown_shapes_are_accepted(rng):
    rows = random_rows(rng)
    spec = tf.TensorSpec([None, None])
    function = tf.function(return_ops.generalized_advantages, input_signature=[spec, spec, spec, tf.TensorSpec([])])
    advantages = function(rows[0], rows[1], rows[3], tf.constant(0.9))
    np.testing.assert_allclose(
        advantages, return_ops.generalized_advantages(rows[0], rows[1], rows[3], 0.9), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("quality", [0.0, 0.5, 1.0])
def test_explained_variance(rng, quality):
    returns = rng.normal(size=(4, 9)).astype(np.float32)
    values = (quality * returns + (1 - quality) * rng.normal(size=(4, 9))).astype(np.float32)
    mask = rng.random((4, 9)) < 0.7
    expected = oracles.explained_variance(returns, values, mask)
    returns[~mask], values[~mask] = np.nan, 1e9
    np.testing.assert_allclose(return_ops.explained_variance(returns, values, mask), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("offset", [1e3, -1e5, 1e7])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_explained_variance_far_from_zero(rng, offset, jit_compile):
    returns = (offset + rng.normal(0, 20, (64, 9))).astype(np.float32)
    values = (returns + rng.normal(0, 10, (64, 9))).astype(np.float32)
    mask = rng.random((64, 9)) < 0.7
    expected = oracles.explained_variance(returns.astype(np.float64), values.astype(np.float64), mask)
    function = tf.function(return_ops.explained_variance, jit_compile=jit_compile)
    np.testing.assert_allclose(function(returns, values, mask), expected, rtol=1e-5)


@pytest.mark.parametrize("constant", [1.0, 123.456, -10000.1, 1e8])
def test_explained_variance_of_constant_returns_is_unknown(constant):
    returns, ones = tf.fill([20, 30], constant), tf.ones([20, 30])
    assert np.isnan(return_ops.explained_variance(returns, tf.random.normal([20, 30]), ones))
