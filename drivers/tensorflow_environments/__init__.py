"""Environments in TensorFlow operations, which a rollout can be compiled with."""

from __future__ import annotations

from .acrobot import TFAcrobot
from .base import TensorFlowEnvironment
from .cartpole import TFCartPole
from .pendulum import TFPendulum

__all__ = ["TFAcrobot", "TFCartPole", "TFPendulum", "TensorFlowEnvironment"]
