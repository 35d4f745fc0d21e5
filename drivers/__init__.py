"""Collection: environments, drivers, replay buffer and metrics.

They know TF-Agents' interfaces and no agent: any `TFEnvironment`, policy and observer works with them.
"""

from ppo_agent.drivers.dynamic_episode_driver import DynamicEpisodeDriver
from ppo_agent.drivers.dynamic_step_driver import DynamicStepDriver
from ppo_agent.drivers.environments import GymnasiumEnvironment
from ppo_agent.drivers.failures import EnvironmentFaultError
from ppo_agent.drivers.metrics import EpisodeStatistics
from ppo_agent.drivers.replay_buffer import UniformReplayBuffer
from ppo_agent.drivers.tensorflow_environments import TensorFlowEnvironment, TFAcrobot, TFCartPole, TFPendulum

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
]
