"""Our drivers over TF-Agents' `TFPyEnvironment`: stepped in Python, with TF-Agents' own drivers before and after."""

import threading

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.drivers import dynamic_step_driver
from tf_agents.environments import (
    batched_py_environment,
    parallel_py_environment,
    py_environment,
    tf_py_environment,
    wrappers,
)
from tf_agents.metrics import tf_metrics
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts
from toy_environments import CountingPolicy

from ppo_agent.drivers import DynamicEpisodeDriver, DynamicStepDriver, EnvironmentFaultError
from ppo_agent.drivers.environments.py_environment_adapter import PyEnvironmentAdapter, on_arrays

FIRST, LAST = 0, 2


class Lengths(py_environment.PyEnvironment):
    """Episodes of growing lengths; observes [step, episode]; terminates every second time, else is truncated."""

    def __init__(self, length=2, resets=True, dtype=np.float32):
        super().__init__(handle_auto_reset=resets)
        self._length, self._dtype = length, dtype
        self._step_index, self._episode = 0, -1
        self.threads, self.actions = set(), []

    def observation_spec(self):
        return array_spec.ArraySpec([2], np.float32, name="observation")

    def action_spec(self):
        return array_spec.BoundedArraySpec([], np.int64, 0, 4, name="action")

    def _observe(self):
        return np.array([self._step_index, self._episode], self._dtype)

    def _reset(self):
        self.threads.add(threading.get_ident())
        self._step_index, self._episode = 0, self._episode + 1
        return ts.restart(self._observe())

    def _step(self, action):
        self.threads.add(threading.get_ident())
        self.actions.append(action)
        self._step_index += 1
        reward = self._step_index + 0.01 * float(action)
        if self._step_index < self._length + self._episode:
            return ts.transition(self._observe(), reward, 0.9)
        return (ts.termination if self._episode % 2 else ts.truncation)(self._observe(), reward)


def make_single(**kwargs):
    return Lengths(3)


def make_batch(multithreading=True):
    return batched_py_environment.BatchedPyEnvironment([Lengths(n) for n in (2, 3, 5)], multithreading)


def make_parallel():
    helpers.enable_processes()
    return parallel_py_environment.ParallelPyEnvironment([lambda: Lengths(2), lambda: Lengths(4)])


def make_limited():
    return wrappers.TimeLimit(Lengths(30), 4)


KINDS = {"single": make_single, "batch": make_batch, "limited": make_limited}


def policy_for(env):
    return CountingPolicy(env.time_step_spec(), env.action_spec())


