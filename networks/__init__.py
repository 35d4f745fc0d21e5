"""Actor and value networks: `tf_agents.networks.Network`s that know specs and nothing of the agent."""

from ppo_agent.networks.actor_network import ActorNetwork
from ppo_agent.networks.value_network import ValueNetwork

__all__ = ["ActorNetwork", "ValueNetwork"]
