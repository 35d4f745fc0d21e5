"""TensorFlow policies for TF-Agents' drivers of Python environments."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.policies import py_policy as tf_agents_py_policy
from tf_agents.policies import tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import array_nests, host_calls
from ppo_agent.common.types import Array, Nest

from .array_policy import ArrayPolicy


def py_policy(policy: tf_policy.TFPolicy, *, seed: int | None = None) -> ArrayPyPolicy:
    """Returns a `PyPolicy` that acts as a TensorFlow policy does, executed on arrays.

    It stands in for `PyTFEagerPolicy` in TF-Agents' `Actor` and `PyDriver`. Changes of the policy's variables count
    from the next action on. It takes time steps with and without a batch dimension.

    Args:
        policy: Any policy, with or without state; a greedy one too.
        seed: Of the actions; None for one that follows from TensorFlow's.

    Raises:
        TypeError: `policy` is no `TFPolicy`.
    """
    if not isinstance(policy, tf_policy.TFPolicy):
        raise TypeError(f"policy is {policy!r}, expected a tf_agents TFPolicy.")
    return ArrayPyPolicy(policy, seed)


class ArrayPyPolicy(tf_agents_py_policy.PyPolicy):
    """See `py_policy`."""

    def __init__(self, policy: tf_policy.TFPolicy, seed: int | None = None) -> None:
        specs = (policy.time_step_spec, policy.action_spec, policy.policy_state_spec, policy.info_spec)
        super().__init__(
            *(tensor_spec.to_nest_array_spec(host_calls.plain(spec)) for spec in specs),
            observation_and_action_constraint_splitter=policy.observation_and_action_constraint_splitter,
        )
        self._policy, self._on_arrays = policy, ArrayPolicy(policy, seed=seed)
        self._state_rank = [len(leaf.shape) for leaf in tf.nest.flatten(policy.policy_state_spec)][:1]
        plain_spec = host_calls.plain(policy.time_step_spec)
        self._flatten, self._pack = array_nests.flattener(plain_spec), array_nests.packer(plain_spec)
        results = host_calls.plain((policy.action_spec, policy.info_spec))
        self._flatten_results, self._pack_results = array_nests.flattener(results), array_nests.packer(results)
        self._dtypes = [leaf.dtype.as_numpy_dtype for leaf in tf.nest.flatten(plain_spec)]

    def variables(self) -> Nest:
        """Returns the values of the policy's variables."""
        return tf.nest.map_structure(lambda variable: variable.numpy(), self._policy.variables())

    def get_state(self) -> dict[str, Any]:
        """Returns where the random numbers are, for `set_state` of another one."""
        return self._on_arrays.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues with the random numbers from where `get_state` was called."""
        self._on_arrays.set_state(state)

    def _get_initial_state(self, batch_size: int | None) -> Nest:
        state = self._on_arrays.initial_state(batch_size or 1)
        return state if batch_size is not None else tf.nest.map_structure(_first, state)

    def _action(self, time_step: ts.TimeStep, policy_state: Nest, seed: Any = None) -> policy_step.PolicyStep:
        is_single = np.ndim(time_step.step_type) == 0
        leaves = self._flatten(time_step)
        arrays = [np.array(x, dtype) for x, dtype in zip(leaves, self._dtypes, strict=True)]
        time_step = self._pack(x[np.newaxis] if is_single else x for x in arrays)
        # TF-Agents' drivers give single time steps with a state [1, ...], others give one without a batch dimension.
        has_single_state = self._state_rank and np.ndim(tf.nest.flatten(policy_state)[0]) == self._state_rank[0]
        state = host_calls.to_arrays(policy_state) if self._state_rank else policy_state
        if has_single_state:
            state = tf.nest.map_structure(lambda x: x[np.newaxis], state)
        action, info, state = self._act(time_step, state, seed)
        if is_single:
            action, info = self._pack_results(map(_first, self._flatten_results((action, info))))
        if has_single_state:
            state = tf.nest.map_structure(_first, state)
        return policy_step.PolicyStep(action, state, info)

    def _act(self, time_step: ts.TimeStep, state: Nest, seed: Any) -> tuple[Nest, Nest, Nest]:
        if seed is not None:
            step = self._policy.action(*host_calls.to_tensors((time_step, state)), seed=seed)
            return host_calls.to_arrays(host_calls.plain((step.action, step.info, step.state)))
        self._on_arrays.refresh_changed()
        return self._on_arrays.act(time_step, state)


def _first(array: Array) -> Array:
    return array[0]
