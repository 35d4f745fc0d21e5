"""A replay buffer for on-policy experience."""

from __future__ import annotations

from .ordered_dataset import BufferInfo
from .uniform_replay_buffer import UniformReplayBuffer

__all__ = ["BufferInfo", "UniformReplayBuffer"]
