"""Policies on their way to the workers, with or without TensorFlow there."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import array_nests, host_calls
from ppo_agent.common.types import Array, Nest

from ..array_policies.array_policy import ArrayPolicy
from ..array_policies.numpy_program import NumpyProgram
from ..array_policies.seeded_actions import seeded_action
from .worker_policies import GraphPolicyMaker, NumpyPolicyMaker


class Shipped(Protocol):
    """A policy for workers.

    Attributes:
        maker: Makes it in a worker, given a seed.
        structure: Nest of (action, policy info, policy state).
    """

    maker: Any
    structure: Nest

    def values(self) -> list[Array]:
        """Returns its present weights, as the worker's `put` takes them."""


def ship(policy: tf_policy.TFPolicy, num_environments: int) -> Shipped:
    """Returns what workers need to act as a policy does, for so many environments each.

    Where NumPy has all operations of the policy, its workers never load TensorFlow.
    """
    example = _example(policy, num_environments)
    program = ArrayPolicy(policy, seed=0).program(*example)
    return _NumpyShipped(program, example) if program is not None else _GraphShipped(policy, example)


def initial_state(policy: tf_policy.TFPolicy, num_environments: int) -> Nest:
    """Returns the policy's state before an episode, arrays [B, ...]; () for none."""
    return ArrayPolicy(policy, seed=0).initial_state(num_environments)


def _example(policy: tf_policy.TFPolicy, num_environments: int) -> tuple[ts.TimeStep, Nest]:
    """A time step and a policy state as the policy takes them: ones, so that masks allow everything."""

    def array(spec: Any) -> Array:
        low, high = getattr(spec, "minimum", 1), getattr(spec, "maximum", 1)
        shape = (num_environments, *spec.shape)
        return np.broadcast_to(np.clip(1, low, high), shape).astype(spec.dtype.as_numpy_dtype)

    spec = host_calls.plain(policy.time_step_spec)
    return tf.nest.map_structure(array, spec), initial_state(policy, num_environments)


class _NumpyShipped:
    def __init__(self, program: NumpyProgram, example: tuple[ts.TimeStep, Nest]) -> None:
        self.structure = tuple(program.act(*example))
        self.maker = NumpyPolicyMaker(program.portable)
        self.values = program.fixed_values


class _GraphShipped:
    def __init__(self, policy: tf_policy.TFPolicy, example: tuple[ts.TimeStep, Nest]) -> None:
        module = tf.Module()
        specs = [tf.TensorSpec(x.shape, x.dtype) for x in array_nests.flatten(example)]

        @tf.function(input_signature=[*specs, tf.TensorSpec([2], tf.int32)], autograph=False)
        def act(*leaves: tf.Tensor) -> list[tf.Tensor]:
            time_step, state = tf.nest.pack_sequence_as(example, leaves[:-1])
            step = seeded_action(policy, time_step, state, leaves[-1])
            return tf.nest.flatten(host_calls.plain((step.action, step.info, step.state)))

        self._variables = list(act.get_concrete_function().graph.variables)
        module.act, module.variables_in_order = act, self._variables
        self.structure = host_calls.plain(
            (policy.policy_step_spec.action, policy.policy_step_spec.info, policy.policy_step_spec.state)
        )
        self.maker = GraphPolicyMaker(_saved(module), tf.nest.map_structure(lambda _: 0, self.structure))

    def values(self) -> list[Array]:
        return [variable.numpy() for variable in self._variables]


def _saved(module: tf.Module) -> dict[str, bytes]:
    """The files of a SavedModel."""
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder)
        files: Sequence[Path] = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}
