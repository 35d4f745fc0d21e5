"""One step of the recurrent layers in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppo_agent.common.types import Array

from .numpy_dense import read


class NumpyLSTM:
    """Mirror of a built `LSTMMemory`, for one step.

    sigmoid(x) is (1 + tanh(x / 2)) / 2, so that one tanh does for all gates. The inner halves are in the copied
    weights, whose columns are in the order i, f, o, g.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._units = layer.units
        self.refresh()

    def refresh(self) -> None:
        """Copies the weights."""
        weights = (self._layer.kernel, self._layer.recurrent_kernel, self._layer.bias)
        self._kernel, self._recurrent_kernel, self._bias = (_halve_sigmoids(read(weight)) for weight in weights)

    def __call__(self, features: Array, is_first: Array, state: Any) -> tuple[Array, dict[str, Array]]:
        """One step.

        Args:
            features: [B, F] float32.
            is_first: [B] bool; where true, the state before the step is zero.
            state: {'cell': [B, units], 'hidden': [B, units]}, or () for zeros.

        Returns:
            Output [B, units], and the state after the step, in arrays of its own.
        """
        units = self._units
        gates = np.dot(features, self._kernel)
        gates += self._bias
        before: Array | float = 0.0
        if state:
            before, hidden = _reset(is_first, state["cell"]), _reset(is_first, state["hidden"])
            gates += np.dot(hidden, self._recurrent_kernel)
        np.tanh(gates, out=gates)
        sigmoids = gates[:, : 3 * units]
        sigmoids *= 0.5
        sigmoids += 0.5
        cell = sigmoids[:, units : 2 * units] * before
        cell += sigmoids[:, :units] * gates[:, 3 * units :]
        hidden = np.tanh(cell)
        hidden *= sigmoids[:, 2 * units :]
        return hidden, {"cell": cell, "hidden": hidden}


class NumpyGRU:
    """Mirror of a built `GRUMemory`, for one step.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._units = layer.units
        self.refresh()

    def refresh(self) -> None:
        """Copies the weights."""
        weights = (self._layer.kernel, self._layer.recurrent_kernel, self._layer.bias, self._layer.recurrent_bias)
        self._kernel, self._recurrent_kernel, self._bias, self._recurrent_bias = (
            np.array(read(weight), order="C") for weight in weights
        )

    def __call__(self, features: Array, is_first: Array, state: Any) -> tuple[Array, Array]:
        """One step; see `NumpyLSTM`. The state is [B, units], or () for zeros; the next one is the output."""
        units = self._units
        hidden = np.zeros((len(features), units), np.float32) if isinstance(state, tuple) else _reset(is_first, state)
        inputs = np.dot(features, self._kernel)
        inputs += self._bias
        recurrent = np.dot(hidden, self._recurrent_kernel)
        recurrent += self._recurrent_bias
        gates = inputs[:, : 2 * units]
        gates += recurrent[:, : 2 * units]
        gates *= 0.5
        np.tanh(gates, out=gates)
        gates *= 0.5
        gates += 0.5
        candidate = inputs[:, 2 * units :]
        candidate += gates[:, units:] * recurrent[:, 2 * units :]
        np.tanh(candidate, out=candidate)
        # Interpolated with one product instead of two.
        hidden = hidden - candidate
        hidden *= gates[:, :units]
        hidden += candidate
        return hidden, hidden


def _reset(is_first: Array, state: Array) -> Array:
    return np.where(is_first[:, np.newaxis], np.float32(0.0), state) if is_first.any() else state


def _halve_sigmoids(weight: Array) -> Array:
    i, f, g, o = np.split(weight, 4, axis=-1)
    return np.concatenate([0.5 * i, 0.5 * f, 0.5 * o, g], axis=-1)
