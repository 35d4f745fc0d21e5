"""What both drivers share: choosing how to step, and passing the rollout on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.drivers import driver
from tf_agents.environments import tf_environment
from tf_agents.policies import tf_policy
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import compilation_cache, host_calls
from ppo_agent.common.checks import check_int, is_int
from ppo_agent.common.nest_checks import NestCheck
from ppo_agent.common.own_functions import own_function
from ppo_agent.common.types import Nest

from .array_policies.array_policy import ArrayPolicy
from .environments.py_environment_adapter import on_arrays
from .faults.soundness import check_rollout
from .observers import Observed, Observers
from .rollouts import compiled_loop
from .rollouts.graph_loop import collect_in_graph
from .rollouts.python_loop import collect_in_python, groups_of
from .rollouts.rollout import StopRule, drop_abandoned, is_nothing_but_dropped

NO_LIMIT = np.iinfo(np.int32).max


class RolloutDriver(driver.Driver):
    """A driver that first collects a whole rollout and then gives it to its observers.

    The rollout takes one of three ways, which give equal rows for equal actions:

    - in Python, if the environment has `step_numpy` or is a `TFPyEnvironment`: with the policy's graph carried out in
      NumPy where NumPy has its operations, else with one call of a traced function for each step;
    - compiled by XLA, if the environment has a true `is_compilable` and the policy consists of operations that XLA
      takes and draws its actions from the distributions that it gives;
    - else in one graph that holds policy and environment.

    Graphs are traced on the first run only. Inside a user's own `tf.function` the last two ways are open.
    """

    # What a run counts until it ends, the name of an argument; and as in `StopRule`.
    _counted: str
    _counts_boundaries: bool

    def __init__(
        self,
        env: tf_environment.TFEnvironment,
        policy: tf_policy.TFPolicy,
        observers: Sequence[Callable] | None,
        transition_observers: Sequence[Callable] | None,
        num: Any,
        *,
        bootstrap_row: bool,
    ) -> None:
        """Creates the driver; nothing is stepped yet.

        Args:
            env: Batched environment.
            policy: Policy that fits its specs.
            observers: Callables that take a `Trajectory` of rows.
            transition_observers: Callables that take (time_step, policy_step, next_time_step).
            num: Rows that a run counts until it ends, a positive int or a tensor.
            bootstrap_row: Whether each run ends with a row that holds the time step after its last action (next step
                type FIRST, reward 0, discount 1), so that every collected step can be trained on.

        Raises:
            TypeError: `env`, `policy` or an observer is of the wrong type.
            ValueError: `num` is no positive int, or the policy was made for other specs.
        """
        self._num = check_count(self._counted, num)
        if not isinstance(env, tf_environment.TFEnvironment):
            raise TypeError(f"env is {env!r}, expected a tf_agents TFEnvironment (TFPyEnvironment wraps a Python one).")
        if not isinstance(policy, tf_policy.TFPolicy):
            raise TypeError(f"policy is {policy!r}, expected a tf_agents TFPolicy.")
        for name, group in (("observers", observers), ("transition_observers", transition_observers)):
            if not isinstance(group or (), (list, tuple)) or not all(callable(observer) for observer in group or ()):
                raise TypeError(f"{name} is {group!r}, expected a list of callables.")
        check_fit(env, policy)
        super().__init__(env, policy, list(observers or ()), list(transition_observers or ()))
        self._sinks = Observers(self.observers, self.transition_observers, bootstrap_row)
        self._array_env = on_arrays(env)
        self._array_policy = None if self._array_env is None else ArrayPolicy(policy)
        step_spec = policy.policy_step_spec
        self._step_dtypes = tf.nest.map_structure(
            lambda spec: spec.dtype.as_numpy_dtype, host_calls.plain((step_spec.action, step_spec.info))
        )
        self._compiled = None
        if getattr(env, "is_compilable", False):
            is_known = not self._counts_boundaries and not tf.is_tensor(self._num)
            expected_rows = -(-self._num // env.batch_size) if is_known else None
            self._compiled = compiled_loop.CompiledRollout(env, policy, self._counts_boundaries, expected_rows)
        # An environment with `step_numpy` is taken to check its time steps itself, as `GymnasiumEnvironment` does.
        self._checks = not hasattr(env, "step_numpy")
        self._collect_traced = own_function(self._collect_in_graph)
        self._is_loaded = self._compiled is None

    def get_state(self) -> dict[str, Any]:
        """Returns the state of the random numbers that actions are drawn with, for `set_state` of another driver.

        TensorFlow keeps to itself the state of those that a policy draws on its own, and of all where an environment in
        TensorFlow operations is not `is_compilable`: they are missing.
        """
        return {name: source.get_state() for name, source in self._random_sources().items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues with the random numbers from where `get_state` was called.

        Raises:
            ValueError: The state is that of a driver that collects in another way.
        """
        sources = self._random_sources()
        if set(state) != set(sources):
            raise ValueError(
                f"the driver's state holds random numbers of {sorted(state)}, expected {sorted(sources)}: it was saved "
                "by a driver that collects in another way, or by an earlier version, which drew them otherwise."
            )
        for name, source in sources.items():
            source.set_state(state[name])

    def _random_sources(self) -> dict[str, Any]:
        sources = {"array_policy": self._array_policy, "compiled": self._compiled and self._compiled.seeds}
        return {name: source for name, source in sources.items() if hasattr(source, "get_state")}

    def _collect(
        self, time_step: ts.TimeStep, policy_state: Nest, target: Any, maximum_iterations: Any
    ) -> tuple[ts.TimeStep, Nest]:
        """Collects from a time step and policy state (None for the initial one) until the stop rule holds.

        Informs the observers; returns time step and policy state after the rollout, tensors.
        """
        if not isinstance(time_step, ts.TimeStep):
            raise TypeError(f"time_step is {time_step!r}, expected None or a TimeStep of the environment.")
        limit = NO_LIMIT if maximum_iterations is None else maximum_iterations
        if not tf.is_tensor(limit) and not is_int(limit):
            raise ValueError(f"maximum_iterations is {limit!r}, expected None or an int of at least 0.")
        if self._array_policy is not None and tf.executing_eagerly():
            stop = StopRule(int(target), int(limit), self._counts_boundaries)
            return self._collect_numpy(self._array_policy, time_step, policy_state, stop)
        if policy_state is None:
            has_state = bool(tf.nest.flatten(self.policy.policy_state_spec))
            policy_state = self.policy.get_initial_state(self.env.batch_size) if has_state else ()
        if tf.executing_eagerly():
            # One array, because each argument of a tf.function takes its time.
            bounds = np.array([int(target), int(limit)], np.int32)
            collect = self._collect_traced if self._is_loaded else self._collect_first
            observed, time_step, policy_state = collect(bounds, time_step, policy_state)
            if int(observed.num_steps) > 0:
                if self._checks:
                    check_rollout(observed.rows or observed.steps)
                self._sinks.observe(observed)
        else:
            bounds = tf.stack([tf.cast(target, tf.int32), tf.cast(limit, tf.int32)])
            observed, time_step, policy_state = self._collect_in_graph(bounds, time_step, policy_state)
            self._sinks.observe(observed)
        return time_step, policy_state

    def _collect_numpy(
        self, array_policy: ArrayPolicy, time_step: ts.TimeStep, policy_state: Nest, stop: StopRule
    ) -> tuple[ts.TimeStep, Nest]:
        array_policy.refresh()
        time_step, policy_state = host_calls.to_arrays((time_step, policy_state))
        if policy_state is None:
            policy_state = array_policy.initial_state(self.env.batch_size)
        env: Any = self._array_env
        groups = groups_of(env)
        # One whose every step was dropped teaches nothing. Environments raise once that is no longer tolerated.
        while True:
            rollout, time_step, policy_state = collect_in_python(groups, array_policy, time_step, policy_state, stop)
            if rollout.action is None:
                return host_calls.to_tensors((time_step, policy_state))
            if not is_nothing_but_dropped(drop_abandoned(rollout)):
                break
        action, info = tf.nest.map_structure(_as_dtype, (rollout.action, rollout.policy_info), self._step_dtypes)
        observed = self._sinks.prepare(rollout._replace(action=action, policy_info=info))
        if self._checks:
            check_rollout(observed.rows or observed.steps)
        self._sinks.observe(observed)
        return host_calls.to_tensors((time_step, policy_state))

    def _collect_first(self, *arguments: Any) -> tuple[Observed, ts.TimeStep, Nest]:
        """Collects in the traced function, which XLA compiles in this call."""
        self._is_loaded = True
        return compilation_cache.call(self._collect_traced, *arguments)

    def _collect_in_graph(
        self, bounds: tf.Tensor, time_step: ts.TimeStep, policy_state: Nest
    ) -> tuple[Observed, ts.TimeStep, Nest]:
        """Steps policy and environment in a graph; `bounds` is (target, limit), int32."""
        stop = StopRule(bounds[0], bounds[1], self._counts_boundaries)
        collect = self._compiled or functools.partial(collect_in_graph, self.env, self.policy)
        rollout, time_step, policy_state = collect(time_step, policy_state, stop)
        return self._sinks.prepare(rollout), time_step, policy_state


def check_fit(env: tf_environment.TFEnvironment, policy: tf_policy.TFPolicy) -> None:
    """Raises ValueError if the policy was made for other observations or actions than the environment's."""
    step_spec, action_spec = host_calls.plain((env.time_step_spec(), env.action_spec()))
    NestCheck("the policy's observation", step_spec.observation)(policy.time_step_spec.observation)
    NestCheck("the policy's action", action_spec)(policy.action_spec)
    for found, allowed in zip(tf.nest.flatten(policy.action_spec), tf.nest.flatten(action_spec), strict=True):
        is_bounded = hasattr(found, "maximum") and hasattr(allowed, "maximum")
        if is_bounded and found.dtype.is_integer and np.any(found.maximum > allowed.maximum):
            raise ValueError(
                f"the policy's action has values up to {found.maximum}, expected the environment's: {allowed.maximum}."
            )


def _as_dtype(value: np.ndarray, dtype: Any) -> np.ndarray:
    return value.astype(dtype, copy=False)


def check_count(name: str, value: Any) -> Any:
    """Returns `value`, a positive int or a tensor.

    Raises:
        ValueError: It is neither; `name` is the argument in the message.
    """
    return value if tf.is_tensor(value) else check_int(name, value)
