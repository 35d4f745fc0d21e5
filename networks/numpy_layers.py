"""The forward pass of actor networks in NumPy, for collection from Python environments.

Calling TensorFlow from Python costs 200 us or more, whatever the size of the network; a small network in NumPy costs
10. A mirror copies the weights when it is told to (`refresh`) and computes what the network computes, to float32
rounding. Hidden layers write into buffers that are kept; everything that is returned belongs to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ppo_agent.common.types import Array

from . import encoders
from .numpy_dense import NumpyDense, read
from .numpy_heads import NumpyHead


class NumpyMemory(Protocol):
    """Mirror of a memory, for one step."""

    def refresh(self) -> None:
        """Copies the weights."""

    def __call__(self, features: Array, is_first: Array, state: Any) -> tuple[Array, Any]:
        """Outputs [B, U] and the next state, of features [B, F], is_first bool [B] and the state before the step.

        The state is a nest like the memory's `state_spec`, or () for zeros.
        """


class NumpyTorso:
    """Mirror of encoder and memory.

    Args:
        encoder: from the leaves of an observation to features.
        memory: after it, or `None`.
    """

    def __init__(self, encoder: NumpyEncoder, memory: NumpyMemory | None = None) -> None:
        self.encoder = encoder
        self.memory = memory

    def refresh(self) -> None:
        """Copies the weights."""
        self.encoder.refresh()
        if self.memory is not None:
            self.memory.refresh()

    def __call__(self, leaves: list[Array], is_first: Array | None = None, state: Any = ()) -> tuple[Array, Any]:
        """Returns features [B, F], valid until the next call, and the state after the step.

        Args:
            leaves: of the observation, each [B, ...], in tf.nest's order.
            is_first: bool [B], where an episode starts; `None` for nowhere.
            state: of the memory before the step, () for zeros.
        """
        features = self.encoder(leaves)
        if self.memory is None:
            return features, ()
        return self.memory(features, np.zeros(len(features), bool) if is_first is None else is_first, state)


class NumpyActor:
    """Mirror of an actor network: torso and heads.

    Args:
        torso: encoder and memory.
        numpy_heads: one for each leaf of the action.
        mask_leaf: which leaf of the observation is the action mask; `None` for none.
    """

    def __init__(self, torso: NumpyTorso, numpy_heads: list[NumpyHead], mask_leaf: int | None = None) -> None:
        self.torso = torso
        self.heads = numpy_heads
        self._mask_leaf = mask_leaf

    @property
    def encoder(self) -> NumpyEncoder:
        """Mirror of the encoder."""
        return self.torso.encoder

    def refresh(self) -> None:
        """Copies the weights of the network."""
        self.torso.refresh()
        for head in self.heads:
            head.refresh()

    def __call__(
        self, leaves: list[Array], is_first: Array | None = None, state: Any = ()
    ) -> tuple[list[list[Array]], Any]:
        """Returns the parameters of each head's distribution, and the state after the step; see `NumpyTorso`."""
        features, state = self.torso(leaves, is_first, state)
        mask = None if self._mask_leaf is None else leaves[self._mask_leaf] != 0
        return [head.parameters(features, mask) for head in self.heads], state


class NumpyLeaf(Protocol):
    """Mirror of a leaf's encoder: values [B, ...] -> a vector [B, size]."""

    size: int

    def refresh(self) -> None:
        """Copies the weights."""

    def __call__(self, values: Array) -> Array:
        """Returns vectors that can be assigned to [B, size]."""


class NumpyNumbers:
    """Mirror of `encoders.Numbers`."""

    def __init__(self, size: int) -> None:
        self.size = size

    def refresh(self) -> None:
        """Has no weights."""

    def __call__(self, values: Array) -> Array:
        """Returns the values, flattened."""
        return values.reshape(len(values), -1)


class NumpyCategories:
    """Mirror of `encoders.Categories`."""

    def __init__(self, categories: encoders.Categories) -> None:
        self.size = categories.size
        self._component = categories.component if len(categories.minimum) > 1 else np.zeros(1, np.int64)
        self._value = categories.value

    def refresh(self) -> None:
        """Has no weights."""

    def __call__(self, values: Array) -> Array:
        """Returns one-hot vectors, joined."""
        return values.reshape(len(values), -1)[:, self._component] == self._value


class NumpyEmbedding:
    """Mirror of a built `encoders.Embedding`."""

    def __init__(self, layer: encoders.Embedding) -> None:
        self._layer = layer
        self._offsets = layer.categories.offsets - layer.categories.minimum
        self.size = len(self._offsets) * layer.embedding_size
        self.refresh()

    def refresh(self) -> None:
        """Copies the table."""
        self._table = np.array(read(self._layer.embeddings))

    def __call__(self, values: Array) -> Array:
        """Returns the vectors of the categories, joined."""
        return self._table[values.reshape(len(values), -1) + self._offsets].reshape(len(values), -1)


NumpyLayer = tuple[NumpyDense, Callable[[Array], Array]]


class NumpyEncoder:
    """Mirror of `ObservationEncoder`: encodes the leaves, joins them and applies the dense layers.

    Args:
        leaf_encoders: one for each leaf that is encoded.
        layers: dense layers, each with its in-place activation.
        positions: which leaves of the observation these are; `None` for all.
    """

    def __init__(
        self, leaf_encoders: Sequence[NumpyLeaf], layers: list[NumpyLayer], positions: Sequence[int] | None = None
    ) -> None:
        self._leaf_encoders = list(leaf_encoders)
        self._positions = list(range(len(leaf_encoders))) if positions is None else list(positions)
        ends = np.cumsum([leaf.size for leaf in leaf_encoders]).tolist()
        self._columns = [slice(end - leaf.size, end) for end, leaf in zip(ends, leaf_encoders, strict=True)]
        self._layers = layers
        self._joined = np.empty((0, ends[-1]), np.float32)
        self._hidden: list[Array] = []

    def refresh(self) -> None:
        """Copies the weights."""
        for leaf in self._leaf_encoders:
            leaf.refresh()
        for layer, _ in self._layers:
            layer.refresh()

    def __call__(self, leaves: list[Array]) -> Array:
        """Returns features [B, F] of observation leaves [B, ...], valid until the next call."""
        if len(leaves[0]) != len(self._joined):
            self._allocate(len(leaves[0]))
        x = self._join(leaves)
        for (layer, activation), out in zip(self._layers, self._hidden, strict=True):
            x = activation(layer(x, out))
        return x

    def _allocate(self, batch_size: int) -> None:
        self._joined = np.empty((batch_size, self._joined.shape[1]), np.float32)
        self._hidden = [np.empty((batch_size, layer.units), np.float32) for layer, _ in self._layers]

    def _join(self, leaves: list[Array]) -> Array:
        if len(self._positions) == 1:
            only = leaves[self._positions[0]]
            if only.ndim == 2 and only.dtype == np.float32 and type(self._leaf_encoders[0]) is NumpyNumbers:
                return only
        for encode, columns, position in zip(self._leaf_encoders, self._columns, self._positions, strict=True):
            self._joined[:, columns] = encode(leaves[position])
        return self._joined
