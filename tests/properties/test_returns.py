"""Returns and advantages for any pattern of episodes and any hyper-parameters."""

import numpy as np
import oracles
import strategies
import tensorflow as tf
from hypothesis import assume
from hypothesis import strategies as st
from strategies import LAST, episodes, fractions, generators, holds_for

from ppo_agent.maths import returns as return_ops

TOLERANCE = {"rtol": 2e-4, "atol": 2e-4}


def numbers(rng, shape):
    """Rewards [B, T] and values [B, T + 1]."""
    return strategies.floats_like(rng, shape), strategies.floats_like(rng, (shape[0], shape[1] + 1), 2.0)


def computed(rewards, discounts, next_step_type, values, gamma, lambda_):
    """Returns and advantages [B, T]."""
    rewards, discounts, values = (tf.constant(x) for x in (rewards, np.float32(gamma) * discounts, values))
    cut_rewards, cut = return_ops.cut_at_episode_ends(rewards, discounts, values, next_step_type == LAST)
    returns = return_ops.discounted_returns(cut_rewards, cut, values[:, -1])
    return returns.numpy(), return_ops.generalized_advantages(cut_rewards, cut, values, np.float32(lambda_)).numpy()


def assert_close(found, expected):
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, **TOLERANCE)


@holds_for(steps=episodes(), rng=generators(), gamma=fractions(), lambda_=fractions())
def test_equal_the_slow_loop(steps, rng, gamma, lambda_):
    _, next_step_type, discounts = steps
    rewards, values = numbers(rng, discounts.shape)
    expected = oracles.returns_and_advantages(rewards, discounts, next_step_type, values, gamma, lambda_)
    assert_close(computed(rewards, discounts, next_step_type, values, gamma, lambda_), expected[:2])


@holds_for(steps=episodes(), rng=generators(), gamma=fractions(), lambda_=fractions())
def test_rows_do_not_know_one_another(steps, rng, gamma, lambda_):
    _, next_step_type, discounts = steps
    rewards, values = numbers(rng, discounts.shape)
    order = rng.permutation(len(rewards))
    found = computed(*(x[order] for x in (rewards, discounts, next_step_type, values)), gamma, lambda_)
    expected = computed(rewards, discounts, next_step_type, values, gamma, lambda_)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, y[order])


@holds_for(steps=episodes(shape=(1, 17)), rng=generators(), gamma=fractions(), lambda_=fractions(), which=st.integers())
def test_experience_may_be_split_where_an_episode_ends(steps, rng, gamma, lambda_, which):
    _, next_step_type, discounts = steps
    (ends,) = np.nonzero(next_step_type[0, :-1] == LAST)
    assume(len(ends))
    cut = ends[which % len(ends)] + 1
    rewards, values = numbers(rng, discounts.shape)
    whole = computed(rewards, discounts, next_step_type, values, gamma, lambda_)
    rows = rewards, discounts, next_step_type
    before = computed(*(x[:, :cut] for x in rows), values[:, : cut + 1], gamma, lambda_)
    after = computed(*(x[:, cut:] for x in rows), values[:, cut:], gamma, lambda_)
    assert_close([np.concatenate(parts, axis=1) for parts in zip(before, after, strict=True)], whole)


@holds_for(steps=episodes(), rng=generators(), gamma=fractions())
def test_limits_of_lambda(steps, rng, gamma):
    _, next_step_type, discounts = steps
    rewards, values = numbers(rng, discounts.shape)
    returns, advantages = computed(rewards, discounts, next_step_type, values, gamma, 1.0)
    np.testing.assert_allclose(advantages, returns - values[:, :-1], rtol=1e-3, atol=2e-3)
    _, advantages = computed(rewards, discounts, next_step_type, values, gamma, 0.0)
    difference = rewards + gamma * discounts * values[:, 1:] - values[:, :-1]
    np.testing.assert_allclose(advantages, difference, **TOLERANCE)


