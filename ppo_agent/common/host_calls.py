"""NumPy functions called from TensorFlow, graphs called with arrays, and nests on their way between the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Nest


def call_on_host(function: Callable[[Nest], Nest], argument: Nest, output_spec: Nest = ()) -> Nest:
    """Returns function(argument) as tensors; inside a graph, as one stateful operation.

    Args:
        function: Takes a nest of NumPy arrays and returns one as `output_spec`. Its result must not be changed
            afterwards: tensors may share its memory.
        argument: Nest of tensors.
        output_spec: Nest of `tf.TensorSpec` of the result, batch dimensions included; () for no result.

    Returns:
        Nest of tensors as `output_spec`.
    """
    if tf.executing_eagerly():
        return to_tensors(function(to_arrays(argument)))
    specs = tf.nest.flatten(output_spec)

    def on_flat_arrays(*arrays: Any) -> list[Any]:
        result = function(tf.nest.pack_sequence_as(argument, arrays))
        return tf.nest.flatten(result) if specs else []

    tensors = tf.numpy_function(on_flat_arrays, tf.nest.flatten(argument), [spec.dtype for spec in specs])
    if not specs:
        return ()
    for tensor, spec in zip(tensors, specs, strict=True):
        tensor.set_shape(spec.shape)
    return tf.nest.pack_sequence_as(output_spec, tensors)


def as_one_operation(function: Any) -> Callable[..., list[tf.Tensor]]:
    """Returns what calls a concrete function with a flat list of arrays or tensors, at a third of the usual cost."""
    dtypes = [output.dtype for output in function.outputs]
    captured = list(function.captured_inputs)
    # Grappler's rewrites make small graphs slower, by a tenth, and large ones no faster.
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config_proto = config.SerializeToString()

    def call(arguments: list[Any]) -> list[tf.Tensor]:
        return tf.raw_ops.StatefulPartitionedCall(
            args=[*arguments, *captured], Tout=dtypes, f=function, config_proto=config_proto
        )

    return call


def to_arrays(values: Nest) -> Nest:
    """Returns the arrays of eager tensors, without a copy where TensorFlow allows it."""
    return tf.nest.map_structure(lambda x: x if isinstance(x, np.ndarray) or not tf.is_tensor(x) else x.numpy(), values)


def to_tensors(values: Nest) -> Nest:
    """Returns the tensors of arrays, which may share their memory."""
    # tf.constant takes two thirds of the time of tf.convert_to_tensor, tf.is_tensor as long as both for an array.
    return tf.nest.map_structure(
        lambda x: tf.constant(x) if isinstance(x, np.ndarray) else tf.convert_to_tensor(x), values
    )


def plain(values: Nest) -> Nest:
    """Returns the nest in plain containers, in place of the wrappers that `tf.Module` puts around its attributes.

    The wrappers are slow, and nests made from them are wrapped again.
    """
    if isinstance(values, dict):
        return {key: plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        kind, parts = values.__class__, [plain(value) for value in values]
        return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
    return values


def specs_of(arrays: Nest) -> Nest:
    """Returns the `tf.TensorSpec`s of arrays."""
    return tf.nest.map_structure(lambda array: tf.TensorSpec(array.shape, array.dtype), arrays)


def with_outer_dims(spec: Nest, *dims: int | None) -> Nest:
    """Returns the specs with `dims` put before their shapes, for instance [B, T]."""
    return tf.nest.map_structure(lambda leaf: tf.TensorSpec([*dims, *leaf.shape], leaf.dtype), spec)
