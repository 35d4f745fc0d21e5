"""Collection: environments, drivers, replay buffer and metrics.

They know TF-Agents' interfaces and no agent: any `TFEnvironment`, policy and observer works with them.
"""

from __future__ import annotations

from .array_policies.py_policy import py_policy
from .dynamic_episode_driver import DynamicEpisodeDriver
from .dynamic_step_driver import DynamicStepDriver
from .environments.gymnasium_environment import GymnasiumEnvironment
from .faults.faults import EnvironmentFaultError
from .metrics import EpisodeStatistics
from .replay_buffer.uniform_replay_buffer import UniformReplayBuffer
from .tensorflow_environments import TensorFlowEnvironment, TFAcrobot, TFCartPole, TFPendulum

__all__ = [
    "DynamicEpisodeDriver",
    "DynamicStepDriver",
    "EnvironmentFaultError",
    "EpisodeStatistics",
    "GymnasiumEnvironment",
    "TFAcrobot",
    "TFCartPole",
    "TFPendulum",
    "TensorFlowEnvironment",
    "UniformReplayBuffer",
    "py_policy",
]
