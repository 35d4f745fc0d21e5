"""Stands in for `tf_agents.agents.ppo.ppo_kl_penalty_agent`."""

from __future__ import annotations

from ppo_agent.variants import PPOKLPenaltyAgent

__all__ = ["PPOKLPenaltyAgent"]
