"""Actor and value networks: `tf_agents.networks.Network`s that know specs and nothing of the agent."""

from ppo_agent.networks.actor_network import ActorNetwork
from ppo_agent.networks.encoders import ObservationEncoder
from ppo_agent.networks.masks import MaskedNetwork
from ppo_agent.networks.memory import GRUMemory, LSTMMemory
from ppo_agent.networks.shared import shared_networks
from ppo_agent.networks.value_network import ValueNetwork

__all__ = [
    "ActorNetwork",
    "GRUMemory",
    "LSTMMemory",
    "MaskedNetwork",
    "ObservationEncoder",
    "ValueNetwork",
    "shared_networks",
]
