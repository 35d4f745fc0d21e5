"""Actor and value network on one torso."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ppo_agent.common import action_masks
from ppo_agent.common.configurable import configurable

from . import actor_network, encoders, images, initializers, inputs, value_network


@configurable("ppo_agent.networks")
def shared_networks(
    observation_spec: Any,
    action_spec: Any,
    fc_layers: Sequence[int] = (64, 64),
    activation: encoders.Activation = "tanh",
    *,
    encoder: tf.keras.layers.Layer | None = None,
    memory: Any = None,
    embedding_size: int | None = None,
    conv_layers: images.ConvLayers | None = None,
    seed: int | None = None,
    observation_and_action_constraint_splitter: action_masks.Splitter | None = None,
    **actor_options: Any,
) -> tuple[actor_network.ActorNetwork, value_network.ValueNetwork]:
    """Makes an actor and a value network that share encoder and memory; only heads and value output are their own.

    Args:
        observation_spec: nest of specs, without outer dimensions.
        action_spec: nest of bounded specs, without outer dimensions.
        fc_layers: units of each hidden layer of the torso.
        activation: of the hidden layers.
        encoder: in place of the default one, see `ActorNetwork`.
        memory: `LSTMMemory` or `GRUMemory`, `None` for none. Each network keeps a state of its own; they are equal.
        embedding_size: length of the trained vector for each observed category; `None` for one-hot vectors.
        conv_layers: (filters, kernel size, stride) of each convolution on images; `None` chooses by their size.
        seed: of the initial weights; `None` follows `tf.random.set_seed`.
        observation_and_action_constraint_splitter: see `ActorNetwork`.
        **actor_options: further keywords of `ActorNetwork`.

    Returns:
        Actor network and value network.

    Raises:
        ValueError: as `ActorNetwork`.
        TypeError: likewise.
    """
    splitter = observation_and_action_constraint_splitter
    seeds = initializers.SeedSource(seed, "torso")
    make_encoder = encoders.encoder_maker(encoder, fc_layers, activation, embedding_size, conv_layers, seeds)
    network_spec, _ = action_masks.split(inputs.network_input_spec(observation_spec, splitter), splitter)
    shared = {
        "encoder": make_encoder(network_spec),
        "memory": memory,
        "seed": seed,
        "observation_and_action_constraint_splitter": splitter,
    }
    actor = actor_network.ActorNetwork(observation_spec, action_spec, **shared, **actor_options)
    return actor, value_network.ValueNetwork(observation_spec, **shared)
