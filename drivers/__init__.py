"""Collection: environments, drivers, replay buffer and metrics.

They know TF-Agents' interfaces and no agent: any `TFEnvironment`, policy and observer works with them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .array_policies.py_policy import py_policy
    from .dynamic_episode_driver import DynamicEpisodeDriver
    from .dynamic_step_driver import DynamicStepDriver
    from .environments.gymnasium_environment import GymnasiumEnvironment
    from .faults.faults import EnvironmentFaultError
    from .metrics import EpisodeStatistics
    from .ray_workers.ray_driver import RayDriver
    from .replay_buffer.uniform_replay_buffer import UniformReplayBuffer
    from .tensorflow_environments import TensorFlowEnvironment, TFAcrobot, TFCartPole, TFPendulum

__all__ = [
    "DynamicEpisodeDriver",
    "DynamicStepDriver",
    "EnvironmentFaultError",
    "EpisodeStatistics",
    "GymnasiumEnvironment",
    "RayDriver",
    "TFAcrobot",
    "TFCartPole",
    "TFPendulum",
    "TensorFlowEnvironment",
    "UniformReplayBuffer",
    "py_policy",
]

# Loaded on first use: processes that only step environments do without TensorFlow.
_MODULE_OF = {
    "DynamicEpisodeDriver": "dynamic_episode_driver",
    "DynamicStepDriver": "dynamic_step_driver",
    "EnvironmentFaultError": "faults.faults",
    "EpisodeStatistics": "metrics",
    "GymnasiumEnvironment": "environments.gymnasium_environment",
    "RayDriver": "ray_workers.ray_driver",
    "TFAcrobot": "tensorflow_environments",
    "TFCartPole": "tensorflow_environments",
    "TFPendulum": "tensorflow_environments",
    "TensorFlowEnvironment": "tensorflow_environments",
    "UniformReplayBuffer": "replay_buffer.uniform_replay_buffer",
    "py_policy": "array_policies.py_policy",
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns all names, those not loaded yet included."""
    return sorted({*globals(), *__all__})
