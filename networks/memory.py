"""Recurrent layers that start anew inside a sequence wherever an episode does: LSTM and GRU."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.common.checks import check_int

from . import initializers, recurrence


class Memory(tf.keras.layers.Layer, abc.ABC):
    """What `LSTMMemory` and `GRUMemory` share: a layer over sequences of features, with a state.

    One matrix product projects the features of all steps, `inputs = features @ kernel + bias`. Step by step follows
    `recurrent = hidden @ recurrent_kernel + recurrent_bias`, and what `cell` does with both. Kernels are orthogonal.

    Args:
        units: size of the hidden state, which is the output too.
        seed: of the initial weights; `None` follows `tf.random.set_seed`.
        name: of the layer.

    Raises:
        ValueError: if `units` is no positive int.
    """

    # First values of `bias`, one for each gate.
    initial_bias: tuple[float, ...]
    has_recurrent_bias: bool

    def __init__(self, units: int, *, seed: int | None = None, name: str | None = None) -> None:
        check_int("units", units)
        super().__init__(name=name)
        self.units = units
        self._seed = seed
        self._seeds = initializers.SeedSource(seed, type(self).__name__)

    @property
    @abc.abstractmethod
    def state_spec(self) -> Any:
        """Nest of the state's specs [units], without batch dimension; the last leaf is the hidden state."""

    @staticmethod
    @abc.abstractmethod
    def cell(inputs: tf.Tensor, recurrent: tf.Tensor, state: list[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the leaves of the state after one step.

        Args:
            inputs: [B, gates * units], what the features contribute.
            recurrent: [B, gates * units], what the hidden state contributes.
            state: leaves of the state before the step, each [B, units].
        """

    def get_config(self) -> dict[str, Any]:
        """The arguments, from which `from_config` makes a layer with weights of its own."""
        return {"units": self.units, "seed": self._seed, "name": self.name}

    def build(self, input_shape: Any) -> None:
        """Adds the weights for features of the last size of `input_shape`."""
        self.kernel = self._add_kernel("kernel", int(input_shape[-1]))
        self.recurrent_kernel = self._add_kernel("recurrent_kernel", self.units)
        self.bias = self._add_bias("bias", self.initial_bias)
        if self.has_recurrent_bias:
            self.recurrent_bias = self._add_bias("recurrent_bias", [0.0] * len(self.initial_bias))
        super().build(input_shape)

    def _add_kernel(self, name: str, rows: int) -> tf.Variable:
        initializer = tf.keras.initializers.Orthogonal(seed=self._seeds())
        return self.add_weight(name, (rows, len(self.initial_bias) * self.units), tf.float32, initializer=initializer)

    def _add_bias(self, name: str, gate_values: Sequence[float]) -> tf.Variable:
        initializer = tf.constant_initializer(np.repeat(gate_values, self.units))
        return self.add_weight(name, (len(gate_values) * self.units,), tf.float32, initializer=initializer)

    def call(self, features: tf.Tensor, is_first: tf.Tensor, state: Any = ()) -> tuple[tf.Tensor, Any]:
        """Runs T steps.

        Args:
            features: [B, T, F] float32.
            is_first: [B, T] bool; where true, an episode starts: whatever came before, the state before the step is
                zero.
            state: nest like `state_spec` of [B, units], the state before the first step; () or None for zeros.

        Returns:
            Outputs [B, T, units], and the state after the last step, a nest like `state_spec`.
        """
        leaves = tf.nest.flatten(() if state is None else state)
        if not leaves:
            leaves = [tf.zeros([tf.shape(features)[0], self.units]) for _ in tf.nest.flatten(self.state_spec)]
        # Transposed before the product, because features are smaller than what they are projected to.
        inputs = tf.tensordot(tf.transpose(features, [1, 0, 2]), self.kernel, axes=1) + self.bias
        outputs, leaves = recurrence.unroll(
            self.cell,
            inputs,
            tf.convert_to_tensor(self.recurrent_kernel),
            tf.convert_to_tensor(self.recurrent_bias) if self.has_recurrent_bias else None,
            tf.transpose(is_first)[..., tf.newaxis],
            leaves,
        )
        return tf.transpose(outputs, [1, 0, 2]), tf.nest.pack_sequence_as(self.state_spec, leaves)


class LSTMMemory(Memory):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), as `tf.keras.layers.LSTMCell` computes it.

    With i, f, g, o the four parts of `inputs + recurrent`: cell = sigmoid(f) * cell + sigmoid(i) * tanh(g),
    hidden = sigmoid(o) * tanh(cell). The bias of f starts at 1 (Jozefowicz et al. 2015), all others at 0.
    The state is {'cell': [units], 'hidden': [units]}.
    """

    initial_bias = (0.0, 1.0, 0.0, 0.0)
    has_recurrent_bias = False

    @property
    def state_spec(self) -> dict[str, tf.TensorSpec]:
        """Specs of cell and hidden state."""
        return {name: tf.TensorSpec([self.units], tf.float32, name) for name in ("cell", "hidden")}

    @staticmethod
    def cell(inputs: tf.Tensor, recurrent: tf.Tensor, state: list[tf.Tensor]) -> list[tf.Tensor]:
        """One step; see `Memory.cell`."""
        i, f, g, o = tf.split(inputs + recurrent, 4, axis=-1)
        cell = tf.sigmoid(f) * state[0] + tf.sigmoid(i) * tf.tanh(g)
        return [cell, tf.sigmoid(o) * tf.tanh(cell)]


class GRUMemory(Memory):
    """Gated recurrent unit (Cho et al. 2014), as `tf.keras.layers.GRUCell` computes it with `reset_after=True`.

    With z, r, n the three parts of inputs and recurrent: z = sigmoid(z_in + z_rec), r = sigmoid(r_in + r_rec),
    n = tanh(n_in + r * n_rec), hidden = z * hidden + (1 - z) * n. The bias of z starts at 1, so that the layer keeps
    what it knows at first, as the LSTM does; all others at 0. The state is one tensor, [units].
    """

    initial_bias = (1.0, 0.0, 0.0)
    has_recurrent_bias = True

    @property
    def state_spec(self) -> tf.TensorSpec:
        """Spec of the hidden state."""
        return tf.TensorSpec([self.units], tf.float32, "hidden")

    @staticmethod
    def cell(inputs: tf.Tensor, recurrent: tf.Tensor, state: list[tf.Tensor]) -> list[tf.Tensor]:
        """One step; see `Memory.cell`."""
        z_in, r_in, n_in = tf.split(inputs, 3, axis=-1)
        z_rec, r_rec, n_rec = tf.split(recurrent, 3, axis=-1)
        z = tf.sigmoid(z_in + z_rec)
        n = tf.tanh(n_in + tf.sigmoid(r_in + r_rec) * n_rec)
        return [z * state[0] + (1.0 - z) * n]
