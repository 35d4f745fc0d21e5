"""Streaming normalisation of observations and rewards."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tf_agents.utils import tensor_normalizer

from ppo_agent.common import action_masks
from ppo_agent.common.types import Nest


class StreamingNormalizer(tensor_normalizer.StreamingTensorNormalizer):
    """TF-Agents' normaliser by the mean and variance of all it has seen, for any dtype and any number of rows.

    Integers (counts) are normalised to float32 instead of being rounded back to integers, and an update with no rows
    changes nothing instead of making the statistics NaN. Rows of a leaf that hold a NaN or an infinity are left out,
    and so is an update whose sums overflow.

    Attributes:
        normalizes: a bool for every leaf, in tf.nest's order; a leaf with False has no statistics and stays as it is.
    """

    def __init__(
        self, spec: Nest, scope: str = "normalize_tensor", *, normalizes: Sequence[bool] | None = None
    ) -> None:
        """Creates the statistics.

        Args:
            spec: nest of TensorSpecs of single entries, without batch dimensions.
            scope: name scope of the variables.
            normalizes: which leaves are normalised; None for all.
        """
        count = len(tf.nest.flatten(spec))
        self.normalizes = (True,) * count if normalizes is None else tuple(normalizes)
        self._whole_spec = spec
        chosen = spec if all(self.normalizes) else self._chosen(spec)
        super().__init__(tf.nest.map_structure(_float_spec, chosen), scope=scope)

    def output_spec(self) -> Nest:
        """The spec of what `normalize` returns: float32 in place of normalised integers."""
        return self._put_back(self._whole_spec, tf.nest.flatten(self._tensor_spec))

    def update(self, tensor: Nest, outer_dims: tuple[int, ...] = (0,)) -> tf.Operation | None:
        """Takes rows into the statistics; `outer_dims` are found by comparing with the spec."""
        return super().update(self._as_float(tensor), outer_dims)

    def normalize(
        self, tensor: Nest, clip_value: float = 5.0, center_mean: bool = True, variance_epsilon: float = 1e-3
    ) -> Nest:
        """Returns `clip((tensor - mean) / sqrt(variance + variance_epsilon), -clip_value, clip_value)`.

        Args:
            tensor: nest of tensors of the spec with any batch dimensions in front.
            clip_value: bound of the result; 0 for none.
            center_mean: False leaves the mean in.
            variance_epsilon: added to the variance.

        Returns:
            The same structure and shapes; float32 where an integer was normalised.
        """
        normalized = super().normalize(self._as_float(tensor), clip_value, center_mean, variance_epsilon)
        return self._put_back(tensor, tf.nest.flatten(normalized))

    def _chosen(self, nest: Nest) -> list[Any]:
        """The leaves that are normalised."""
        return [leaf for leaf, chosen in zip(tf.nest.flatten(nest), self.normalizes, strict=True) if chosen]

    def _put_back(self, nest: Nest, chosen: Sequence[Any]) -> Nest:
        """The nest with its normalised leaves replaced."""
        new = iter(chosen)
        leaves = [next(new) if c else leaf for leaf, c in zip(tf.nest.flatten(nest), self.normalizes, strict=True)]
        return tf.nest.pack_sequence_as(nest, leaves)

    def _as_float(self, tensor: Nest) -> Nest:
        """What is normalised, as floats in the structure of the statistics."""
        tf.nest.assert_same_structure(tensor, self._whole_spec)
        specs = tf.nest.flatten(self._tensor_spec)
        floats = [tf.cast(t, spec.dtype) for t, spec in zip(self._chosen(tensor), specs, strict=True)]
        return tf.nest.pack_sequence_as(self._tensor_spec, floats)

    def _update_ops(self, tensors: Nest, outer_dims: tuple[int, ...]) -> list[tf.Operation]:
        del outer_dims
        operations = []
        for i, (rows, spec) in enumerate(zip(tf.nest.flatten(tensors), self._flat_variable_spec, strict=True)):
            operations += self._update_leaf(i, tf.reshape(rows, tf.concat([[-1], spec.shape], axis=0)))
        return operations

    def _update_leaf(self, i: int, rows: tf.Tensor) -> list[tf.Operation]:
        """Merges rows [n, ...] into the i-th leaf's count, mean and sum of squared deviations, the finite ones."""
        is_finite = tf.reduce_all(tf.math.is_finite(rows), axis=list(range(1, rows.shape.rank)), keepdims=True)
        rows, nothing = tf.where(is_finite, rows, tf.zeros_like(rows)), tf.zeros_like(rows)
        count = tf.reduce_sum(tf.cast(is_finite, rows.dtype))
        mean = tf.math.divide_no_nan(tf.reduce_sum(rows, axis=0), count)
        deviations = tf.where(is_finite, tf.math.squared_difference(rows, mean), nothing)
        statistics = (self._count[i], self._avg[i], self._m2[i], self._m2_carry[i])
        merged = tensor_normalizer.parallel_variance_calculation(
            count, mean, tf.reduce_sum(deviations, axis=0), *statistics
        )
        # Sums of finite numbers can overflow.
        fits = tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in merged])
        return [
            variable.assign(tf.where(fits, value, variable)) for variable, value in zip(statistics, merged, strict=True)
        ]


def _float_spec(spec: tf.TensorSpec) -> tf.TensorSpec:
    return spec if spec.dtype.is_floating else tf.TensorSpec(spec.shape, tf.float32, spec.name)


def make_observation_normalizer(
    observation_spec: Nest, network_spec: Nest | None = None, splitter: action_masks.Splitter | None = None
) -> StreamingNormalizer | None:
    """A normaliser of what the networks take as floating-point numbers.

    Categories and images stay as they are for a network that takes integers there, action masks always.

    Args:
        observation_spec: nest of specs, without batch dimensions.
        network_spec: what the networks were built for, without the action mask; None if they do not tell.
        splitter: where the mask is, see `action_masks.split`.

    Returns:
        The normaliser, None if there is nothing to normalise.
    """
    # Copies, because one spec may stand for several leaves.
    leaves = [copy.copy(leaf) for leaf in tf.nest.flatten(observation_spec)]
    seen, _ = action_masks.split(tf.nest.pack_sequence_as(observation_spec, leaves), splitter)
    # A network for another structure is refused elsewhere.
    flat_seen, flat_taken = tf.nest.flatten(seen), tf.nest.flatten(network_spec)
    taken = flat_taken if network_spec is not None and len(flat_taken) == len(flat_seen) else [None] * len(flat_seen)
    chosen = {id(leaf) for leaf, spec in zip(flat_seen, taken, strict=True) if spec is None or spec.dtype.is_floating}
    normalizes = [id(leaf) in chosen for leaf in leaves]
    if not any(normalizes):
        return None
    return StreamingNormalizer(observation_spec, "normalize_observations", normalizes=normalizes)
