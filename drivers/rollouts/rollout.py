"""Rollouts: policy and environment stepped together, as stacks over time.

Two ways with the same result: a Python loop over NumPy arrays, where the environment offers that, and a loop inside a
TensorFlow graph for all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.policies import tf_policy
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import host_calls
from ppo_agent.common.types import Nest

from .columns import Columns

_LAST = int(ts.StepType.LAST)


class NumpyPolicy(Protocol):
    """A policy that takes and returns NumPy arrays."""

    def refresh(self) -> None:
        """Takes over the current variables of the TensorFlow policy."""

    def initial_state(self, batch_size: int) -> Nest:
        """Returns the policy state before the first step, a nest of arrays [batch_size, ...]; () for none."""

    def act(self, time_step: ts.TimeStep, state: Nest) -> tuple[Nest, Nest, Nest]:
        """Returns fresh arrays (action, policy info, next policy state).

        Args:
            time_step: Arrays [B, ...]; at FIRST the policy forgets what came before.
            state: The policy state before the step.
        """


class NumpyEnvironment(Protocol):
    """An environment that can be stepped with NumPy arrays."""

    def step_numpy(self, action: Nest) -> ts.TimeStep:
        """Returns the next `TimeStep` of fresh arrays [B, ...]."""


class Rollout(NamedTuple):
    """T steps of B environments, arrays or tensors.

    Attributes:
        time_steps: `TimeStep` [B, T + 1, ...], the last one that after the last step.
        action: Nest [B, T, ...]; None in a NumPy rollout of no steps.
        policy_info: Nest [B, T, ...].
        policy_state: Nest [B, T, ...], the policy's state after each action; () in a NumPy rollout of no steps.
    """

    time_steps: ts.TimeStep
    action: Nest
    policy_info: Nest
    policy_state: Nest


class StopRule(NamedTuple):
    """When a rollout ends.

    Attributes:
        target: It ends when this many rows were counted, over the whole batch,
        maximum_iterations: or when this many vector steps were taken. Both are numbers or scalar tensors.
        counts_boundaries: Rows that go from an episode's last step to the next one's first are counted if true, all
            other rows if false.
    """

    target: Any
    maximum_iterations: Any
    counts_boundaries: bool

    def count(self, step_type: np.ndarray) -> int:
        """Returns how many of the rows [B] that start at these steps are counted."""
        boundaries = int(np.count_nonzero(step_type == _LAST))
        return boundaries if self.counts_boundaries else len(step_type) - boundaries


def collect_numpy(
    env: NumpyEnvironment, policy: NumpyPolicy, time_step: ts.TimeStep, policy_state: Nest, stop: StopRule
) -> tuple[Rollout, ts.TimeStep, Nest]:
    """Steps in Python.

    Args:
        env: Environment, stepped from its current state.
        policy: Policy; not refreshed here.
        time_step: Where to start, arrays [B, ...].
        policy_state: The policy's state there, arrays [B, ...].
        stop: When to stop.

    Returns:
        The rollout of T >= 0 steps, the time step after it, and the policy state after it.
    """
    time_steps, taken = Columns(), Columns()
    time_steps.append(time_step)
    rows = counted = 0
    step_type, count = time_step.step_type, stop.count(time_step.step_type)
    while counted < stop.target and rows < stop.maximum_iterations:
        action, info, policy_state = policy.act(time_step, policy_state)
        if time_step.step_type is not step_type:  # Usual steps share one array.
            step_type, count = time_step.step_type, stop.count(time_step.step_type)
        counted += count
        time_step = env.step_numpy(action)
        time_steps.append(time_step)
        taken.append((action, info, policy_state))
        rows += 1
    if not rows:
        return Rollout(time_steps.stack(), None, None, ()), time_step, policy_state
    return Rollout(time_steps.stack(), *taken.stack()), time_step, policy_state


class Chunk(NamedTuple):
    """Steps taken in a graph, tensors.

    Attributes:
        steps: Nests [B, C, ...] of (time step before the action, action, policy info, policy state after it).
        rows: How many of the C rows were taken; the rest is arbitrary.
        counted: How many rows the stop rule counts.
        time_step: After the last step, [B, ...].
        policy_state: After the last step, [B, ...].
    """

    steps: tuple[Nest, Nest, Nest, Nest]
    rows: Any
    counted: Any
    time_step: ts.TimeStep
    policy_state: Nest


def collect_in_graph(
    env: tf_environment.TFEnvironment,
    policy: tf_policy.TFPolicy,
    time_step: ts.TimeStep,
    policy_state: Nest,
    stop: StopRule,
) -> tuple[Rollout, ts.TimeStep, Nest]:
    """Steps in a graph's while loop; call it inside a `tf.function`.

    Args:
        env: Environment.
        policy: Policy, with or without state.
        time_step: Where to start, tensors [B, ...].
        policy_state: The policy's state there.
        stop: When to stop.

    Returns:
        The rollout, the time step after it, and the policy state after it.
    """
    chunk = step_in_graph(env, policy, lambda _, *x: policy.action(*x), time_step, policy_state, stop)
    return to_rollout(chunk), chunk.time_step, chunk.policy_state


def step_in_graph(
    env: tf_environment.TFEnvironment,
    policy: tf_policy.TFPolicy,
    act: Callable[[tf.Tensor, ts.TimeStep, Nest], policy_step.PolicyStep],
    time_step: ts.TimeStep,
    policy_state: Nest,
    stop: StopRule,
    capacity: int | None = None,
) -> Chunk:
    """As `collect_in_graph`, with at most `capacity` steps and stacks of just that length, or of any if it is None.

    Args:
        env: Environment.
        policy: Tells the specs.
        act: Maps (row, time step, policy state) to the policy's step.
        time_step: Where to start, tensors [B, ...].
        policy_state: The policy's state there.
        stop: When to stop.
        capacity: C.
    """
    step_spec = policy.policy_step_spec
    specs = host_calls.plain((step_spec.action, step_spec.info, step_spec.state))
    step_arrays = tf.nest.map_structure(lambda x: _tensor_array(x.dtype, x.shape, capacity), time_step)
    spec_arrays = tf.nest.map_structure(
        lambda leaf: _tensor_array(leaf.dtype, [env.batch_size, *leaf.shape], capacity), specs
    )

    def body(row: tf.Tensor, counted: tf.Tensor, stacks: Nest, time_step: ts.TimeStep, policy_state: Nest) -> tuple:
        action_step = act(row, time_step, policy_state)
        values = (time_step, action_step.action, action_step.info, action_step.state)
        stacks = tf.nest.map_structure(lambda array, value: array.write(row, value), stacks, values)
        boundaries = tf.equal(time_step.step_type, _LAST)
        counts = boundaries if stop.counts_boundaries else tf.logical_not(boundaries)
        # A pure-TensorFlow environment must not be stepped before the policy has read its state.
        with tf.control_dependencies(tf.nest.flatten((time_step, action_step))):
            next_time_step = env.step(action_step.action)
        counted += tf.reduce_sum(tf.cast(counts, tf.int32))
        return row + 1, counted, stacks, next_time_step, action_step.state

    limit = stop.maximum_iterations if capacity is None else tf.minimum(stop.maximum_iterations, capacity)
    rows, counted, stacks, time_step, policy_state = tf.while_loop(
        cond=lambda row, counted, *_: (counted < stop.target) & (row < limit),
        body=body,
        loop_vars=(tf.constant(0), tf.constant(0), (step_arrays, *spec_arrays), time_step, policy_state),
        parallel_iterations=1,
        name="rollout",
    )
    steps = tf.nest.map_structure(_stack_in_graph, stacks)
    return tf.nest.map_structure(tf.stop_gradient, Chunk(steps, rows, counted, time_step, policy_state))


def to_rollout(chunk: Chunk) -> Rollout:
    """Returns a chunk whose rows were all taken as a rollout."""
    before, action, info, state = chunk.steps
    time_steps = tf.nest.map_structure(
        lambda x, last: tf.concat([x, last[:, tf.newaxis]], axis=1), before, chunk.time_step
    )
    return Rollout(time_steps, action, info, state)


def _tensor_array(dtype: tf.DType, shape: Any, size: int | None) -> tf.TensorArray:
    return tf.TensorArray(dtype, size=size or 0, dynamic_size=size is None, element_shape=shape)


def _stack_in_graph(array: tf.TensorArray) -> tf.Tensor:
    """Returns [B, T, ...]."""
    time_major = array.stack()
    return tf.transpose(time_major, [1, 0, *range(2, time_major.shape.rank)])


def to_trajectory(rollout: Rollout, bootstrap_row: bool) -> trajectory.Trajectory:
    """Returns the rollout as rows.

    Args:
        rollout: T >= 1 steps, arrays or tensors.
        bootstrap_row: Whether to add a row that holds the time step after the last action. Its next step type is
            FIRST, its reward 0, its discount 1; action and policy info are those of the row before. No learner takes
            it for a transition.

    Returns:
        `Trajectory` [B, T, ...], or [B, T + 1, ...] with the bootstrap row.
    """
    steps, action, info = rollout.time_steps, rollout.action, rollout.policy_info
    observation, step_type = steps.observation, steps.step_type
    next_step_type, reward, discount = tf.nest.map_structure(
        lambda x: x[:, 1:], (steps.step_type, steps.reward, steps.discount)
    )
    if bootstrap_row:
        next_step_type, discount = _append_like(next_step_type, int(ts.StepType.FIRST)), _append_like(discount, 1.0)
        reward = tf.nest.map_structure(lambda x: _append_like(x, 0.0), reward)
        action, info = tf.nest.map_structure(lambda x: _concat([x, x[:, -1:]]), (action, info))
    else:
        observation, step_type = tf.nest.map_structure(lambda x: x[:, :-1], (observation, step_type))
    return trajectory.Trajectory(step_type, observation, action, info, next_step_type, reward, discount)


def _append_like(values: Any, number: float) -> Any:
    """Returns [B, T + 1, ...] with `number` in the last row."""
    last = values[:, -1:]
    if isinstance(last, np.ndarray):
        return _concat([values, np.full_like(last, number)])
    return _concat([values, tf.zeros_like(last) + tf.cast(number, last.dtype)])


def _concat(parts: list[Any]) -> Any:
    return np.concatenate(parts, axis=1) if isinstance(parts[0], np.ndarray) else tf.concat(parts, axis=1)