@holds_for(steps=episodes(ends=(0, 0, 1)), rng=generators(), gamma=fractions(), lambda_=fractions())
def test_nothing_behind_a_terminal_end_is_seen(steps, rng, gamma, lambda_):
    step_type, next_step_type, discounts = steps
    rewards, values = numbers(rng, discounts.shape)
    clean = computed(rewards, discounts, next_step_type, values, gamma, lambda_)
    boundary = step_type == LAST
    values[:, :-1] = strategies.spoilt(values[:, :-1], ~boundary, rng)
    found = computed(strategies.spoilt(rewards, ~boundary, rng), discounts, next_step_type, values, gamma, lambda_)
    for x, y in zip(found, clean, strict=True):
        np.testing.assert_array_equal(x[~boundary], y[~boundary])


@holds_for(
    steps=episodes(), rng=generators(), gamma=fractions(), lambda_=fractions(), factor=st.sampled_from([-4, 0.5])
)
def test_they_are_linear_in_rewards_and_values(steps, rng, gamma, lambda_, factor):
    _, next_step_type, discounts = steps
    rewards, values = numbers(rng, discounts.shape)
    plain = computed(rewards, discounts, next_step_type, values, gamma, lambda_)
    scaled = computed(
        np.float32(factor) * rewards, discounts, next_step_type, np.float32(factor) * values, gamma, lambda_
    )
    for x, y in zip(scaled, plain, strict=True):
        np.testing.assert_array_equal(x, np.float32(factor) * y)  # Powers of two: not even rounding differs.


def slow_running_returns(rewards, discount, is_first, counts, before):
    result, running = np.zeros(rewards.shape), np.array(before, np.float64)
    for t in range(rewards.shape[1]):
        kept = np.where(is_first[:, t], 0.0, np.where(counts[:, t], discount, 1.0))
        running = kept * running + np.where(counts[:, t], rewards[:, t], 0.0)
        result[:, t] = running
    return result


@holds_for(steps=episodes(), rng=generators(), gamma=fractions(), cut=st.integers(0, 16))
def test_running_returns_equal_the_slow_loop_in_one_call_or_two(steps, rng, gamma, cut):
    step_type, next_step_type, _ = steps
    rewards, before = strategies.floats_like(rng, step_type.shape), strategies.floats_like(rng, step_type.shape[0])
    is_first, counts = step_type == strategies.FIRST, oracles.transitions(step_type, next_step_type)
    rewards = strategies.spoilt(rewards, counts, rng)
    expected = slow_running_returns(np.where(counts, rewards, 0), np.float32(gamma), is_first, counts, before)
    rewards = tf.constant(rewards)
    whole = return_ops.running_returns(rewards, np.float32(gamma), is_first, counts, before)
    np.testing.assert_allclose(whole, expected, **TOLERANCE)
    cut %= rewards.shape[1]
    if cut:
        rows = rewards, is_first, counts
        first = return_ops.running_returns(rewards[:, :cut], np.float32(gamma), *(x[:, :cut] for x in rows[1:]), before)
        second = return_ops.running_returns(
            rewards[:, cut:], np.float32(gamma), *(x[:, cut:] for x in rows[1:]), first[:, -1]
        )
        np.testing.assert_allclose(tf.concat([first, second], axis=1), expected, **TOLERANCE)


@holds_for(mask=strategies.masks((3, 8)), rng=generators())
def test_explained_variance_is_at_most_1_and_sees_valid_rows_only(mask, rng):
    returns, values = strategies.floats_like(rng, (2, 3, 8))
    found = return_ops.explained_variance(
        *(tf.constant(strategies.spoilt(x, mask, rng)) for x in (returns, values)), mask
    ).numpy()
    if mask.sum() < 2:
        assert np.isnan(found)
        return
    assert found <= 1
    np.testing.assert_allclose(found, oracles.explained_variance(returns, values, mask), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(return_ops.explained_variance(returns, returns + 3, mask), 1, atol=1e-3)
