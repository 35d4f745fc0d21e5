"""Rollouts of a NumPy environment under a policy that only TensorFlow can evaluate.

The loop is in a graph, and crosses to Python once in each step. The environment's time step comes back in as few
tensors as possible, because each of them costs 10 us, and what the host has seen it records itself: only what the
policy makes goes out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import time_step as ts

from ppo_agent.drivers import host_calls
from ppo_agent.drivers.columns import Columns
from ppo_agent.drivers.rollout import NumpyEnvironment, Rollout, StopRule
from ppo_agent.drivers.seeded_actions import SeedSequence, seeded_action

Nest = Any

# Leaves of this many bytes are cheaper to hand over alone than to copy.
_LARGE = 4096


class HostedRollout:
    """Takes rollouts with the policy in a graph and the environment outside of it; not for several threads at once.

    Args:
        env: Environment with `step_numpy`, a `TFEnvironment`.
        policy: Policy, with or without state.

    Attributes:
        seeds: Of the actions.
    """

    def __init__(self, env: Any, policy: tf_policy.TFPolicy) -> None:
        self._policy = policy
        specs = (env.time_step_spec(), policy.action_spec, policy.info_spec, policy.policy_state_spec)
        time_step_spec, *self._step_spec = host_calls.plain(specs)
        self._packing = _Packing(host_calls.with_outer_dims(time_step_spec, env.batch_size))
        self._recorder = _Recorder(env, self._step_spec, self._packing)
        self.seeds = SeedSequence()
        self._loop = tf.function(self._loop_in_graph, autograph=False)

    def __call__(self, time_step: ts.TimeStep, policy_state: Nest, stop: StopRule) -> tuple[Rollout, ts.TimeStep, Nest]:
        """Takes a rollout, eagerly.

        Args:
            time_step: Where to start, arrays [B, ...].
            policy_state: The policy's state there, tensors or arrays.
            stop: When to stop, numbers.

        Returns:
            As `collect_numpy`, but for the policy state, which is of tensors.
        """
        first = self._recorder.start(time_step, stop)
        policy_state = self._loop(first, host_calls.plain(policy_state))
        return (*self._recorder.finish(), policy_state)

    def _loop_in_graph(self, packed: list[tf.Tensor], policy_state: Nest) -> Nest:
        seed = self.seeds.next()

        def body(row: tf.Tensor, packed: list[tf.Tensor], policy_state: Nest) -> tuple:
            time_step = self._packing.unpack(packed)
            step = seeded_action(self._policy, time_step, policy_state, seed + tf.stack([row, 0]))
            leaves = tf.nest.flatten((step.action, step.info, step.state))
            packed = tf.numpy_function(self._recorder.step, leaves, self._packing.dtypes)
            return row + 1, self._packing.with_shapes(packed), step.state

        loop_vars = (tf.constant(0), self._packing.with_shapes(packed), policy_state)
        *_, policy_state = tf.while_loop(
            lambda _, packed, __: packed[0][0] > 0, body, loop_vars, parallel_iterations=1, name="rollout"
        )
        return policy_state


class _Recorder:
    """Steps the environment and keeps what it has seen.

    Args:
        env: The environment.
        step_spec: Specs of (action, policy info, policy state).
        packing: Of time steps.
    """

    def __init__(self, env: NumpyEnvironment, step_spec: Nest, packing: _Packing) -> None:
        self._env, self._step_spec, self._packing = env, step_spec, packing
        self._is_flat = not tf.nest.is_nested(step_spec[0])
        self._num_actions = len(tf.nest.flatten(step_spec[0]))

    def start(self, time_step: ts.TimeStep, stop: StopRule) -> list[np.ndarray]:
        """Forgets everything; returns the packed time step to begin with."""
        self._time_step = time_step
        self._time_steps, self._leaves = Columns(), Columns()
        self._time_steps.append(time_step)
        self._rows = self._counted = 0
        self._stop = stop
        return self._packing.pack(time_step, self._goes_on())

    def step(self, *leaves: np.ndarray) -> list[np.ndarray]:
        """Steps the environment; takes the leaves of (action, policy info, policy state)."""
        self._counted += self._stop.count(self._time_step.step_type)
        actions = leaves[: self._num_actions]
        action = actions[0] if self._is_flat else tf.nest.pack_sequence_as(self._step_spec[0], actions)
        self._leaves.append(leaves)
        self._rows += 1
        self._time_step = self._env.step_numpy(action)
        self._time_steps.append(self._time_step)
        return self._packing.pack(self._time_step, self._goes_on())

    def finish(self) -> tuple[Rollout, ts.TimeStep]:
        """Returns the rollout and the last time step, and forgets them."""
        time_steps, leaves, self._time_steps, self._leaves = self._time_steps, self._leaves, Columns(), Columns()
        if not self._rows:
            return Rollout(time_steps.stack(), None, None, ()), self._time_step
        action, info, state = tf.nest.pack_sequence_as(self._step_spec, list(leaves.stack()))
        return Rollout(time_steps.stack(), action, info, state), self._time_step

    def _goes_on(self) -> bool:
        return self._counted < self._stop.target and self._rows < self._stop.maximum_iterations


class _Packing:
    """Puts the small leaves of a time step and a flag into one vector of bytes; large ones stay as they are.

    Args:
        spec: `TimeStep` of `tf.TensorSpec`.
    """

    def __init__(self, spec: ts.TimeStep) -> None:
        self._spec, leaves = spec, tf.nest.flatten(spec)
        self._is_flat = not tf.nest.is_nested(spec.observation)
        self._small = [leaf for leaf in leaves if _num_bytes(leaf) < _LARGE]
        self._large = [leaf for leaf in leaves if _num_bytes(leaf) >= _LARGE]
        self._is_small = [_num_bytes(leaf) < _LARGE for leaf in leaves]
        self._sizes = [1, *map(_num_bytes, self._small)]
        self.dtypes = [tf.uint8, *(leaf.dtype for leaf in self._large)]

    def pack(self, time_step: ts.TimeStep, flag: bool) -> list[np.ndarray]:
        """Returns the vector, which begins with the flag, and the large leaves."""
        observation = time_step.observation
        leaves = [*time_step[:-1], *([observation] if self._is_flat else tf.nest.flatten(observation))]
        small = [x.tobytes() for x, is_small in zip(leaves, self._is_small, strict=True) if is_small]
        vector = np.frombuffer(b"".join([_FLAGS[flag], *small]), np.uint8)
        if not self._large:
            return [vector]
        return [vector, *(x for x, is_small in zip(leaves, self._is_small, strict=True) if not is_small)]

    def unpack(self, packed: list[tf.Tensor]) -> ts.TimeStep:
        """Returns the time step, of tensors."""
        parts = iter(tf.split(packed[0], self._sizes)[1:])
        small, large = iter(map(_from_bytes, parts, self._small)), iter(packed[1:])
        return tf.nest.pack_sequence_as(self._spec, [next(small if is_small else large) for is_small in self._is_small])

    def with_shapes(self, packed: list[Any]) -> list[tf.Tensor]:
        """Returns the tensors with their static shapes."""
        shapes = [tf.TensorShape([sum(self._sizes)]), *(leaf.shape for leaf in self._large)]
        return [tf.ensure_shape(x, shape) for x, shape in zip(packed, shapes, strict=True)]


_FLAGS = {flag: bytes([flag]) for flag in (False, True)}


def _num_bytes(spec: tf.TensorSpec) -> int:
    return int(np.prod(spec.shape)) * spec.dtype.size


def _from_bytes(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Returns the tensor whose bytes these are."""
    if spec.dtype.size == 1:
        values = tf.reshape(values, spec.shape)
        return tf.cast(values, tf.bool) if spec.dtype == tf.bool else tf.bitcast(values, spec.dtype)
    return tf.bitcast(tf.reshape(values, [*spec.shape, spec.dtype.size]), spec.dtype)
