"""Rollouts stepped in a TensorFlow graph's while loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.policies import tf_policy
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import host_calls
from ppo_agent.common.types import Nest

from .rollout import Rollout, StopRule

_LAST = int(ts.StepType.LAST)


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
    """Steps in a graph's while loop from a time step and policy state [B, ...]; call it inside a `tf.function`.

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

    `act` maps (row, time step, policy state) to the policy's step; the policy only tells the specs.
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
