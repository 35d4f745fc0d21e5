"""The forward pass of actor networks in NumPy, for collection from Python environments.

Calling TensorFlow from Python costs 200 us or more, whatever the size of the network; a small network in NumPy costs
10. A mirror copies the weights when it is told to (`refresh`) and computes what the network computes, to float32
rounding. Hidden layers write into buffers that are kept; everything that is returned belongs to the caller.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from ppo_agent.networks import encoders, heads

Array = np.ndarray


class NumpyHead(Protocol):
    """Features [B, F] -> parameters of one action leaf's distribution -> action [B, ...]."""

    noise: str
    noise_shape: tuple[int, ...]

    def refresh(self) -> None:
        """Copies the weights."""

    def parameters(self, features: Array) -> list[Array]:
        """Parameters [B, ...] in the alphabetical order of their names."""

    def mode(self, parameters: list[Array]) -> Array:
        """The most likely action [B, ...]."""

    def sample(self, parameters: list[Array], noise: Array) -> Array:
        """An action [B, ...] made from noise [B, *noise_shape] of the kind `noise`."""


class NumpyActor:
    """Mirror of an actor network: encoder and heads."""

    def __init__(self, encoder: "NumpyEncoder", numpy_heads: list[NumpyHead]) -> None:
        self.encoder = encoder
        self.heads = numpy_heads

    def refresh(self) -> None:
        """Copies the weights of the network."""
        self.encoder.refresh()
        for head in self.heads:
            head.refresh()


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


class NumpyDense:
    """Mirror of a built Keras `Dense` layer without its activation."""

    def __init__(self, layer: tf.keras.layers.Dense) -> None:
        self._layer = layer
        self.units = layer.units
        self.refresh()

    def refresh(self) -> None:
        """Copies kernel and bias."""
        self._kernel = np.array(self._layer.kernel.numpy(), np.float32, order="C")
        self._bias = np.array(self._layer.bias.numpy(), np.float32)[np.newaxis]

    def __call__(self, x: Array, out: Array | None = None) -> Array:
        """Returns x [B, in] @ kernel + bias, [B, units], in `out` if given."""
        if len(x) != len(self._bias):
            # One copy of the bias for each row: adding equal shapes takes a third of the time of broadcasting.
            self._bias = np.repeat(self._bias[:1], len(x), axis=0)
        out = np.dot(x, self._kernel, out=out)
        return np.add(out, self._bias, out=out)


NumpyLayer = tuple[NumpyDense, Callable[[Array], Array]]


def mirror_layers(layers: Sequence[tf.keras.layers.Dense]) -> list[NumpyLayer] | None:
    """Mirrors of built dense layers with their activations; `None` if an activation has none."""
    if any(layer.activation not in ACTIVATIONS for layer in layers):
        return None
    return [(NumpyDense(layer), ACTIVATIONS[layer.activation]) for layer in layers]


class NumpyEncoder:
    """Mirror of `ObservationEncoder`: joins the leaves and applies the dense layers.

    Args:
        leaf_specs: of the flat observation.
        layers: dense layers, each with its in-place activation.
        one_hot: whether categories are one-hot encoded, as `encoders.num_categories` defines them.
    """

    def __init__(self, leaf_specs: Sequence[tf.TypeSpec], layers: list[NumpyLayer], one_hot: bool = True) -> None:
        self._columns = _columns(leaf_specs, one_hot)
        self._layers = layers
        self._single = len(leaf_specs) == 1 and leaf_specs[0].shape.rank == 1
        self._joined = np.empty((0, 0), np.float32)
        self._hidden: list[Array] = []

    def refresh(self) -> None:
        """Copies the weights."""
        for layer, _ in self._layers:
            layer.refresh()

    def __call__(self, leaves: list[Array]) -> Array:
        """Returns features [B, F] of observation leaves [B, ...], valid until the next call."""
        if len(leaves[0]) != len(self._joined):
            self._allocate(len(leaves[0]))
        x = leaves[0] if self._single and leaves[0].dtype == np.float32 else self._join(leaves)
        for (layer, activation), out in zip(self._layers, self._hidden, strict=True):
            x = activation(layer(x, out))
        return x

    def _allocate(self, batch_size: int) -> None:
        self._joined = np.empty((batch_size, self._columns[-1][0].stop), np.float32)
        self._hidden = [np.empty((batch_size, layer.units), np.float32) for layer, _ in self._layers]

    def _join(self, leaves: list[Array]) -> Array:
        for leaf, (columns, categories) in zip(leaves, self._columns, strict=True):
            if categories is None:
                self._joined[:, columns] = leaf.reshape(len(leaf), -1)
            else:
                self._joined[:, columns] = leaf[:, np.newaxis] == categories
        return self._joined


