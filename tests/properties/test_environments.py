"""Environments with any spaces and any pattern of episodes: time steps, drivers and buffers keep every step."""

import gymnasium as gym
import numpy as np
import pytest
import strategies
import tensorflow as tf
from hypothesis import strategies as st
from strategies import FIRST, LAST, MID, generators, holds_for
from toy_environments import CountingPolicy

from ppo_agent.drivers import (
    DynamicEpisodeDriver,
    DynamicStepDriver,
    EpisodeStatistics,
    GymnasiumEnvironment,
    UniformReplayBuffer,
)

GO_ON, TERMINATE, TRUNCATE = range(3)
# What happens in the steps of an environment, over and over.
SCRIPTS = st.lists(
    st.lists(st.sampled_from([GO_ON, GO_ON, TERMINATE, TRUNCATE]), min_size=1, max_size=5), min_size=1, max_size=3
)


class Scripted(gym.Env):
    """Ends its episodes as the script says; the reward counts the steps since the start."""

    def __init__(self, script, observations, actions, rng):
        self.script, self.rng = script, rng
        self.observation_space, self.action_space = observations, actions
        self.steps, self.seen = 0, []

    def observe(self):
        self.observation_space.seed(int(self.rng.integers(2**31)))
        self.seen.append(self.observation_space.sample())
        return self.seen[-1]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(tf.nest.map_structure(np.asarray, action))
        event = self.script[self.steps % len(self.script)]
        self.steps += 1
        return self.observe(), float(self.steps), event == TERMINATE, event == TRUNCATE, {}


def expected_steps(script, count):
    """(step type, reward, discount) of `count` time steps of one environment."""
    rows, step_type, steps = [(FIRST, 0.0, 1.0)], FIRST, 0
    while len(rows) < count:
        if step_type == LAST:
            step_type = FIRST
            rows.append((FIRST, 0.0, 1.0))
            continue
        event = script[steps % len(script)]
        steps += 1
        step_type = LAST if event else MID
        rows.append((step_type, float(steps), 0.0 if event == TERMINATE else 1.0))
    return rows


def make_environment(scripts, rng, observations=None, actions=None):
    """The vector environment and the single ones."""
    observations = observations or gym.spaces.Box(-1, 1, (2,), np.float32)
    singles = [Scripted(script, observations, actions or gym.spaces.Discrete(5), rng) for script in scripts]
    remaining = iter(singles)
    return GymnasiumEnvironment(lambda: next(remaining), num_environments=len(scripts), vectorization="sync"), singles


@pytest.mark.filterwarnings("ignore:.*length of a multi-dimensional MultiDiscrete")
@holds_for(scripts=SCRIPTS, rng=generators(), observations=strategies.spaces(), actions=strategies.action_spaces())
def test_time_steps_of_any_spaces_and_episodes(scripts, rng, observations, actions):
    env, singles = make_environment(scripts, rng, observations, actions)
    spec = env.action_spec()
    zeros = tf.nest.map_structure(
        lambda s: np.broadcast_to(s.minimum, (len(scripts), *s.shape)).astype(s.dtype.as_numpy_dtype), spec
    )
    rows = [env.reset_numpy()] + [env.step_numpy(zeros) for _ in range(8)]
    expected = np.array([expected_steps(script, 9) for script in scripts])
    for t, row in enumerate(rows):
        np.testing.assert_array_equal(np.stack(row[:3], axis=1), expected[:, t])
        assert [x.dtype for x in row[:3]] == [np.int32, np.float32, np.float32]
        tf.nest.assert_same_structure(row.observation, env.observation_spec())
        for leaf, s in zip(tf.nest.flatten(row.observation), tf.nest.flatten(env.observation_spec()), strict=True):
            assert (leaf.shape, leaf.dtype) == ((len(scripts), *s.shape), s.dtype.as_numpy_dtype)
        for b, single in enumerate(singles):
            for x, y in zip(tf.nest.flatten(row.observation), tf.nest.flatten(single.seen[t]), strict=True):
                np.testing.assert_array_equal(x[b], np.asarray(y, x.dtype))


@holds_for(
    scripts=SCRIPTS, rng=generators(), count=st.integers(1, 9), runs=st.integers(1, 3), bootstrap_row=st.booleans(),
    by_episodes=st.booleans(),
)  # fmt: skip
def test_drivers_collect_every_step_once_and_as_many_as_asked(scripts, rng, count, runs, bootstrap_row, by_episodes):
    by_episodes = by_episodes and all(any(script) for script in scripts)
    env, singles = make_environment(scripts, rng)
    policy = CountingPolicy(env.time_step_spec(), env.action_spec())
    buffer = UniformReplayBuffer(policy.trajectory_spec, env.batch_size, max_length=1000)
    statistics = EpisodeStatistics()
    make = DynamicEpisodeDriver if by_episodes else DynamicStepDriver
    number = {"num_episodes" if by_episodes else "num_steps": count}
    driver = make(env, policy, [buffer.add_batch, statistics], bootstrap_row=bootstrap_row, **number)
    blocks, current = [], ()
    for _ in range(runs):
        current = driver.run(*current)
        rows = tf.nest.map_structure(np.array, buffer.gather_all())
        buffer.clear()
        if bootstrap_row:
            assert (rows.next_step_type[:, -1] == FIRST).all()
            rows = tf.nest.map_structure(lambda x: x[:, :-1], rows)
        blocks.append(rows)
    rows = tf.nest.map_structure(lambda *x: np.concatenate(x, axis=1), *blocks)
    length = rows.step_type.shape[1]
    steps = np.array([expected_steps(script, length + 1) for script in scripts])
    np.testing.assert_array_equal(rows.step_type, steps[:, :-1, 0])
    for index, name in enumerate(("next_step_type", "reward", "discount")):
        np.testing.assert_array_equal(getattr(rows, name), steps[:, 1:, index])
    np.testing.assert_array_equal(rows.observation, [single.seen[:length] for single in singles])
    taken, ended = (steps[:, :-1, 0] != LAST).sum(), (steps[:, 1:, 0] == LAST).sum()
    crossed = (steps[:, :-1, 0] == LAST).sum()
    assert (crossed if by_episodes else taken) >= runs * count
    assert (statistics.num_episodes, statistics.num_environment_steps) == (ended, taken)
