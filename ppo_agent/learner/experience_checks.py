"""Checks of what `train` is given, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util
from tf_agents.trajectories import Trajectory, Transition
from tf_agents.utils import nest_utils

from ppo_agent.common.nest_checks import fits
from ppo_agent.common.types import Nest, Tensor
from ppo_agent.config import PPOConfig
from ppo_agent.learner import batches, experience_values


def checked(
    experience: Any,
    weights: Tensor | None,
    as_trajectory: Callable[[Any], Trajectory],
    spec: Trajectory,
    config: PPOConfig,
    is_recurrent: bool,
) -> Trajectory:
    """Returns what is trained on as a trajectory of tensors [B, T, ...], if it can be trained on.

    Args:
        experience: a Trajectory or a Transition of tensors or arrays.
        weights: importance weights or None, see `batches.broadcast_weights`.
        as_trajectory: makes a Trajectory of a Transition.
        spec: the agent's `training_data_spec`.
        config: its hyper-parameters.
        is_recurrent: whether a minibatch is made of sequences, otherwise of single steps.

    Raises:
        TypeError: it is neither a Trajectory nor a Transition.
        ValueError: it does not fit the spec, is too short, smaller than a minibatch, has no step that counts, or step
            types or discrete actions outside their range; or weights of another shape.
    """
    if not tf.executing_eagerly():
        check_caller("train")
    check_kind(experience)
    trajectory = as_tensors(experience if isinstance(experience, Trajectory) else as_trajectory(experience), spec)
    batch_size, length = trajectory.step_type.shape
    if config.compute_value_and_advantage_in_train:
        check_length(trajectory)
        length = length and length - 1
    steps = config.sequence_length if is_recurrent else 1
    num_rows = batch_size and (batch_size if steps is None else length and batch_size * -(-length // steps))
    check_minibatch_size(config.minibatch_size, num_rows, "sequences" if is_recurrent else "steps")
    weights = batches.as_weights(weights, trajectory.step_type)
    return experience_values.checked(trajectory, weights, spec.action, config.compute_value_and_advantage_in_train)


def check_caller(name: str) -> None:
    """Checks the graph that something is called in.

    Args:
        name: of what is called, for the message.

    Raises:
        ValueError: a tf.Graph, or a function that XLA compiles.
    """
    with tf.init_scope():
        is_eager = tf.executing_eagerly()
    if not is_eager:
        raise ValueError(f"{name} is called in a tf.Graph, expected eager execution or a tf.function.")
    graph = tf.compat.v1.get_default_graph()
    if control_flow_util.GraphOrParentsInXlaContext(graph):
        raise ValueError(
            f"{name} is called in a function with jit_compile=True, expected one without: it deals out the steps that "
            "count, whose number XLA does not know; PPOAgent(jit_compile=True) compiles its gradient steps."
        )


def check_kind(experience: Any) -> None:
    """Raises TypeError unless the experience is a Trajectory or a Transition."""
    if not isinstance(experience, Trajectory | Transition):
        raise TypeError(f"experience is {type(experience).__name__}, expected a Trajectory or a Transition.")


def as_tensors(trajectory: Trajectory, spec: Trajectory) -> Trajectory:
    """Checks a trajectory against its spec; entries that the spec does not have are dropped.

    Args:
        trajectory: tensors or arrays [B, T, ...].
        spec: the agent's `training_data_spec`.

    Returns:
        The tensors that the spec asks for.

    Raises:
        ValueError: the structure, a dtype or a shape differs; the message names the first such entry.
    """
    try:
        trajectory = _pruned(trajectory, spec)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"experience has the entries {_names(trajectory)}, expected those of training_data_spec: {_names(spec)}."
        ) from error
    specs, tensors, outer = tf.nest.flatten(spec), [], None
    for i, leaf in enumerate(tf.nest.flatten(trajectory)):
        tensors.append(leaf if tf.is_tensor(leaf) else _to_tensor(leaf, spec, i))
        outer = _check_leaf(spec, i, specs[i], tensors[-1], outer)
    return tf.nest.pack_sequence_as(trajectory, tensors)


def _pruned(trajectory: Trajectory, spec: Trajectory) -> Trajectory:
    """The entries that the spec has; raises if one is missing."""
    try:  # Nearly always there are no others, and pruning takes longer than this.
        tf.nest.assert_same_structure(spec, trajectory)
    except (ValueError, TypeError):
        trajectory = nest_utils.prune_extra_keys(spec, trajectory)
        tf.nest.assert_same_structure(spec, trajectory)
    return trajectory


def check_length(trajectory: Trajectory) -> None:
    """Raises ValueError if a raw experience has no time step to bootstrap from."""
    length = trajectory.step_type.shape[1]
    if length is not None and length < 2:
        steps = f"T = {length} time step" + "s" * (length != 1)
        raise ValueError(f"experience has {steps}, expected at least 2: the last one only serves as bootstrap.")


def check_minibatch_size(minibatch_size: int | None, num_rows: int | None, unit: str) -> None:
    """Raises ValueError if a minibatch is larger than the batch that it is taken from."""
    if minibatch_size is not None and num_rows is not None and minibatch_size > num_rows:
        raise ValueError(f"minibatch_size is {minibatch_size}, expected at most the {num_rows} {unit} of experience.")


def _check_leaf(
    spec: Trajectory, i: int, leaf_spec: tf.TensorSpec, tensor: tf.Tensor, outer: list[int | None] | None
) -> list[int | None] | None:
    """Checks the i-th leaf; returns its [B, T], `outer` if its rank is unknown. Lists are faster than TensorShapes."""
    if tensor.dtype != leaf_spec.dtype:
        raise ValueError(f"{_path(spec, i)} has dtype {tensor.dtype.name}, expected {leaf_spec.dtype.name}.")
    if tensor.shape.rank is None:
        return outer
    shape, inner = tensor.shape.as_list(), leaf_spec.shape.as_list()
    if not fits(shape, [None, None, *inner]):
        raise ValueError(f"{_path(spec, i)} has shape {tensor.shape}, expected [B, T] followed by {leaf_spec.shape}.")
    if outer is not None and not fits(shape[:2], outer):
        raise ValueError(
            f"{_path(spec, i)} has [B, T] = {tensor.shape[:2]}, expected {tf.TensorShape(outer)} as in step_type."
        )
    return shape[:2]


def _to_tensor(leaf: Any, spec: Trajectory, i: int) -> tf.Tensor:
    try:
        return tf.convert_to_tensor(np.asarray(leaf))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{_path(spec, i)} is {type(leaf).__name__}, expected a tensor or an array.") from error


def _path(spec: Trajectory, i: int) -> str:
    """The name of the i-th leaf, for messages: it takes its time."""
    return f"experience.{nest_utils.flatten_with_joined_paths(spec)[i][0]}"


def _names(nest: Nest) -> str:
    names = [name for name, _ in nest_utils.flatten_with_joined_paths(nest)]
    return ", ".join(name if name.isprintable() else repr(name) for name in names)
