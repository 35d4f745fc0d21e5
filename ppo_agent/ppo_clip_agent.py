"""Stands in for `tf_agents.agents.ppo.ppo_clip_agent`."""

from __future__ import annotations

from ppo_agent.variants import PPOClipAgent

__all__ = ["PPOClipAgent"]
