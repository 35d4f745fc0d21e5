"""Hidden layers behind an encoder: layers after shared ones, and layers with normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from ppo_agent.common.types import Nest

from . import initializers
from .encoders import Activation


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

    def call(self, observation: Nest) -> tf.Tensor:
        """Returns features [N, F] of an observation nest [N, ...]."""
        features = self.encoder(observation)
        for index, layer in enumerate(self.dense_layers):
            features = layer(features)
            if self.norm_layers:
                features = self.norm_layers[index](features)
            features = self.activation(features)
        return features
