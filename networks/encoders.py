"""From observations to features: every leaf becomes a vector, the vectors are joined, an MLP follows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.networks import initializers

Activation = str | Callable[[tf.Tensor], tf.Tensor] | None

# Bounded integer scalars with more values than this are numbers rather than categories.
MAX_CATEGORIES = 4096


def num_categories(spec: tf.TypeSpec) -> int | None:
    """Number of categories of an observation leaf that is one-hot encoded; `None` if it is a plain number.

    Bounded integer scalars, such as gymnasium's `Discrete`, are categories.
    """
    if spec.shape.rank != 0 or not spec.dtype.is_integer or not tensor_spec.is_bounded(spec):
        return None
    count = int(spec.maximum) - int(spec.minimum) + 1
    return count if 1 <= count <= MAX_CATEGORIES else None


def network_input_spec(observation_spec: Any) -> Any:
    """The spec of what a network computes with: float32 for numbers, int32 for categories."""

    def leaf(spec: tf.TypeSpec) -> tf.TypeSpec:
        if not (spec.dtype.is_floating or spec.dtype.is_integer or spec.dtype.is_bool):
            raise ValueError(f"observation_spec: {spec.name or 'a leaf'} has dtype {spec.dtype.name}, not numbers.")
        if not spec.shape.is_fully_defined():
            raise ValueError(f"observation_spec: shape {spec.shape} of {spec.name or 'a leaf'} must be fully defined.")
        if num_categories(spec):
            return tensor_spec.BoundedTensorSpec([], tf.int32, int(spec.minimum), int(spec.maximum), spec.name)
        return tf.TensorSpec(spec.shape, tf.float32, spec.name)

    return tf.nest.map_structure(leaf, tensor_spec.from_spec(observation_spec))


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
        _check_category(found.dtype, expected)


def cast_to_spec(observation: Any, input_spec: Any) -> Any:
    """Casts the numbers of an observation to float32, the categories to int32.

    Raises:
        ValueError: if a category is no integer.
    """

    def leaf(value: Any, spec: tf.TypeSpec) -> Any:
        _check_category(value.dtype, spec)
        return tf.cast(value, spec.dtype)

    return tf.nest.map_structure(leaf, observation, input_spec)


def _check_category(dtype: tf.DType, spec: tf.TypeSpec) -> None:
    if spec.dtype.is_integer and not tf.as_dtype(dtype).is_integer:
        raise ValueError(
            f"observation: {spec.name or 'a leaf'} holds categories (integers {spec.minimum} to {spec.maximum}), but "
            f"found {tf.as_dtype(dtype).name}; categories cannot be normalised."
        )


def _names(spec: Any) -> str:
    return str(tf.nest.map_structure(lambda leaf: leaf.name or leaf.dtype.name, spec))


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


class ObservationEncoder(tf.keras.layers.Layer):
    """Joins the leaves of an observation into one vector and applies a multi-layer perceptron.

    Args:
        input_spec: nest as `network_input_spec` returns it.
        fc_layers: units of each fully connected layer; empty for none.
        activation: of every layer.
        seeds: where the layers' seeds come from.
        name: of the layer.
    """

    def __init__(
        self,
        input_spec: Any,
        fc_layers: Sequence[int],
        activation: Activation,
        seeds: initializers.SeedSource,
        name: str = "encoder",
    ) -> None:
        super().__init__(name=name)
        self.leaf_specs = tuple(tf.nest.flatten(input_spec))
        self.dense_layers = [
            initializers.dense(units, initializers.HIDDEN_GAIN, seeds(), activation, f"dense_{i}")
            for i, units in enumerate(fc_layers)
        ]

    def call(self, observation: Any) -> tf.Tensor:
        """Returns features [N, F] of an observation nest [B, ...] or [B, T, ...]; N is B or B * T."""
        leaves = tf.nest.flatten(observation)
        vectors = [_to_vector(value, spec) for value, spec in zip(leaves, self.leaf_specs, strict=True)]
        features = vectors[0] if len(vectors) == 1 else tf.concat(vectors, axis=-1)
        for layer in self.dense_layers:
            features = layer(features)
        return features


def _to_vector(value: tf.Tensor, spec: tf.TypeSpec) -> tf.Tensor:
    """One leaf [B, ...] or [B, T, ...] as float32 vectors [N, size]."""
    categories = num_categories(spec)
    if categories:
        return tf.one_hot(tf.reshape(value - spec.minimum, [-1]), categories)
    return tf.reshape(value, [-1, int(np.prod(spec.shape.as_list()))])
