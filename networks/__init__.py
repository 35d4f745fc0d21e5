"""Actor and value networks: `tf_agents.networks.Network`s that know specs and nothing of the agent."""

from __future__ import annotations

from .actor_network import ActorNetwork
from .encoders import FeatureLayers, ObservationEncoder
from .masked_network import MaskedNetwork
from .memory import GRUMemory, LSTMMemory
from .shared import shared_networks
from .value_network import ValueNetwork

__all__ = [
    "ActorNetwork",
    "FeatureLayers",
    "GRUMemory",
    "LSTMMemory",
    "MaskedNetwork",
    "ObservationEncoder",
    "ValueNetwork",
    "shared_networks",
]
