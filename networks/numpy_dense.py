"""Fully connected layers in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Array


def _identity(x: Array) -> Array:
    return x


def _tanh(x: Array) -> Array:
    return np.tanh(x, out=x)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0.0, out=x)


# In place, by the function that a Keras layer holds.
ACTIVATIONS: dict[Callable[..., Any], Callable[[Array], Array]] = {
    tf.keras.activations.linear: _identity,
    tf.keras.activations.tanh: _tanh,
    tf.math.tanh: _tanh,
    tf.keras.activations.relu: _relu,
    tf.nn.relu: _relu,
}


def read(variable: tf.Variable) -> Array:
    """A copy of the variable's value, in half the time of `variable.numpy()`."""
    return variable.value().numpy()


class NumpyDense:
    """Mirror of a built Keras `Dense` layer without its activation."""

    def __init__(self, layer: tf.keras.layers.Dense) -> None:
        self._layer = layer
        self.units = layer.units
        self.refresh()

    def refresh(self) -> None:
        """Copies kernel and bias."""
        self._kernel = np.array(read(self._layer.kernel), np.float32, order="C")
        self._bias = np.array(read(self._layer.bias), np.float32)[np.newaxis]

    def __call__(self, x: Array, out: Array | None = None) -> Array:
        """Returns x [B, in] @ kernel + bias, [B, units], in `out` if given."""
        if len(x) != len(self._bias):
            # One copy of the bias for each row: adding equal shapes takes a third of the time of broadcasting.
            self._bias = np.repeat(self._bias[:1], len(x), axis=0)
        out = np.dot(x, self._kernel, out=out)
        return np.add(out, self._bias, out=out)


def mirror_layers(
    layers: Sequence[tf.keras.layers.Dense],
) -> list[tuple[NumpyDense, Callable[[Array], Array]]] | None:
    """Mirrors of built dense layers with their activations; `None` if an activation has none."""
    if any(layer.activation not in ACTIVATIONS for layer in layers):
        return None
    return [(NumpyDense(layer), ACTIVATIONS[layer.activation]) for layer in layers]
