"""Environments in processes: the same trajectories, stepped in two halves."""

import functools
import time

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from tf_agents.trajectories import policy_step
from toy_environments import Counter, RememberingPolicy

from ppo_agent.drivers import DynamicStepDriver, GymnasiumEnvironment, UniformReplayBuffer
from ppo_agent.drivers.rollouts.python_loop import collect_in_python, groups_of
from ppo_agent.drivers.rollouts.rollout import StopRule
from ppo_agent.drivers.vector_envs import factory, processes


class Nested(Counter):
    """Observations and actions are nested; the reward is the sum of the actions."""

    def __init__(self):
        super().__init__(length=3)
        self.observation_space = spaces.Dict({"x": spaces.Box(-1.0, 1e3, [2]), "kind": spaces.Discrete(9)})
        self.action_space = spaces.Tuple((spaces.Discrete(3, start=1), spaces.Box(-1.0, 1.0, [2])))

    def step(self, action):
        assert self.action_space.contains(action), action
        self.step_index += 1
        observation, terminated, truncated, info = self._observation(), self.step_index >= self.length, False, {}
        return observation, float(action[0] + action[1].sum()), terminated, truncated, info

    def _observation(self):
        return {"x": np.array([self.step_index, 0.5], np.float32), "kind": self.step_index}


class Sleeper(Counter):
    def step(self, action):
        time.sleep(2e-3)
        return super().step(action)


class Broken(Counter):
    def step(self, action):
        raise RuntimeError("the simulator is gone")


class RunningSum:
    """A policy with a state, whose actions depend on observation and state; it draws nothing."""

    def initial_state(self, batch_size):
        return (np.zeros([batch_size, 1], np.float32),)

    def act(self, time_step, state):
        steps = np.abs(time_step.observation).sum(axis=1, keepdims=True)
        total = np.where(time_step.step_type[:, None] == 0, 0.0, state[0]) + steps
        total = total.astype(np.float32)
        return (10 * total[:, 0]).astype(np.int64) % 2, {"total": total}, (total,)


def pair(env_name, num_environments, **keywords):
    """The same environments in this process and in others."""
    return tuple(
        GymnasiumEnvironment(env_name, num_environments=num_environments, vectorization=kind, **keywords)
        for kind in ("sync", "async")
    )


@pytest.mark.parametrize("num_environments", [4, 6])
def test_processes_give_the_rows_of_one_process(num_environments, rng):
    sync, processes = pair("CartPole-v1", num_environments, seed=7)
    with sync, processes:
        assert len(processes.groups) == 2
        tf.nest.map_structure(np.testing.assert_array_equal, processes.current_numpy(), sync.current_numpy())
        for _ in range(60):
            action = rng.integers(0, 2, num_environments)
            expected, found = sync.step_numpy(action), processes.step_numpy(action)
            tf.nest.map_structure(np.testing.assert_array_equal, found, expected)
        tf.nest.map_structure(np.testing.assert_array_equal, processes.current_numpy(), found)


def test_nested_spaces_in_processes(rng):
    sync, processes = pair(Nested, 4)
    with sync, processes:
        for _ in range(8):
            action = (rng.integers(0, 3, 4), rng.uniform(-1, 1, [4, 2]).astype(np.float32))
            expected, found = sync.step_numpy(action), processes.step_numpy(action)
            tf.nest.map_structure(np.testing.assert_allclose, found, expected)


@pytest.mark.parametrize("counts_boundaries", [False, True])
@pytest.mark.parametrize("limit", [1, 40, 10_000])
def test_a_rollout_in_halves_is_that_of_all_together(counts_boundaries, limit):
    sync, processes = pair("CartPole-v1", 4, seed=3)
    stop = StopRule(5 if counts_boundaries else 150, limit, counts_boundaries)
    with sync, processes:
        policy = RunningSum()
        together = (sync.current_numpy(), policy.initial_state(4))
        halves = (processes.current_numpy(), policy.initial_state(4))
        for _ in range(3):
            expected = collect_in_python(groups_of(sync), policy, *together, stop)
            found = collect_in_python(groups_of(processes), policy, *halves, stop)
            tf.nest.map_structure(np.testing.assert_array_equal, found, expected)
            together, halves = expected[1:], found[1:]


class GraphSum(RememberingPolicy):
    """A policy with a state that NumPy cannot mirror."""

    def _action(self, time_step, policy_state, seed):
        kept = tf.where(time_step.is_first(), 0.0, policy_state)
        total = kept + tf.reduce_sum(tf.abs(time_step.observation), -1)
        return policy_step.PolicyStep(tf.cast(10 * total, tf.int64) % 2, total, ())


def test_a_policy_of_tensorflow_acts_for_halves_too():
    expected, found = pair("CartPole-v1", 6, seed=3)
    results = []
    for env in (expected, found):
        with env:
            policy = GraphSum(env.time_step_spec(), env.action_spec())
            buffer = UniformReplayBuffer(policy.trajectory_spec, 6)
            driver = DynamicStepDriver(env, policy, [buffer.add_batch], num_steps=150)
            results.append((driver.run(*driver.run()), buffer.gather_all()))
    tf.nest.map_structure(np.testing.assert_array_equal, *results)
    assert np.ptp(results[0][1].action) == 1


