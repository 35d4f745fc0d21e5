"""The networks of a run, composed from its settings and the environment's specs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ppo_agent.common import action_masks
from ppo_agent.common.seeds import draw_seed
from ppo_agent.common.types import Nest
from ppo_agent.networks import ActorNetwork, FeatureLayers, GRUMemory, LSTMMemory, ValueNetwork, shared_networks
from ppo_agent.networks.encoders import ObservationEncoder
from ppo_agent.networks.inputs import network_input_spec, select_keys
from ppo_agent.training.settings import Settings


def make_networks(observation_spec: Nest, action_spec: Nest, settings: Settings) -> tuple[ActorNetwork, ValueNetwork]:
    """Actor and value network for specs without batch dimensions.

    Raises:
        ValueError: a spec has no encoder or no head, with the reason; or a setting is about actions that there are not.
    """
    _check_continuous(action_spec, settings)
    head: dict[str, Any] = {
        "initial_log_std": settings.initial_log_std,
        "state_dependent_std": settings.state_dependent_std,
        "squash": settings.squash_actions,
        "output_gain": settings.policy_output_gain,
    }
    activation = settings.activation
    if settings.layer_norm or settings.shared_fc_layers:
        return _with_feature_layers(observation_spec, action_spec, settings, head)
    if settings.shared_torso:
        return shared_networks(
            observation_spec, action_spec, settings.actor_fc_layers, activation, memory=_make_memory(settings), **head
        )
    of_actor: dict[str, Any]
    of_value: dict[str, Any]
    of_actor, of_value = (
        {"memory": _make_memory(settings), "observation_keys": keys} for keys in _observation_keys(settings)
    )
    actor_net = ActorNetwork(observation_spec, action_spec, settings.actor_fc_layers, activation, **of_actor, **head)
    return actor_net, ValueNetwork(observation_spec, settings.value_fc_layers, activation, **of_value)


def _observation_keys(settings: Settings) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """What actor and value network see of a mapping."""
    texts = (settings.actor_observation_keys, settings.value_observation_keys)
    actor, value = (tuple(key.strip() for key in text.split(",")) if text else None for text in texts)
    return actor, value


def _check_continuous(action_spec: Nest, settings: Settings) -> None:
    """Raises ValueError for settings of continuous actions where there are none."""
    if any(leaf.dtype.is_floating for leaf in tf.nest.flatten(action_spec)):
        return
    for name in ("squash_actions", "state_dependent_std"):
        if getattr(settings, name):
            raise ValueError(f"{name} is True, expected False: the environment has no continuous actions.")


def _with_feature_layers(
    observation_spec: Nest, action_spec: Nest, settings: Settings, head: dict[str, Any]
) -> tuple[ActorNetwork, ValueNetwork]:
    """Networks with layer normalisation, or with shared layers in front of their own."""
    network_spec, _ = action_masks.split(network_input_spec(observation_spec))

    def make_encoder(keys: tuple[str, ...] | None = None) -> tf.keras.layers.Layer:
        return ObservationEncoder(select_keys(network_spec, keys), ())

    def on_top(encoder: tf.keras.layers.Layer, units: tuple[int, ...]) -> FeatureLayers:
        return FeatureLayers(encoder, units, settings.activation, layer_norm=settings.layer_norm)

    if settings.shared_torso:
        shared, memory = on_top(make_encoder(), settings.actor_fc_layers), _make_memory(settings)
        actor_net = ActorNetwork(observation_spec, action_spec, encoder=shared, memory=memory, **head)
        return actor_net, ValueNetwork(observation_spec, encoder=shared, memory=memory)
    if settings.shared_fc_layers:
        below = on_top(make_encoder(), settings.shared_fc_layers)
        encoders = [on_top(below, units) for units in (settings.actor_fc_layers, settings.value_fc_layers)]
    else:
        layers = zip(_observation_keys(settings), (settings.actor_fc_layers, settings.value_fc_layers), strict=True)
        encoders = [on_top(make_encoder(keys), units) for keys, units in layers]
    of_actor: dict[str, Any]
    of_value: dict[str, Any]
    of_actor, of_value = (
        {"encoder": encoder, "memory": _make_memory(settings), "observation_keys": keys}
        for encoder, keys in zip(encoders, _observation_keys(settings), strict=True)
    )
    return ActorNetwork(observation_spec, action_spec, **of_actor, **head), ValueNetwork(observation_spec, **of_value)


def _make_memory(settings: Settings) -> tf.keras.layers.Layer | None:
    if not settings.recurrent:
        return None
    return {"lstm": LSTMMemory, "gru": GRUMemory}[settings.memory](settings.memory_units)


def use_uniform_kernels(*networks: tf.Module) -> None:
    """Gives every kernel of built networks new values, Glorot's uniform ones."""
    layers = {id(part): part for net in networks for part in net.submodules if hasattr(part, "kernel")}
    for layer in layers.values():
        layer.kernel.assign(tf.keras.initializers.GlorotUniform(draw_seed())(layer.kernel.shape))
