"""Checks of what `train` is given, before anything is changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import Trajectory, Transition
from tf_agents.utils import nest_utils

Nest = Any


def check_kind(experience: Any) -> None:
    """Raises TypeError unless the experience is a Trajectory or a Transition."""
    if not isinstance(experience, Trajectory | Transition):
        raise TypeError(f"experience must be a Trajectory or a Transition, but is {type(experience).__name__}.")


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
        pruned = nest_utils.prune_extra_keys(spec, trajectory)
        tf.nest.assert_same_structure(spec, pruned)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"experience has the entries {_names(trajectory)}, expected those of training_data_spec: {_names(spec)}."
        ) from error
    tensors, outer = [], None
    for (path, leaf_spec), leaf in zip(
        nest_utils.flatten_with_joined_paths(spec), tf.nest.flatten(pruned), strict=True
    ):
        tensors.append(_to_tensor(path, leaf))
        outer = _check_leaf(path, leaf_spec, tensors[-1], outer)
    return tf.nest.pack_sequence_as(pruned, tensors)


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
    path: str, spec: tf.TensorSpec, tensor: tf.Tensor, outer: tf.TensorShape | None
) -> tf.TensorShape | None:
    if tensor.dtype != spec.dtype:
        raise ValueError(f"experience.{path} has dtype {tensor.dtype.name}, expected {spec.dtype.name}.")
    if tensor.shape.rank is None:
        return outer
    expected = tf.TensorShape([None, None]).concatenate(spec.shape)
    if not expected.is_compatible_with(tensor.shape):
        raise ValueError(f"experience.{path} has shape {tensor.shape}, expected [B, T] followed by {spec.shape}.")
    if outer is not None and not outer.is_compatible_with(tensor.shape[:2]):
        raise ValueError(f"experience.{path} has [B, T] = {tensor.shape[:2]}, expected {outer} as in step_type.")
    return tensor.shape[:2]


def _to_tensor(path: str, leaf: Any) -> tf.Tensor:
    try:
        return leaf if tf.is_tensor(leaf) else tf.convert_to_tensor(np.asarray(leaf))
    except (ValueError, TypeError) as error:
        raise ValueError(f"experience.{path} is {type(leaf).__name__}, expected a tensor or an array.") from error


def _names(nest: Nest) -> str:
    names = [name for name, _ in nest_utils.flatten_with_joined_paths(nest)]
    return ", ".join(name if name.isprintable() else repr(name) for name in names)
