"""Rewards that are normalised by the standard deviation of the discounted returns."""

import helpers
import numpy as np
import pytest
import tensorflow as tf

from ppo_agent import PPOClipAgent, networks
from ppo_agent.drivers import DynamicStepDriver, GymnasiumEnvironment, UniformReplayBuffer
from ppo_agent.maths import returns

GAMMA = 0.9


def loop(rewards, is_first, counts, before):
    """The same with two loops."""
    result = np.zeros_like(rewards)
    for row in range(len(rewards)):
        running = before[row]
        for step in range(rewards.shape[1]):
            if is_first[row, step]:
                running = 0.0
            if counts[row, step]:
                running = rewards[row, step] + (0.0 if is_first[row, step] else GAMMA) * running
            result[row, step] = running
    return result


@pytest.mark.parametrize("length", [1, 2, 13])
def test_running_returns(rng, length):
    shape = (6, length)
    rewards, is_first, counts = rng.normal(size=shape), rng.random(shape) < 0.2, rng.random(shape) < 0.7
    before = rng.normal(size=6)
    given = np.where(counts, rewards, np.nan).astype(np.float32)
    actual = returns.running_returns(given, GAMMA, is_first, counts, before.astype(np.float32))
    np.testing.assert_allclose(actual, loop(rewards, is_first, counts, before), rtol=1e-5, atol=1e-6)


def make_agent(env):
    nets = (
        networks.ActorNetwork(env.observation_spec(), env.action_spec(), (4,)),
        networks.ValueNetwork(env.observation_spec(), (4,)),
    )
    return PPOClipAgent(
        env.time_step_spec(), env.action_spec(), tf.keras.optimizers.Adam(1e-3), *nets, importance_ratio_clipping=0.2,
        discount_factor=GAMMA, num_epochs=1, normalize_rewards_by="return",
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )  # fmt: skip


@pytest.mark.parametrize("bootstrap_row", [True, False])
def test_statistics_are_those_of_a_run_without_breaks(bootstrap_row):
    """As `VecNormalize` computes them, environment after environment; episodes go on from call to call."""
    collected = []
    with GymnasiumEnvironment("CartPole-v1", num_environments=3, seed=0) as env:
        agent = make_agent(env)
        buffer = UniformReplayBuffer(agent.collect_data_spec, 3, 100)
        driver = DynamicStepDriver(
            env, agent.collect_policy, [buffer.add_batch], num_steps=3 * 17, bootstrap_row=bootstrap_row
        )
        state = (None, None)
        for _ in range(4):
            state = driver.run(*state)
            experience = buffer.gather_all()
            buffer.clear()
            collected.append(tf.nest.map_structure(np.asarray, experience))
            agent.train(experience)
    seen = []
    for row in range(3):
        running = 0.0
        for part in collected:
            for first, last, reward in zip(
                part.step_type[row], part.next_step_type[row], part.reward[row], strict=True
            ):
                if first == 2 or last == 0:
                    continue
                running = reward + (0.0 if first == 0 else GAMMA * running)
                seen.append(running)
    assert sum(int((part.next_step_type == 2).sum()) for part in collected) > 3
    normalizer = agent._reward_normalizer
    assert float(normalizer._count[0]) == pytest.approx(len(seen), rel=1e-5)
    assert float(normalizer._avg[0]) == pytest.approx(np.mean(seen), rel=1e-4)
    variance = float(normalizer._m2[0]) / float(normalizer._count[0])
    assert variance == pytest.approx(np.var(seen), rel=1e-3)
    # Rewards of 1 are divided by their standard deviation.
    normalized = agent._normalized_rewards(tf.ones([1, 1]))
    assert float(normalized) == pytest.approx(1 / np.sqrt(variance + 1e-3), rel=1e-5)


def test_another_number_of_rows_disturbs_nothing_and_checkpoints_keep_the_sums(rng, tmp_path):
    agent = helpers.make_agent(normalize_rewards_by="return")
    agent.train(helpers.make_experience(agent, rng, batch=4))
    sums = agent._running_return.numpy()
    assert sums.shape == (4,)
    assert np.abs(sums).max() > 0
    agent.train(helpers.make_experience(agent, rng, batch=2))
    np.testing.assert_array_equal(agent._running_return.numpy(), sums)
    path = tf.train.Checkpoint(agent=agent).write(str(tmp_path / "state"))
    other = helpers.make_agent(normalize_rewards_by="return")
    tf.train.Checkpoint(agent=other).restore(path).expect_partial()
    other.create_training_variables(4)
    np.testing.assert_array_equal(other._running_return.numpy(), sums)


def test_a_choice_that_there_is_not():
    with pytest.raises(ValueError, match="normalize_rewards_by is 'returns', expected reward or return"):
        helpers.make_agent(normalize_rewards_by="returns")
