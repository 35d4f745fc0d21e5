"""From observations to features: every leaf becomes a vector, the vectors are joined, an MLP follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.common import action_masks, observation_kinds, specs

from . import images, initializers, inputs

Activation = str | Callable[[tf.Tensor], tf.Tensor] | None
LeafKind = observation_kinds.LeafKind


class ObservationEncoder(tf.keras.layers.Layer):
    """Joins the leaves of an observation into one vector and applies a multi-layer perceptron.

    Numbers of any shape are flattened; categories are one-hot encoded, or embedded with `embedding_size`; images pass
    through convolutions. The same object given to several networks is their shared torso.

    Args:
        observation_spec: nest of specs, without outer dimensions. An action mask in it is left out.
        fc_layers: units of each fully connected layer; empty for none.
        activation: of every fully connected layer, a Keras name or a callable.
        embedding_size: length of the trained vector for each category; `None` for one-hot vectors.
        conv_layers: (filters, kernel size, stride) of each convolution on images; `None` chooses by their size.
        seed: of the initial weights; `None` follows `tf.random.set_seed`.
        name: of the layer.

    Raises:
        ValueError: if a leaf has no encoder, with the reason; or `fc_layers` are no positive integers, or `activation`
            is unknown.
    """

    def __init__(
        self,
        observation_spec: Any,
        fc_layers: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        *,
        embedding_size: int | None = None,
        conv_layers: images.ConvLayers | None = None,
        seed: int | initializers.SeedSource | None = None,
        name: str = "encoder",
    ) -> None:
        super().__init__(name=name)
        _check_embedding_size(embedding_size)
        _check_units(fc_layers)
        _check_activation(activation)
        self._remember(observation_spec, fc_layers, activation, embedding_size, conv_layers, seed)
        seeds = seed if isinstance(seed, initializers.SeedSource) else initializers.SeedSource(seed, "encoder")
        network_spec, _ = action_masks.split(inputs.network_input_spec(observation_spec))
        self.leaf_specs = tuple(tf.nest.flatten(network_spec))
        self.dense_layers = [
            initializers.dense(units, initializers.HIDDEN_GAIN, seeds(), activation, f"dense_{i}")
            for i, units in enumerate(fc_layers)
        ]
        self.leaf_encoders = [
            _leaf_encoder(spec, embedding_size, conv_layers, seeds, i) for i, spec in enumerate(self.leaf_specs)
        ]

    def _remember(self, *arguments: Any) -> None:
        """Keeps the arguments for `copy` in a closure, because Keras wraps nests that are attributes."""
        names = ("observation_spec", "fc_layers", "activation", "embedding_size", "conv_layers", "seed")
        self._arguments = lambda: dict(zip(names, arguments, strict=True))

    def copy(self, **kwargs: Any) -> ObservationEncoder:
        """An encoder built with the same arguments, but for `kwargs`, and variables of its own."""
        return type(self)(**{**self._arguments(), "name": self.name, **kwargs})

    def call(self, observation: Any) -> tf.Tensor:
        """Returns features [N, F] of an observation nest [N, ...]."""
        leaves = tf.nest.flatten(observation)
        vectors = [encode(leaf) for encode, leaf in zip(self.leaf_encoders, leaves, strict=True)]
        features = vectors[0] if len(vectors) == 1 else tf.concat(vectors, axis=-1)
        for layer in self.dense_layers:
            features = layer(features)
        return features


class FeatureLayers(tf.keras.layers.Layer):
    """An encoder with fully connected layers behind it.

    Two of them on one encoder make networks that share their lower layers and part above, PPO2's `net_arch`.

    Example:
        shared = ObservationEncoder(observation_spec, (64,))
        actor_net = ActorNetwork(observation_spec, action_spec, encoder=FeatureLayers(shared, (32,)))
        value_net = ValueNetwork(observation_spec, encoder=FeatureLayers(shared, (128,)))

    Args:
        encoder: from observations [N, ...] to features [N, F].
        fc_layers: units of each layer behind it; empty for none.
        activation: of each layer, a Keras name or a callable.
        layer_norm: whether each layer's output is normalised (Ba et al., 2016) before its activation.
        seed: of the initial weights; `None` follows `tf.random.set_seed`.
        name: of the layer.
    """

    def __init__(
        self,
        encoder: tf.keras.layers.Layer,
        fc_layers: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        *,
        layer_norm: bool = False,
        seed: int | None = None,
        name: str = "feature_layers",
    ) -> None:
        super().__init__(name=name)
        seeds = initializers.SeedSource(seed, "feature_layers")
        self.encoder = encoder
        self.dense_layers = [
            initializers.dense(units, initializers.HIDDEN_GAIN, seeds(), None, f"dense_{i}")
            for i, units in enumerate(fc_layers)
        ]
        self.norm_layers = [tf.keras.layers.LayerNormalization() for _ in fc_layers] if layer_norm else []
        self.activation = tf.keras.activations.get(activation)

    def call(self, observation: Any) -> tf.Tensor:
        """Returns features [N, F] of an observation nest [N, ...]."""
        features = self.encoder(observation)
        for index, layer in enumerate(self.dense_layers):
            features = layer(features)
            if self.norm_layers:
                features = self.norm_layers[index](features)
            features = self.activation(features)
        return features


def _check_activation(activation: Activation) -> None:
    try:
        tf.keras.activations.get(activation)
    except (ValueError, TypeError):
        raise ValueError(
            f"activation is {activation!r}, expected a Keras name such as 'tanh' or 'relu', or a callable."
        ) from None


def _check_units(fc_layers: Any) -> None:
    is_sequence = isinstance(fc_layers, Sequence) and not isinstance(fc_layers, str)
    if not is_sequence or not all(isinstance(n, (int, np.integer)) and 0 < n < 2**31 for n in fc_layers):
        raise ValueError(f"fc_layers is {fc_layers!r}, expected a sequence of positive integers such as (64, 64).")


def encoder_maker(
    encoder: tf.keras.layers.Layer | None,
    fc_layers: Sequence[int],
    activation: Activation,
    embedding_size: int | None,
    conv_layers: images.ConvLayers | None,
    seeds: initializers.SeedSource,
) -> Callable[[Any], tf.keras.layers.Layer]:
    """Returns a function from what a network sees to its encoder: the given one, or a default one.

    Raises:
        ValueError: if arguments of the default one come with an encoder.
    """
    for name, value in (("embedding_size", embedding_size), ("conv_layers", conv_layers)):
        if encoder is not None and value is not None:
            raise ValueError(f"{name}: found {value} together with an encoder, expected None: the encoder decides.")
    if encoder is not None:
        return lambda _: encoder
    return lambda spec: ObservationEncoder(
        spec, fc_layers, activation, embedding_size=embedding_size, conv_layers=conv_layers, seed=seeds
    )


def _check_embedding_size(embedding_size: int | None) -> None:
    if embedding_size is not None and embedding_size < 1:
        raise ValueError(f"embedding_size: found {embedding_size}, expected a positive number or None.")


def _leaf_encoder(
    spec: tf.TypeSpec,
    embedding_size: int | None,
    conv_layers: images.ConvLayers | None,
    seeds: initializers.SeedSource,
    index: int,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The encoder of one leaf of `inputs.network_input_spec`, from values [N, ...] to vectors [N, F]."""
    kind = observation_kinds.leaf_kind(spec)
    if kind is LeafKind.IMAGE:
        return images.ImageEncoder(spec, conv_layers, seeds, f"image_{index}")
    if kind is LeafKind.CATEGORY:
        categories = Categories(spec)
        return Embedding(categories, embedding_size, seeds(), f"embedding_{index}") if embedding_size else categories
    return Numbers(spec)


