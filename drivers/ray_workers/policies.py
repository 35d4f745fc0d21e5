"""Policies on their way to the workers, with or without TensorFlow there."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import array_nests, host_calls
from ppo_agent.common.types import Array, Nest

from ..array_policies.array_policy import ArrayPolicy
from ..array_policies.numpy_code import NumpyCode
from ..array_policies.seeded_actions import seeded_action
from .graph_policy import GraphPolicy
from .worker import WorkerPolicy


class Shipped(NamedTuple):
    """A policy for workers.

    Attributes:
        make: Makes it in a worker, given the seed of its random numbers.
        structure: Nest of (action, policy info, policy state).
        values: Returns its present weights, as the worker's `put` takes them.
    """

    make: Callable[[np.random.SeedSequence], WorkerPolicy]
    structure: Nest
    values: Callable[[], list[Array]]


def ship(policy: tf_policy.TFPolicy, num_environments: int) -> Shipped:
    """Returns what workers need to act as a policy does, for so many environments each.

    Where NumPy has all operations of the policy, its workers never load TensorFlow.
    """
    example = _example(policy, num_environments)
    program = ArrayPolicy(policy, seed=0).program(*example)
    if program is None:
        return _as_graph(policy, example)
    return Shipped(functools.partial(NumpyCode, program.portable), program.act(*example), program.fixed_values)


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


def _as_graph(policy: tf_policy.TFPolicy, example: tuple[ts.TimeStep, Nest]) -> Shipped:
    module = tf.Module()
    specs = [tf.TensorSpec(x.shape, x.dtype) for x in array_nests.flatten(example)]

    @tf.function(input_signature=[*specs, tf.TensorSpec([2], tf.int32)], autograph=False)
    def act(*leaves: tf.Tensor) -> list[tf.Tensor]:
        time_step, state = tf.nest.pack_sequence_as(example, leaves[:-1])
        step = seeded_action(policy, time_step, state, leaves[-1])
        return tf.nest.flatten(host_calls.plain((step.action, step.info, step.state)))

    variables = list(act.get_concrete_function().graph.variables)
    module.act, module.variables_in_order = act, variables
    step_spec = policy.policy_step_spec
    structure = host_calls.plain((step_spec.action, step_spec.info, step_spec.state))
    make = functools.partial(GraphPolicy, _saved(module), tf.nest.map_structure(lambda _: 0, structure))
    return Shipped(make, structure, lambda: [variable.numpy() for variable in variables])


def _saved(module: tf.Module) -> dict[str, bytes]:
    """The files of a SavedModel."""
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder)
        files: Sequence[Path] = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}
