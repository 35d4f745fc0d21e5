"""Streaming normalisation of observations and rewards."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tf_agents.utils import tensor_normalizer

Nest = Any
Tensor = Any


class StreamingNormalizer(tensor_normalizer.StreamingTensorNormalizer):
    """TF-Agents' normaliser by the mean and variance of all it has seen, for any dtype and any number of rows.

    Integers (images, counts) are normalised to float32 instead of being rounded back to integers, and an update with
    no rows changes nothing instead of making the statistics NaN.
    """

    def __init__(self, spec: Nest, scope: str = "normalize_tensor") -> None:
        """Creates the statistics.

        Args:
            spec: nest of TensorSpecs of single entries, without batch dimensions.
            scope: name scope of the variables.
        """
        super().__init__(tf.nest.map_structure(_float_spec, spec), scope=scope)

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
            The same structure and shapes; float32 where the input is an integer.
        """
        return super().normalize(self._as_float(tensor), clip_value, center_mean, variance_epsilon)

    def _as_float(self, tensor: Nest) -> Nest:
        return tf.nest.map_structure(lambda t, spec: tf.cast(t, spec.dtype), tensor, self._tensor_spec)

    def _update_ops(self, tensors: Nest, outer_dims: tuple[int, ...]) -> list[tf.Operation]:
        del outer_dims
        operations = []
        for i, (rows, spec) in enumerate(zip(tf.nest.flatten(tensors), self._flat_variable_spec, strict=True)):
            operations += self._update_leaf(i, tf.reshape(rows, tf.concat([[-1], spec.shape], axis=0)))
        return operations

    def _update_leaf(self, i: int, rows: tf.Tensor) -> list[tf.Operation]:
        """Merges rows [n, ...] into the i-th leaf's count, mean and sum of squared deviations."""
        count = tf.cast(tf.shape(rows)[0], rows.dtype)
        mean = tf.math.divide_no_nan(tf.reduce_sum(rows, axis=0), count)
        squares = tf.reduce_sum(tf.math.squared_difference(rows, mean), axis=0)
        statistics = (self._count[i], self._avg[i], self._m2[i], self._m2_carry[i])
        merged = tensor_normalizer.parallel_variance_calculation(count, mean, squares, *statistics)
        return [variable.assign(value) for variable, value in zip(statistics, merged, strict=True)]


def _float_spec(spec: tf.TensorSpec) -> tf.TensorSpec:
    return spec if spec.dtype.is_floating else tf.TensorSpec(spec.shape, tf.float32, spec.name)
