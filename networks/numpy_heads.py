"""The heads of actor networks in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Array

from . import masked_network
from .numpy_dense import NumpyDense


class NumpyHead(Protocol):
    """Features [B, F] -> parameters of one action leaf's distribution -> action [B, ...]."""

    noise: str
    noise_shape: tuple[int, ...]

    def refresh(self) -> None:
        """Copies the weights."""

    def parameters(self, features: Array, mask: Array | None = None) -> list[Array]:
        """Parameters [B, ...] in the alphabetical order of their names; the mask is bool [B, size]."""

    def mode(self, parameters: list[Array]) -> Array:
        """The most likely action [B, ...]."""

    def sample(self, parameters: list[Array], noise: Array) -> Array:
        """An action [B, ...] made from noise [B, *noise_shape] of the kind `noise`."""


class FixedScale:
    """A standard deviation that does not depend on the features.

    Args:
        read: reads it, flat, from the variables.
    """

    def __init__(self, read: Callable[[], Array]) -> None:
        self._read = read
        self.refresh()

    def refresh(self) -> None:
        """Copies it."""
        self._flat = np.asarray(self._read(), np.float32)
        self._rows = np.empty((0, 0), np.float32)

    def __call__(self, features: Array, shape: tuple[int, ...], dtype: np.dtype) -> Array:
        """Returns [B, *shape]; read-only and shared between calls."""
        if len(self._rows) != len(features):
            rows = np.broadcast_to(self._flat, (len(features), self._flat.size))
            self._rows = rows.reshape(len(features), *shape).astype(dtype)
            self._rows.flags.writeable = False
        return self._rows


class DependentScale:
    """softplus of a dense layer, plus a constant.

    Args:
        layer: features -> flat.
        minimum: what is added.
    """

    def __init__(self, layer: NumpyDense, minimum: float) -> None:
        self._layer = layer
        self._minimum = np.float32(minimum)

    def refresh(self) -> None:
        """Copies the weights."""
        self._layer.refresh()

    def __call__(self, features: Array, shape: tuple[int, ...], dtype: np.dtype) -> Array:
        """Returns [B, *shape]."""
        scale = np.logaddexp(self._layer(features), np.float32(0.0)) + self._minimum
        return scale.reshape(len(features), *shape).astype(dtype, copy=False)


def _identity(x: Array) -> Array:
    return x


class NumpyNormalHead:
    """Mirror of independent normals, squashed or not.

    Args:
        mean_layer: features -> flat mean.
        scale: the standard deviation.
        shape: of the action.
        dtype: of the action.
        transform: of the mean [B, *shape].
        bounds: (low, high) to which values are squashed; `None` for normals as they are.
    """

    noise = "normal"

    def __init__(
        self,
        mean_layer: NumpyDense,
        scale: FixedScale | DependentScale,
        shape: tuple[int, ...],
        dtype: tf.DType,
        transform: Callable[[Array], Array] = _identity,
        bounds: tuple[Array, Array] | None = None,
    ) -> None:
        self._mean_layer = mean_layer
        self._scale = scale
        self._transform = transform
        self._dtype = np.dtype(dtype.as_numpy_dtype)
        self._bounds = None if bounds is None else tuple(np.asarray(bound, self._dtype) for bound in bounds)
        self.noise_shape = shape

    def refresh(self) -> None:
        """Copies the weights."""
        self._mean_layer.refresh()
        self._scale.refresh()

    def parameters(self, features: Array, mask: Array | None = None) -> list[Array]:
        """Returns `loc` and `scale`, both [B, *action shape]."""
        del mask
        mean = self._mean_layer(features).reshape(len(features), *self.noise_shape)
        loc = self._transform(mean).astype(self._dtype, copy=False)
        return [loc, self._scale(features, self.noise_shape, self._dtype)]

    def mode(self, parameters: list[Array]) -> Array:
        """Returns the mean, squashed if values are."""
        return self._squash(parameters[0].copy())

    def sample(self, parameters: list[Array], noise: Array) -> Array:
        """Returns loc + scale * noise, squashed if values are."""
        loc, scale = parameters
        action = np.multiply(noise, scale, dtype=self._dtype)
        return self._squash(np.add(action, loc, out=action))

    def _squash(self, x: Array) -> Array:
        if self._bounds is None:
            return x
        low, high = self._bounds
        return np.clip(low + (high - low) * (0.5 + 0.5 * np.tanh(x)), low, high)


class NumpyCategoricalHead:
    """Mirror of one categorical for each component of an integer action.

    Args:
        logits_layer: features -> flat logits.
        possible: [*action shape, categories], False for padding.
        minimum: [*action shape], smallest value of each component.
        dtype: of the action.
        mask_indices: where the categories stand in the action mask, see `action_masks.MaskLayout`; `None` for no mask.
    """

    noise = "gumbel"

    def __init__(
        self,
        logits_layer: NumpyDense,
        possible: Array,
        minimum: Array,
        dtype: tf.DType,
        mask_indices: Array | None = None,
    ) -> None:
        self._logits_layer = logits_layer
        self._impossible = None if possible.all() else ~possible
        self._impossible_logits = masked_network.impossible_logits(possible)
        self._minimum = minimum if minimum.any() else None
        self._dtype = dtype.as_numpy_dtype
        self._mask_indices = mask_indices
        self.noise_shape = possible.shape

    def refresh(self) -> None:
        """Copies the weights."""
        self._logits_layer.refresh()

    def parameters(self, features: Array, mask: Array | None = None) -> list[Array]:
        """Returns `logits` [B, *action shape, categories]."""
        logits = self._logits_layer(features)
        if len(self.noise_shape) > 1:
            logits = logits.reshape(len(features), *self.noise_shape)
        if mask is not None and self._mask_indices is not None:
            padded = np.concatenate([mask, np.zeros((len(mask), 1), bool)], axis=1)
            return [np.where(padded[:, self._mask_indices], logits, self._impossible_logits)]
        if self._impossible is not None:
            logits[:, self._impossible] = masked_network.IMPOSSIBLE_LOGIT
        return [logits]

    def mode(self, parameters: list[Array]) -> Array:
        """Returns the most likely value of each component, the first of equals."""
        return self._to_action(parameters[0].argmax(-1))

    def sample(self, parameters: list[Array], noise: Array) -> Array:
        """Returns the largest of logits + Gumbel noise, which is distributed as softmax(logits)."""
        return self._to_action((parameters[0] + noise).argmax(-1))

    def _to_action(self, index: Array) -> Array:
        if self._minimum is not None:
            index += self._minimum
        return index.astype(self._dtype, copy=False)
