"""A replay buffer for on-policy experience."""

from __future__ import annotations

from .uniform_replay_buffer import BufferInfo, UniformReplayBuffer

__all__ = ["BufferInfo", "UniformReplayBuffer"]
