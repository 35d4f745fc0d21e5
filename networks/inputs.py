"""What networks take: which observations fit, in which dtypes, with which outer dimensions, and where the mask is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.common import action_masks, observation_kinds

LeafKind = observation_kinds.LeafKind


def network_input_spec(observation_spec: Any, splitter: action_masks.Splitter | None = None) -> Any:
    """The spec of what a network computes with.

    Args:
        observation_spec: nest of specs, without outer dimensions.
        splitter: `observation_and_action_constraint_splitter`.

    Returns:
        The same nest: float32 for numbers, int32 for categories, uint8 for images, bool for the action mask (float32
        if it comes as a float).

    Raises:
        ValueError: if a leaf is not numeric or its shape is unknown.
        TypeError: if a leaf is no spec.
    """
    for found in tf.nest.flatten(observation_spec):
        if not hasattr(found, "shape") or not hasattr(found, "dtype"):
            raise TypeError(f"observation_spec: found {type(found).__name__}, expected a nest of tf.TensorSpec.")
    if not tf.nest.flatten(observation_spec):
        raise ValueError(f"observation_spec is {observation_spec!r}, expected at least one leaf.")
    specs = tensor_spec.from_spec(observation_spec)
    _, mask_spec = action_masks.split(specs, splitter)

    def leaf(spec: tf.TypeSpec) -> tf.TypeSpec:
        if spec is mask_spec:
            return tf.TensorSpec(spec.shape, tf.float32 if spec.dtype.is_floating else tf.bool, spec.name)
        return _leaf_input_spec(spec)

    return tf.nest.map_structure(leaf, specs)


def _leaf_input_spec(spec: tf.TypeSpec) -> tf.TypeSpec:
    name = spec.name or "a leaf"
    if not (spec.dtype.is_floating or spec.dtype.is_integer or spec.dtype.is_bool):
        raise ValueError(f"observation_spec: {name} has dtype {spec.dtype.name}, expected numbers.")
    if not spec.shape.is_fully_defined():
        raise ValueError(f"observation_spec: shape {spec.shape} of {name} must be fully defined.")
    kind = observation_kinds.leaf_kind(spec)
    if kind is not LeafKind.IMAGE and spec.shape.num_elements() == 0:
        raise ValueError(f"observation_spec: {name} has shape {spec.shape}, expected at least one component.")
    if kind is LeafKind.CATEGORY:
        # Both bounds in full, because TF-Agents cannot draw samples where one is a number and the other an array.
        low, high = (np.broadcast_to(bound, spec.shape) for bound in (spec.minimum, spec.maximum))
        return tensor_spec.BoundedTensorSpec(spec.shape, tf.int32, low, high, spec.name)
    if kind is LeafKind.IMAGE:
        # TF-Agents builds networks on samples of this spec, and with NumPy 2 its sampling fails at a maximum of 255.
        largest = min(observation_kinds.largest_pixel(spec), 254)
        return tensor_spec.BoundedTensorSpec(spec.shape, tf.uint8, 0, largest, spec.name)
    return tf.TensorSpec(spec.shape, tf.float32, spec.name)


def select_keys(observation: Any, keys: Sequence[str] | None) -> Any:
    """The entries of a mapping with these keys, of an observation or its spec without the mask; all of it for None.

    Raises:
        ValueError: it is no mapping, or has no such key.
    """
    if keys is None:
        return observation
    known = list(observation) if isinstance(observation, Mapping) else []
    unknown = [key for key in keys if key not in known]
    if unknown or not keys:
        expected = f"some of {', '.join(map(str, known))}" if known else "None: the observation is no mapping"
        raise ValueError(f"observation_keys is {tuple(keys)}, expected {expected}.")
    return {key: observation[key] for key in known if key in keys}


def check_fits(observation_spec: Any, input_spec: Any) -> None:
    """Raises ValueError unless observations of `observation_spec` fit a network built for `input_spec`."""
    try:
        tf.nest.assert_same_structure(observation_spec, input_spec, check_types=False)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"observation: the network was built for the structure {_names(input_spec)}, but found "
            f"{_names(observation_spec)}."
        ) from error
    for found, expected in zip(tf.nest.flatten(observation_spec), tf.nest.flatten(input_spec), strict=True):
        if not expected.shape.is_compatible_with(found.shape):
            raise ValueError(f"observation: the network was built for shape {expected.shape}, but found {found.shape}.")
        _check_dtype(found.dtype, expected)


def cast_to_spec(observation: Any, input_spec: Any) -> Any:
    """Casts numbers to float32, categories to int32 and masks to bool.

    Raises:
        ValueError: if categories are no integers, or images no uint8.
    """

    def leaf(value: Any, spec: tf.TypeSpec) -> Any:
        _check_dtype(value.dtype, spec)
        return tf.cast(value, spec.dtype)

    return tf.nest.map_structure(leaf, observation, input_spec)


def _check_dtype(dtype: tf.DType, spec: tf.TypeSpec) -> None:
    dtype = tf.as_dtype(dtype)
    if spec.dtype == tf.uint8 and dtype != tf.uint8:
        raise ValueError(
            f"observation: {spec.name or 'a leaf'} holds images (uint8), but found {dtype.name}; the network scales "
            "images itself, they must not be normalised."
        )
    if spec.dtype == tf.bool and dtype.is_floating:
        raise ValueError(
            f"observation: {spec.name or 'a leaf'} is an action mask, but found {dtype.name}, expected integers or "
            "booleans; masks cannot be normalised."
        )
    if spec.dtype == tf.int32 and not dtype.is_integer:
        raise ValueError(
            f"observation: {spec.name or 'a leaf'} holds categories (integers {spec.minimum} to {spec.maximum}), but "
            f"found {dtype.name}; categories cannot be normalised."
        )


def _names(spec: Any) -> str:
    return str(tf.nest.map_structure(lambda leaf: leaf.name or leaf.dtype.name, spec))


class Rows(NamedTuple):
    """An observation whose outer dimensions are joined.

    Attributes:
        observation: nest of tensors [N, ...], N is B or B * T, as the network's spec has it, without the mask.
        mask: bool [N, size], or None.
        outer: the outer dimensions, [B] or [B, T]; integers where they are known statically.
    """

    observation: Any
    mask: tf.Tensor | None
    outer: list[int | tf.Tensor]


def to_rows(observation: Any, input_spec: Any, splitter: action_masks.Splitter | None = None) -> Rows:
    """Splits off the mask of an observation [B, ...] or [B, T, ...] and joins the outer dimensions."""
    outer = outer_shape(observation, input_spec)
    if len(outer) > 1:
        observation = tf.nest.map_structure(lambda x, spec: tf.reshape(x, [-1, *spec.shape]), observation, input_spec)
    observation, mask = action_masks.split(observation, splitter)
    return Rows(observation, None if mask is None else tf.cast(mask, tf.bool), outer)


def outer_shape(observation: Any, spec: Any) -> list[int | tf.Tensor]:
    """The outer dimensions of an observation, [B] or [B, T]; integers where they are known statically."""
    value, leaf_spec = tf.nest.flatten(observation)[0], tf.nest.flatten(spec)[0]
    static = value.shape.as_list()[: value.shape.rank - leaf_spec.shape.rank]
    if None not in static:
        return static
    dynamic = tf.shape(value)
    return [dynamic[i] if size is None else size for i, size in enumerate(static)]


def unflatten(tensor: tf.Tensor, outer: Sequence[int | tf.Tensor]) -> tf.Tensor:
    """Reshapes [N, ...] to [*outer, ...]; N is the product of `outer`."""
    if len(outer) == 1:
        return tensor
    return tf.reshape(tensor, [*outer, *tensor.shape[1:]])