def _columns(leaf_specs: Sequence[tf.TypeSpec], one_hot: bool) -> list[tuple[slice, Array | None]]:
    """For every leaf its columns in the joined vector, and its categories if it is one-hot encoded."""
    result: list[tuple[slice, Array | None]] = []
    start = 0
    for spec in leaf_specs:
        count = encoders.num_categories(spec) if one_hot else None
        size = count or int(np.prod(spec.shape.as_list()))
        categories = np.arange(count) + int(spec.minimum) if count else None
        result.append((slice(start, start + size), categories))
        start += size
    return result


class NumpyNormalHead:
    """Mirror of a normal with a standard deviation that does not depend on the observation.

    Args:
        mean_layer: features -> flat mean.
        read_scale: reads the standard deviation, flat, from the variables.
        shape: of the action.
        dtype: of the action.
        transform: of the mean [B, *shape].
    """

    noise = "normal"

    def __init__(
        self,
        mean_layer: NumpyDense,
        read_scale: Callable[[], Array],
        shape: tuple[int, ...],
        dtype: tf.DType,
        transform: Callable[[Array], Array] = _identity,
    ) -> None:
        self._mean_layer = mean_layer
        self._transform = transform
        self._read_scale = read_scale
        self._dtype = dtype.as_numpy_dtype
        self.noise_shape = shape
        self.refresh()

    def refresh(self) -> None:
        """Copies the weights."""
        self._mean_layer.refresh()
        self._flat_scale = np.asarray(self._read_scale(), np.float32)
        self._scale = np.empty((0,), self._dtype)

    def parameters(self, features: Array) -> list[Array]:
        """Returns `loc` and `scale`, both [B, *action shape]; the scale is read-only and shared between calls."""
        batch_size = len(features)
        mean = self._mean_layer(features).reshape(batch_size, *self.noise_shape)
        loc = self._transform(mean).astype(self._dtype, copy=False)
        if len(self._scale) != batch_size:
            self._scale = np.broadcast_to(self._flat_scale, (batch_size, self._flat_scale.size))
            self._scale = self._scale.reshape(loc.shape).astype(self._dtype)
            self._scale.flags.writeable = False
        return [loc, self._scale]

    def mode(self, parameters: list[Array]) -> Array:
        """Returns the mean."""
        return parameters[0].copy()

    def sample(self, parameters: list[Array], noise: Array) -> Array:
        """Returns loc + scale * noise."""
        loc, scale = parameters
        action = np.multiply(noise, scale, dtype=self._dtype)
        return np.add(action, loc, out=action)


class NumpyCategoricalHead:
    """Mirror of one categorical for each component of an integer action.

    Args:
        logits_layer: features -> flat logits.
        possible: [*action shape, categories], False for padding.
        minimum: [*action shape], smallest value of each component.
        dtype: of the action.
    """

    noise = "gumbel"

    def __init__(self, logits_layer: NumpyDense, possible: Array, minimum: Array, dtype: tf.DType) -> None:
        self._logits_layer = logits_layer
        self._impossible = None if possible.all() else ~possible
        self._minimum = minimum if minimum.any() else None
        self._dtype = dtype.as_numpy_dtype
        self.noise_shape = possible.shape

    def refresh(self) -> None:
        """Copies the weights."""
        self._logits_layer.refresh()

    def parameters(self, features: Array) -> list[Array]:
        """Returns `logits` [B, *action shape, categories]."""
        logits = self._logits_layer(features)
        if len(self.noise_shape) > 1:
            logits = logits.reshape(len(features), *self.noise_shape)
        if self._impossible is not None:
            logits[:, self._impossible] = heads.IMPOSSIBLE_LOGIT
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