def rows_of(driver_class, env, runs=3, **arguments):
    """Rows that an observer sees, and the environment's time step behind them."""
    rows = []
    driver = driver_class(
        env, policy_for(env), [lambda row: rows.append(tf.nest.map_structure(np.array, row))], **arguments
    )
    for _ in range(runs):
        time_step, _ = driver.run()
    current = env.current_time_step()
    for found, expected in zip(tf.nest.flatten(time_step), tf.nest.flatten(current), strict=True):
        np.testing.assert_array_equal(found, expected)
    return tf.nest.map_structure(lambda *x: np.stack(x), *rows), current


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("isolation", [False, True])
def test_rows_are_those_of_the_driver_of_tf_agents(kind, isolation):
    results = []
    for driver_class in (DynamicStepDriver, dynamic_step_driver.DynamicStepDriver):
        env = tf_py_environment.TFPyEnvironment(KINDS[kind](), isolation=isolation)
        results.append(rows_of(driver_class, env, num_steps=17))
    for found, expected in zip(*map(tf.nest.flatten, results), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_the_environment_is_stepped_in_python():
    env = tf_py_environment.TFPyEnvironment(make_batch())
    driver = DynamicStepDriver(env, policy_for(env), num_steps=30)
    driver.run()
    assert isinstance(on_arrays(env), PyEnvironmentAdapter)
    assert driver._array_policy._programs
    assert env.pyenv.envs[0].threads <= {threading.get_ident(), *env.pyenv.envs[0].threads}
    assert len(env.pyenv.envs[2].actions) > 5


class OwnReset(Lengths):
    """Starts an episode early, at its third step."""

    def should_reset(self, current_time_step):
        return self._step_index >= 3 or super().should_reset(current_time_step)


def patched(length):
    env = Lengths(length)
    step = env.step
    env.step = lambda action: step(action)._replace(reward=np.float32(7))
    return env


@pytest.mark.parametrize("make", [Lengths, OwnReset, patched])
def test_time_steps_are_those_of_the_environments_own_stepping(make):
    ours, theirs = (batched_py_environment.BatchedPyEnvironment([make(5), make(2)]) for _ in range(2))
    adapter = PyEnvironmentAdapter(tf_py_environment.TFPyEnvironment(ours))
    adapter.reset_numpy(), theirs.reset()
    seen = []
    for action in np.random.default_rng(0).integers(0, 4, (20, 2)):
        found, expected = adapter.step_numpy(action), theirs.step(action)
        seen.append(expected.step_type[0])
        for x, y in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
            np.testing.assert_array_equal(x, y)
        for ours_now, theirs_now in zip(ours.envs, theirs.envs, strict=True):
            assert ours_now.current_time_step().step_type == theirs_now.current_time_step().step_type
    assert FIRST in seen


def test_processes_and_episodes():
    env = tf_py_environment.TFPyEnvironment(make_parallel())
    try:
        statistics = [
            tf_metrics.NumberOfEpisodes(),
            tf_metrics.EnvironmentSteps(),
            tf_metrics.AverageReturnMetric(batch_size=2),
        ]
        DynamicEpisodeDriver(env, policy_for(env), statistics, num_episodes=6).run()
        assert int(statistics[0].result()) >= 6
    finally:
        env.close()


def test_an_isolated_environment_stays_in_its_thread():
    pyenv = Lengths(3)
    env = tf_py_environment.TFPyEnvironment(pyenv, isolation=True)
    DynamicStepDriver(env, policy_for(env), num_steps=20).run()
    assert len(pyenv.threads) == 1
    assert threading.get_ident() not in pyenv.threads


def test_drivers_take_turns():
    """Each continues where the other stopped."""
    found, expected = [], []
    for rows, classes in (
        (found, (DynamicStepDriver, dynamic_step_driver.DynamicStepDriver) * 2),
        (expected, [DynamicStepDriver] * 4),
    ):
        env = tf_py_environment.TFPyEnvironment(make_batch())
        for driver_class in classes:
            driver_class(
                env, policy_for(env), [lambda row, rows=rows: rows.append(row.observation.numpy())], num_steps=9
            ).run()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("batched", [False, True])
def test_an_environment_that_does_not_reset_itself_is_an_error(batched):
    stuck = Lengths(3, resets=False)
    pyenv = batched_py_environment.BatchedPyEnvironment([Lengths(9), stuck]) if batched else stuck
    env = tf_py_environment.TFPyEnvironment(pyenv)
    with pytest.raises(
        EnvironmentFaultError, match=rf"environment {int(batched)} follows a last step by a step of type 2"
    ):
        DynamicStepDriver(env, policy_for(env), num_steps=100).run()


def test_values_of_another_kind_are_an_error():
    env = tf_py_environment.TFPyEnvironment(Lengths(3, dtype=np.complex64))
    with pytest.raises(
        EnvironmentFaultError,
        match=r"^the environment gave an invalid observation, an array of dtype complex64, expected float32\.$",
    ):
        PyEnvironmentAdapter(env).reset_numpy()


class Constant(py_environment.PyEnvironment):
    """Observes what it was given."""

    def __init__(self, dtype, value):
        super().__init__()
        self._dtype, self._value = dtype, value

    def observation_spec(self):
        return {"a": array_spec.ArraySpec([2], self._dtype, name="a")}

    def action_spec(self):
        return array_spec.BoundedArraySpec([], np.int64, 0, 1)

    def _reset(self):
        return ts.restart({"a": self._value})

    def _step(self, action):
        return ts.transition({"a": self._value}, 1.0)


@pytest.mark.parametrize(
    ("dtype", "value", "lost"),
    [
        (np.int8, np.array([0, 200]), 200),
        (np.int32, np.array([2**31, 3]), 2**31),
        (np.uint8, np.array([3, 300], np.uint16), 300),
        (np.uint16, np.array([-1, 3], np.int8), -1),
        (np.int64, np.array([1, 2**63], np.uint64), 2**63),
    ],
)
def test_a_value_that_the_dtype_does_not_hold_is_an_error(dtype, value, lost):
    adapter = PyEnvironmentAdapter(tf_py_environment.TFPyEnvironment(Constant(dtype, value)))
    name = np.dtype(dtype).name
    with pytest.raises(
        EnvironmentFaultError,
        match=rf"^the environment gave an invalid a, {lost} in an array of dtype {value.dtype}, expected {name}, from ",
    ):
        adapter.reset_numpy()


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.uint8, np.array([0, 255])), (np.int8, np.array([7, 3], np.uint64)), (np.int32, [5, -6])]
)
def test_other_dtypes_that_lose_nothing_pass(dtype, value):
    adapter = PyEnvironmentAdapter(tf_py_environment.TFPyEnvironment(Constant(dtype, np.array(value))))
    for time_step in (adapter.reset_numpy(), adapter.step_numpy(np.zeros(1, np.int64))):
        assert time_step.observation["a"].dtype == dtype
        np.testing.assert_array_equal(time_step.observation["a"], [value])


def test_two_callers_at_once_are_refused():
    adapter = PyEnvironmentAdapter(env := tf_py_environment.TFPyEnvironment(make_batch()))
    adapter.reset_numpy()
    with env._lock, pytest.raises(RuntimeError):
        adapter.step_numpy(np.zeros(3, np.int64))


def test_arrays_are_not_changed_by_later_steps():
    adapter = PyEnvironmentAdapter(tf_py_environment.TFPyEnvironment(make_batch()))
    steps = [adapter.current_numpy()]
    copies = [tf.nest.map_structure(np.copy, steps[0])]
    for _ in range(5):
        steps.append(adapter.step_numpy(np.array([0, 1, 2])))
        copies.append(tf.nest.map_structure(np.copy, steps[-1]))
    for a, b in zip(tf.nest.flatten(steps), tf.nest.flatten(copies), strict=True):
        np.testing.assert_array_equal(a, b)
