"""A function of nests, called as one operation of TensorFlow with NumPy arrays.

Calling a `tf.function` takes 200 us and more, a graph that calls Python back 150 us for each crossing; running the
function as one operation takes 62 us. Each tensor made of an array takes 13 us, so that small ones are packed into one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ppo_agent.common import array_nests, host_calls
from ppo_agent.common.types import Array, Nest

# Leaves of this many bytes are cheaper to hand over alone than to copy.
_LARGE = 4096


class GraphCall:
    """Calls a function of nests of tensors, which returns one, with arguments like an example of arrays."""

    def __init__(self, function: Callable[..., Nest], example: tuple[Nest, ...]) -> None:
        specs = host_calls.specs_of(example)
        self._packing = packing = _Packing(tf.nest.flatten(specs))
        self._flatten = array_nests.flattener(example)

        def call_packed(*packed: tf.Tensor) -> Nest:
            return function(*tf.nest.pack_sequence_as(specs, packing.unpack(packed)))

        traced = tf.function(call_packed, input_signature=packing.specs, autograph=False).get_concrete_function()
        self._pack_result = array_nests.packer(traced.structured_outputs)
        self._call = host_calls.as_one_operation(traced)

    def __call__(self, *arguments: Nest) -> Nest:
        """Returns the function's result, a nest of arrays."""
        tensors = self._call(self._packing.pack(self._flatten(arguments)))
        return self._pack_result(tensor.numpy() for tensor in tensors)


class _Packing:
    """Puts small arrays into one vector of bytes; large ones stay as they are.

    Attributes:
        specs: Of what `pack` returns.
    """

    def __init__(self, specs: list[tf.TensorSpec]) -> None:
        self._is_small = [_num_bytes(spec) < _LARGE for spec in specs]
        self._parts = [spec for spec, is_small in zip(specs, self._is_small, strict=True) if is_small]
        self._sizes = [_num_bytes(part) for part in self._parts]
        large = [spec for spec, is_small in zip(specs, self._is_small, strict=True) if not is_small]
        self.specs = [tf.TensorSpec([sum(self._sizes)], tf.uint8), *large]

    def pack(self, arrays: list[Array]) -> list[Array]:
        """Returns the vector and the large arrays."""
        small, large = [], []
        for array, is_small in zip(arrays, self._is_small, strict=True):
            if is_small:
                small.append(array.tobytes())
            else:
                large.append(array)
        return [np.frombuffer(b"".join(small), np.uint8), *large]

    def unpack(self, packed: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
        """Returns the tensors."""
        small = map(_from_bytes, tf.split(packed[0], self._sizes), self._parts)
        large = iter(packed[1:])
        return [next(small if is_small else large) for is_small in self._is_small]


def _num_bytes(spec: tf.TensorSpec) -> int:
    return int(np.prod(spec.shape)) * spec.dtype.size


def _from_bytes(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Returns the tensor whose bytes these are."""
    if spec.dtype.size == 1:
        values = tf.reshape(values, spec.shape)
        return tf.cast(values, tf.bool) if spec.dtype == tf.bool else tf.bitcast(values, spec.dtype)
    return tf.bitcast(tf.reshape(values, [*spec.shape, spec.dtype.size]), spec.dtype)
