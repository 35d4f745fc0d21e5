"""Stands in for `tf_agents.agents.ppo.ppo_policy`."""

from __future__ import annotations

from ppo_agent.policy import PPOPolicy

__all__ = ["PPOPolicy"]