def test_a_rollout_of_no_steps():
    with GymnasiumEnvironment("CartPole-v1", num_environments=4, seed=0, vectorization="async") as env:
        start = env.current_numpy()
        rollout, time_step, state = collect_in_python(env.groups, RunningSum(), start, (), StopRule(0, 10, False))
    assert rollout.action is None
    assert rollout.time_steps.step_type.shape == (4, 1)
    assert time_step is start
    assert state == ()


class FakeGroup:
    """Tells in which order things happen."""

    num_environments = 1

    def __init__(self, name, log, time_step):
        self._name, self._log, self._time_step = name, log, time_step

    def send(self, action):
        self._log.append(f"send {self._name}")

    def receive(self):
        self._log.append(f"receive {self._name}")
        return self._time_step


def test_one_half_steps_while_the_policy_acts_for_the_other():
    log = []
    with GymnasiumEnvironment("CartPole-v1", num_environments=2, seed=0) as env:
        both = env.reset_numpy()
    one = tf.nest.map_structure(lambda x: x[:1], both)
    groups = [FakeGroup(name, log, one) for name in "ab"]
    collect_in_python(groups, RunningSum(), both, RunningSum().initial_state(2), StopRule(100, 2, False))
    assert log == ["send a", "send b", "receive a", "send a", "receive b", "send b", "receive a", "receive b"]


@pytest.mark.parametrize(
    ("size", "most", "expected"), [(8, 2, 2), (8, 3, 2), (7, 2, 1), (7, 8, 7), (2, 64, 2), (6, 1, 1)]
)
def test_groups_are_equal(size, most, expected):
    assert processes.group_count(size, most) == expected


def test_number_of_processes(monkeypatch):
    monkeypatch.setattr(processes, "num_cores", lambda: 4)
    with GymnasiumEnvironment(Counter, num_environments=12, vectorization="async") as env:
        started = env.gymnasium_env.processes
        assert len(started) == 4
        assert [half.num_envs for half in env.gymnasium_env.halves] == [6, 6]
    assert not any(process.is_alive() for process in started)


def test_frames_of_environments_in_processes():
    keywords = {"env_kwargs": {"render_mode": "rgb_array"}, "vectorization": "async"}
    with GymnasiumEnvironment("CartPole-v1", num_environments=4, **keywords) as env:
        env.reset_numpy()
        frames = env.render()
    assert frames.shape[0] == 4
    assert frames.shape[-1] == 3
    assert frames.dtype == np.uint8


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_error_in_a_process_comes_up_here(capfd):
    env = GymnasiumEnvironment(Broken, num_environments=4, vectorization="async")
    env.reset_numpy()
    with pytest.raises(RuntimeError, match="the simulator is gone"):
        env.step_numpy(np.zeros(4, np.int64))
    env.close()
    capfd.readouterr()


@pytest.fixture
def slow_id():
    name = "SleeperOfTheTests-v0"
    gym.register(name, entry_point=Sleeper)
    yield name
    del gym.registry[name]


def test_auto_takes_processes_for_slow_environments(slow_id, monkeypatch):
    monkeypatch.setattr(processes, "num_cores", lambda: 2)
    with GymnasiumEnvironment(slow_id, num_environments=4) as env:
        assert isinstance(env.gymnasium_env, processes.HalvedVectorEnv)
    with GymnasiumEnvironment(slow_id, num_environments=3) as env:
        assert isinstance(env.gymnasium_env, SyncVectorEnv)
    with GymnasiumEnvironment("Acrobot-v1", num_environments=4) as env:
        assert isinstance(env.gymnasium_env, SyncVectorEnv)
    monkeypatch.setattr(processes, "num_cores", lambda: 1)
    with GymnasiumEnvironment(slow_id, num_environments=4) as env:
        assert isinstance(env.gymnasium_env, SyncVectorEnv)


def test_the_measurement_leaves_no_trace(slow_id, monkeypatch):
    monkeypatch.setattr(factory, "WORTH_PROCESSES_S", 1e9)
    with GymnasiumEnvironment(slow_id, num_environments=4) as env:
        observation = env.reset_numpy().observation
    np.testing.assert_array_equal(observation, np.zeros([4, 2]))  # [step, episode]


def test_time_of_a_step():
    assert 2e-3 <= factory.step_seconds(Sleeper()) < 0.1
    assert factory.step_seconds(Broken()) == 0.0


def test_both_halves_are_seeded_one_after_the_other():
    make = functools.partial(gym.make, "CartPole-v1")
    reference = SyncVectorEnv([make] * 4)
    expected, _ = reference.reset(seed=11)
    reference.close()
    with GymnasiumEnvironment(make, num_environments=4, seed=11, vectorization="async") as env:
        np.testing.assert_array_equal(env.reset_numpy().observation, expected)
