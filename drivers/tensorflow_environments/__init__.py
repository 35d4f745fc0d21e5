"""Environments in TensorFlow operations, which a rollout can be compiled with."""

from ppo_agent.drivers.tensorflow_environments.acrobot import TFAcrobot
from ppo_agent.drivers.tensorflow_environments.base import TensorFlowEnvironment
from ppo_agent.drivers.tensorflow_environments.cartpole import TFCartPole
from ppo_agent.drivers.tensorflow_environments.pendulum import TFPendulum

__all__ = ["TFAcrobot", "TFCartPole", "TFPendulum", "TensorFlowEnvironment"]
