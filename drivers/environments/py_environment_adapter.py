"""TF-Agents' `TFPyEnvironment` stepped in Python, without a crossing into TensorFlow."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.environments import batched_py_environment, py_environment, tf_environment, tf_py_environment
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import array_nests, host_calls
from ppo_agent.common.types import Array, Nest

from ..faults.faults import EnvironmentFaultError
from ..faults.leaf_checks import InvalidLeafError, as_leaf

_FIRST, _LAST = int(ts.StepType.FIRST), int(ts.StepType.LAST)
# Environments that take this long for a step are stepped in the threads that the user asked for; others one after the
# other, because handing them to threads takes longer.
_SLOW_STEP_S = 5e-4
_TIMED_STEPS = 20


def on_arrays(env: tf_environment.TFEnvironment) -> Any | None:
    """Returns what steps an environment with arrays: itself, an adapter, or None if it is made of TensorFlow's."""
    if isinstance(env, tf_py_environment.TFPyEnvironment):
        methods = ("_step", "_reset", "_current_time_step")
        is_plain = all(getattr(type(env), m) is getattr(tf_py_environment.TFPyEnvironment, m) for m in methods)
        return PyEnvironmentAdapter(env) if is_plain else None
    return env if hasattr(env, "step_numpy") else None


class PyEnvironmentAdapter:
    """Steps the `PyEnvironment` inside a `TFPyEnvironment`, whose current time step stays right.

    Steps run in the environment's own thread if it has one (`isolation`), and not while another caller steps it.
    """

    def __init__(self, env: tf_py_environment.TFPyEnvironment) -> None:
        self.batch_size = env.batch_size
        self._env = env
        spec = host_calls.plain(env.time_step_spec())
        self._flatten, self._pack = array_nests.flattener(spec), array_nests.packer(spec)
        self._flatten_action = array_nests.flattener(host_calls.plain(env.action_spec()))
        self._pack_action = array_nests.packer(host_calls.plain(env.action_spec()))
        leaves = tf.nest.flatten(spec)
        self._names = [leaf.name for leaf in leaves]
        self._forms = [(np.dtype(leaf.dtype.as_numpy_dtype), (env.batch_size, *leaf.shape)) for leaf in leaves]
        # Subclasses may put the single environments together in another way.
        self._is_list = type(env.pyenv) is batched_py_environment.BatchedPyEnvironment
        self._steps, self._seconds = 0, 0.0

    def current_numpy(self) -> ts.TimeStep:
        """Returns the current `TimeStep` of arrays [B, ...]; resets an environment that was not reset yet."""
        return self._env._execute(self._locked, self._current)

    def reset_numpy(self) -> ts.TimeStep:
        """Resets the environments and returns their `TimeStep` of arrays [B, ...]."""
        return self._env._execute(self._locked, self._reset)

    def step_numpy(self, action: Nest) -> ts.TimeStep:
        """Returns the next `TimeStep` of arrays [B, ...].

        Raises:
            EnvironmentFaultError: An environment does not follow a last step by a first one, so that an episode would
                never start; or gives values of another shape or dtype than its specs.
        """
        return self._env._execute(self._locked, self._step, action)

    def _locked(self, function: Any, *arguments: Any) -> ts.TimeStep:
        with tf_py_environment._check_not_called_concurrently(self._env._lock):
            return function(*arguments)

    def _current(self) -> ts.TimeStep:
        return self._reset() if self._env._time_step is None else self._take(self._flatten(self._env._time_step))

    def _reset(self) -> ts.TimeStep:
        self._env._time_step = self._take(self._flatten(self._env.pyenv.reset()))
        return self._env._time_step

    def _step(self, action: Nest) -> ts.TimeStep:
        before = self._current().step_type
        if self._is_list:
            leaves = self._step_list(self._env.pyenv, action)
        else:
            leaves = self._flatten(self._env.pyenv.step(action))
        time_step = self._take(leaves)
        self._check_boundaries(before, time_step.step_type)
        self._env._time_step = time_step
        if self._is_list:  # What the list of environments would remember itself.
            self._env.pyenv._current_time_step = time_step
        return time_step

    def _step_list(self, pyenv: batched_py_environment.BatchedPyEnvironment, action: Nest) -> list[list[Any]]:
        """Steps single environments; returns the leaves of the time step, each a list over environments."""
        actions = [self._pack_action(iter(row)) for row in zip(*self._flatten_action(action), strict=True)]
        pairs = list(zip(pyenv.envs, actions, strict=True))
        if self._steps >= _TIMED_STEPS and self._seconds > _SLOW_STEP_S * self._steps * len(pairs):
            time_steps = pyenv._execute(_step_one, pairs)
        else:
            start = time.perf_counter()
            time_steps = [_step_one(pair) for pair in pairs]
            self._seconds += time.perf_counter() - start
            self._steps += 1
        return list(map(list, zip(*map(self._flatten, time_steps), strict=True)))

    def _take(self, leaves: list[Any]) -> ts.TimeStep:
        """Returns arrays of one's own as the specs say."""
        arrays = [np.array(leaf) for leaf in leaves]
        if [(x.dtype, x.shape) for x in arrays] != self._forms:
            arrays = [_fitted(x, *form, name) for x, form, name in zip(arrays, self._forms, self._names, strict=True)]
        return self._pack(iter(arrays))

    def _check_boundaries(self, before: Array, after: Array) -> None:
        stuck = (before == _LAST) & (after != _FIRST)
        if stuck.any():
            number = int(np.argmax(stuck))
            raise EnvironmentFaultError(
                f"environment {number} follows a last step by a step of type {int(after[number])}, expected {_FIRST}: "
                "a PyEnvironment must reset itself, as with handle_auto_reset=True.",
                environment=number,
                step=None,
                leaf="step_type",
            )


def _fitted(array: Array, dtype: np.dtype, shape: tuple[int, ...], name: str) -> Array:
    """Returns an array of the same kind of numbers in a spec's dtype."""
    try:
        return as_leaf(array, shape, dtype, name)
    except InvalidLeafError as error:
        raise EnvironmentFaultError(f"the environment {error.fault.text}.", None, None, name) from None


def _step_one(pair: tuple[py_environment.PyEnvironment, Nest]) -> ts.TimeStep:
    """`env.step(action)`, of which more than a third is finding out whether the step before was the last one."""
    env, action = pair
    before = env._current_time_step
    if before is None or not _steps_as_usual(env) or before.step_type == _LAST:
        return env.step(action)
    env._current_time_step = time_step = env._step(action)
    return time_step


def _steps_as_usual(env: py_environment.PyEnvironment) -> bool:
    """Whether an environment leaves it to `PyEnvironment` when to reset, and is a single one."""
    kind, usual = type(env), py_environment.PyEnvironment
    has_usual_methods = kind.step is usual.step and kind.should_reset is usual.should_reset
    return has_usual_methods and "step" not in vars(env) and not env.batched
