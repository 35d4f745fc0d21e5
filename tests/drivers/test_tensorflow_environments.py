"""The environments in TensorFlow operations against gymnasium's."""

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.drivers import dynamic_episode_driver
from tf_agents.policies import random_tf_policy
from tf_agents.trajectories import time_step as ts
from toy_environments import CountingPolicy

from ppo_agent.drivers import (
    DynamicStepDriver,
    GymnasiumEnvironment,
    TensorFlowEnvironment,
    TFAcrobot,
    TFCartPole,
    TFPendulum,
    UniformReplayBuffer,
)

FIRST, MID, LAST = 0, 1, 2
TWINS = [(TFCartPole, "CartPole-v1"), (TFPendulum, "Pendulum-v1"), (TFAcrobot, "Acrobot-v1")]
ENVIRONMENTS = [pair[0] for pair in TWINS]


def random_actions(env, rng):
    """Also beyond the bounds of a box."""
    spec, size = env.action_spec(), env.batch_size
    if spec.dtype.is_integer:
        return rng.integers(0, spec.maximum + 1, size)
    return rng.uniform(-3, 3, [size, *spec.shape]).astype(np.float32)


def balancing(state, rng):
    """Keeps most CartPoles up to the time limit."""
    return np.where(rng.random(len(state)) < 0.1, rng.integers(0, 2, len(state)), state[:, 2] + state[:, 3] > 0)


def swinging(state, rng):
    """Brings most Acrobots up in time."""
    return np.where(rng.random(len(state)) < 0.1, 1, np.where(state[:, 3] > 0, 2, 0))


def gymnasium_step(env, state, action):
    """Steps a gymnasium environment from the given state; returns its next state too."""
    env.unwrapped.state = state.copy()
    observation, reward, terminated, truncated, _ = env.step(action)
    return observation, reward, terminated, truncated, env.unwrapped.state


