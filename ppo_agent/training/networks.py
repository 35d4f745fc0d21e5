"""The networks of a run, composed from its settings and the environment's specs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ppo_agent.common.types import Nest
from ppo_agent.networks import ActorNetwork, GRUMemory, LSTMMemory, ValueNetwork, shared_networks
from ppo_agent.training.settings import Settings


def make_networks(observation_spec: Nest, action_spec: Nest, settings: Settings) -> tuple[ActorNetwork, ValueNetwork]:
    """Actor and value network.

    Args:
        observation_spec: nest of specs, without batch dimensions.
        action_spec: nest of bounded specs.
        settings: of the run.

    Raises:
        ValueError: a spec has no encoder or no head, with the reason.
    """
    head: dict[str, Any] = {
        "initial_log_std": settings.initial_log_std,
        "state_dependent_std": settings.state_dependent_std,
        "squash": settings.squash_actions,
    }
    activation = settings.activation
    if settings.shared_torso:
        return shared_networks(
            observation_spec, action_spec, settings.actor_fc_layers, activation, memory=_make_memory(settings), **head
        )
    actor_memory, value_memory = _make_memory(settings), _make_memory(settings)
    actor_net = ActorNetwork(
        observation_spec, action_spec, settings.actor_fc_layers, activation, memory=actor_memory, **head
    )
    return actor_net, ValueNetwork(observation_spec, settings.value_fc_layers, activation, memory=value_memory)


def _make_memory(settings: Settings) -> tf.keras.layers.Layer | None:
    if not settings.recurrent:
        return None
    return {"lstm": LSTMMemory, "gru": GRUMemory}[settings.memory](settings.memory_units)