class Numbers:
    """Flattens numbers to float32 vectors [N, size]."""

    def __init__(self, spec: tf.TypeSpec) -> None:
        self.size = int(np.prod(spec.shape.as_list()))
        self._rank = spec.shape.rank

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Returns vectors [N, size] of values [N, ...]."""
        values = tf.cast(values, tf.float32)
        return values if self._rank == 1 else tf.reshape(values, [-1, self.size])


class Categories:
    """One-hot encodes the components of a category leaf, each with its own number of categories.

    Attributes:
        component: int [size], the component that each entry of the joined one-hot vectors belongs to.
        value: int [size], the value of the component for which the entry is 1.
        minimum: int [components].
        offsets: int [components], where each component's entries start.
        size: of the joined vectors.
    """

    def __init__(self, spec: tf.TypeSpec) -> None:
        counts = np.atleast_1d(specs.num_categories(spec))
        self.minimum = np.broadcast_to(spec.minimum, counts.shape).astype(np.int64)
        self.offsets = np.cumsum(counts) - counts
        self.size = int(counts.sum())
        self.component = np.repeat(np.arange(len(counts)), counts)
        self.value = np.arange(self.size) - self.offsets[self.component] + self.minimum[self.component]

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Returns vectors [N, size] of categories [N] or [N, components]."""
        values = tf.reshape(values, [-1, len(self.minimum)])
        if len(self.minimum) > 1:
            values = tf.gather(values, self.component, axis=1)
        return tf.cast(tf.equal(values, tf.constant(self.value, values.dtype)), tf.float32)

    def to_index(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the positions [N, components] at which the vectors are 1."""
        values = tf.reshape(values, [-1, len(self.minimum)])
        return values + tf.constant(self.offsets - self.minimum, values.dtype)


class Embedding(tf.keras.layers.Layer):
    """A trained vector for every category of every component, joined.

    The first ones are standard normal, divided by the square root of their length.
    """

    def __init__(self, categories: Categories, embedding_size: int, seed: int, name: str) -> None:
        super().__init__(name=name)
        self.categories = categories
        self.embedding_size = embedding_size
        self._initializer = tf.keras.initializers.RandomNormal(stddev=embedding_size**-0.5, seed=seed)

    def build(self, input_shape: Any) -> None:
        """Creates the table [all categories, embedding_size]."""
        self.embeddings = self.add_weight(
            "embeddings", (self.categories.size, self.embedding_size), tf.float32, initializer=self._initializer
        )
        super().build(input_shape)

    def call(self, values: tf.Tensor) -> tf.Tensor:
        """Returns vectors [N, components * embedding_size] of categories [N] or [N, components]."""
        vectors = tf.gather(self.embeddings, self.categories.to_index(values))
        return tf.reshape(vectors, [-1, len(self.categories.minimum) * self.embedding_size])