def compare_step(twin, state, action, step, index, new_state):
    """Compares a step of one environment with gymnasium's from the same state; returns (terminated, truncated)."""
    observation, reward, terminated, truncated, next_state = gymnasium_step(twin, state, action)
    np.testing.assert_allclose(step.observation[index], observation, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new_state, next_state, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(step.reward[index], reward, rtol=1e-6)
    assert step.discount[index] == (0.0 if terminated else 1.0)
    assert step.step_type[index] == (LAST if terminated or truncated else MID)
    return terminated, truncated


@pytest.mark.parametrize(
    ("make", "name", "act", "ends"),
    [
        (TFCartPole, "CartPole-v1", None, {"terminated"}),
        (TFCartPole, "CartPole-v1", balancing, {"terminated", "truncated"}),
        (TFPendulum, "Pendulum-v1", None, {"truncated"}),
        (TFAcrobot, "Acrobot-v1", None, {"truncated"}),
        (TFAcrobot, "Acrobot-v1", swinging, {"terminated"}),
    ],
)
def test_steps_are_those_of_gymnasium(make, name, act, ends, rng):
    """From equal states, over 5,000 random steps of each, with the ends and starts of episodes."""
    size, seen = 8, set()
    env, twins = make(num_environments=size, seed=1), [gym.make(name) for _ in range(size)]
    time_step = env.reset()
    for twin in twins:
        twin.reset()
    for _ in range(625):
        state = env._state.numpy()
        actions = act(state, rng) if act else random_actions(env, rng)
        before, time_step = time_step, env.step(actions)
        step, new_state = tf.nest.map_structure(np.array, time_step), env._state.numpy()
        for index, twin in enumerate(twins):
            if before.step_type[index] == LAST:
                twin.reset()
                assert (step.step_type[index], step.reward[index], step.discount[index]) == (FIRST, 0.0, 1.0)
                assert step.observation[index] in env.observation_space
                continue
            end = compare_step(twin, state[index], actions[index], step, index, new_state[index])
            seen |= {kind for kind, has_ended in zip(("terminated", "truncated"), end, strict=True) if has_ended}
    assert seen >= ends


@pytest.mark.parametrize(("make", "name"), TWINS)
def test_specs_are_those_of_gymnasium(make, name):
    env = make(num_environments=3, seed=0)
    with GymnasiumEnvironment(name, num_environments=3) as expected:
        assert env.time_step_spec() == expected.time_step_spec()
        assert env.action_spec() == expected.action_spec()
        assert env.batch_size == expected.batch_size
    assert env.max_episode_steps == gym.spec(name).max_episode_steps


@pytest.mark.parametrize(("make", "name"), TWINS)
def test_episodes_start_as_in_gymnasium(make, name):
    """Uniformly in the same box, independently in each environment and episode."""
    env, twin = make(num_environments=1000, seed=3), gym.make(name)

    def gymnasium_start(seed=None):
        twin.reset(seed=seed)
        return twin.unwrapped.state

    states = np.concatenate([env.reset() and env._state.numpy() for _ in range(4)])
    expected = np.array([gymnasium_start(0), *(gymnasium_start() for _ in range(3999))])
    for statistic in (np.min, np.max, np.mean, np.std):
        spread = np.ptp(expected, axis=0)
        np.testing.assert_array_less(np.abs(statistic(states, 0) - statistic(expected, 0)) / spread, 0.03)
    assert len(np.unique(states[:, 0])) == len(states)
    assert np.abs(np.corrcoef(states.T) - np.eye(states.shape[1])).max() < 0.07


def rollout(env, actions, step=None):
    """Returns observations, step types and rewards over time."""
    steps = [env.reset(), *((step or env.step)(action) for action in actions)]
    return tf.nest.map_structure(lambda *x: np.stack(x), *steps)


@pytest.mark.parametrize("make", ENVIRONMENTS)
def test_equal_seeds_give_equal_runs_in_a_graph_and_under_xla(make, rng):
    env = make(num_environments=4, seed=5)
    actions = [random_actions(env, rng) for _ in range(210)]
    expected = rollout(env, actions)
    assert (expected.step_type == FIRST).sum() > (0 if make is TFAcrobot else 4)
    for jit in (False, True):
        again = make(num_environments=4, seed=5)
        found = rollout(again, actions, tf.function(again.step, jit_compile=jit, autograph=False))
        np.testing.assert_array_equal(found.step_type, expected.step_type)
        np.testing.assert_allclose(found.observation, expected.observation, rtol=1e-5, atol=1e-5)
    other = rollout(make(num_environments=4, seed=6), actions)
    assert not np.array_equal(other.observation[0], expected.observation[0])


def test_without_a_seed_the_seed_of_tensorflow_decides():
    def start():
        return TFCartPole().reset().observation.numpy()

    tf.random.set_seed(7)
    first, second = start(), start()
    assert not np.array_equal(first, second)
    tf.random.set_seed(7)
    np.testing.assert_array_equal(start(), first)


@pytest.mark.parametrize("make", ENVIRONMENTS)
def test_begins_by_itself(make, rng):
    env = make(num_environments=2, seed=0)
    time_step = env.current_time_step()
    np.testing.assert_array_equal(time_step.step_type, [FIRST, FIRST])
    np.testing.assert_array_equal(env.current_time_step().observation, time_step.observation)
    np.testing.assert_array_equal(env.step(random_actions(env, rng)).step_type, [MID, MID])
    other = make(num_environments=2, seed=0)
    np.testing.assert_array_equal(other.step(random_actions(env, rng)).step_type, [FIRST, FIRST])
    step = other.step(random_actions(env, rng))
    for found, expected in zip(other.current_time_step(), step, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("make", ENVIRONMENTS)
def test_a_checkpoint_holds_everything(make, rng, tmp_path):
    env, other = make(num_environments=3, seed=0), make(num_environments=3, seed=1)
    rollout(env, [random_actions(env, rng) for _ in range(30)])
    tf.train.Checkpoint(env=other).restore(tf.train.Checkpoint(env=env).save(tmp_path / "checkpoint"))
    actions = [random_actions(env, rng) for _ in range(200)]
    for action in actions:
        for found, expected in zip(other.step(action), env.step(action), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_the_driver_of_tf_agents():
    env, rows = TFCartPole(num_environments=1, seed=0), []
    policy = random_tf_policy.RandomTFPolicy(env.time_step_spec(), env.action_spec())
    driver = dynamic_episode_driver.DynamicEpisodeDriver(env, policy, [rows.append], num_episodes=2)
    time_step, _ = driver.run(env.reset())
    assert isinstance(time_step, ts.TimeStep)
    assert sum(int(row.is_boundary()[0]) for row in rows) == 2
    assert sum(float(row.reward[0]) for row in rows) == len(rows) - 2


def test_an_environment_of_ones_own():
    class Tick(TensorFlowEnvironment):
        """Counts in a nested state; two actions."""

        max_episode_steps = 2
        observation_space = gym.spaces.Box(0, 10, [1], np.float32)
        action_space = gym.spaces.Dict(a=gym.spaces.Discrete(2), b=gym.spaces.Box(-1, 1, [2], np.float32))

        def _initial_state(self, seed):
            return {"count": tf.zeros([self.batch_size, 1]), "other": tf.zeros(self.batch_size, tf.int64)}

        def _advance(self, state, action):
            new = {"count": state["count"] + 1, "other": state["other"] + action["a"]}
            return new, action["b"][:, 0], tf.zeros(self.batch_size, tf.bool)

        def _observe(self, state):
            return state["count"]

    env = Tick(num_environments=2, seed=0)
    policy = random_tf_policy.RandomTFPolicy(env.time_step_spec(), env.action_spec())
    buffer = UniformReplayBuffer(policy.trajectory_spec, 2)
    DynamicStepDriver(env, policy, [buffer.add_batch], num_steps=8).run()
    rows = buffer.gather_all()
    np.testing.assert_array_equal(rows.observation[0, :, 0], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(rows.discount, np.ones([2, 5]))
    taken = rows.step_type.numpy() != LAST
    np.testing.assert_array_equal(rows.reward.numpy()[taken], rows.action["b"].numpy()[taken][:, 0])


@pytest.mark.parametrize(("name", "value"), [("num_environments", 0), ("num_environments", 2.0), ("seed", -1)])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value}, expected"):
        TFCartPole(**{name: value})


def test_the_boundary_row_ignores_the_action():
    env = TFPendulum(num_environments=2, seed=0)
    env.max_episode_steps = 3
    policy = CountingPolicy(env.time_step_spec(), env.action_spec())
    assert policy.time_step_spec == env.time_step_spec()
    rows = rollout(env, [np.full([2, 1], np.nan if index % 4 == 3 else 1.0, np.float32) for index in range(9)])
    assert np.isfinite(rows.observation).all()
    np.testing.assert_array_equal(rows.step_type[:, 0], [0, 1, 1, 2, 0, 1, 1, 2, 0, 1])


def test_many_environments_and_drivers_are_no_retracing(caplog):
    """TensorFlow counted what each of them traces once as tracings of one function."""
    for size in range(1, 8):
        env, rows = TFCartPole(num_environments=size, seed=0), []
        policy = random_tf_policy.RandomTFPolicy(env.time_step_spec(), env.action_spec())
        env.reset()
        env.step(tf.zeros([size], tf.int64))
        env.current_time_step()
        DynamicStepDriver(env, policy, [rows.append], num_steps=2).run()
        assert rows
    assert "retracing" not in caplog.text
