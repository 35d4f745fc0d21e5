"""The value network: encoder, memory and one output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ppo_agent.common import action_masks
from ppo_agent.common.configurable import configurable

from . import base, encoders, images, initializers


@configurable("ppo_agent.networks", "PPOValueNetwork")
class ValueNetwork(base.ObservationNetwork):
    """Maps observations to state values.

    Kernels are orthogonal, with gain sqrt(2) in hidden layers and 1 in the last, biases zero. An action mask in the
    observation is not looked at.

    Args:
        observation_spec: nest of specs, without outer dimensions; leaves are encoded as `ActorNetwork` encodes them.
        fc_layers: units of each hidden layer.
        activation: of the hidden layers, a Keras name or a callable.
        seed: of the initial weights; `None` follows `tf.random.set_seed`.
        name: of the network.
        encoder: in place of the default one, see `ActorNetwork`.
        memory: `LSTMMemory` or `GRUMemory` between encoder and output; `None` for a network without memory.
        embedding_size: length of the trained vector for each observed category; `None` for one-hot vectors.
        conv_layers: (filters, kernel size, stride) of each convolution on images; `None` chooses by their size.
        observation_and_action_constraint_splitter: as in `ActorNetwork`.
        observation_keys: as in `ActorNetwork`; may be others there, so that values are predicted from more.

    Raises:
        ValueError: if a spec has no encoder, with the reason.
        TypeError: if encoder or memory are no Keras layers.
    """

    def __init__(
        self,
        observation_spec: Any,
        fc_layers: Sequence[int] = (64, 64),
        activation: encoders.Activation = "tanh",
        *,
        seed: int | None = None,
        name: str = "ValueNetwork",
        encoder: tf.keras.layers.Layer | None = None,
        memory: Any = None,
        embedding_size: int | None = None,
        conv_layers: images.ConvLayers | None = None,
        observation_and_action_constraint_splitter: action_masks.Splitter | None = None,
        observation_keys: Sequence[str] | None = None,
    ) -> None:
        seeds = initializers.SeedSource(seed, "value")
        make_encoder = encoders.encoder_maker(encoder, fc_layers, activation, embedding_size, conv_layers, seeds)
        splitter = observation_and_action_constraint_splitter
        super().__init__(observation_spec, make_encoder, memory, splitter, name, observation_keys)
        self.value_layer = initializers.dense(1, initializers.VALUE_GAIN, seeds(), name="value")

    def call(
        self, observation: Any, step_type: Any = None, network_state: Any = (), training: bool = False
    ) -> tuple[tf.Tensor, Any]:
        """Returns values [B] or [B, T] and the state after the last step; arguments as of `ActorNetwork.call`."""
        del training  # Keras passes it on to all layers inside.
        features = self.features(observation, step_type, network_state)
        return tf.reshape(self.value_layer(features.rows), features.outer), features.state
