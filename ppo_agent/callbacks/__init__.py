"""What can be called while a trainer trains: see `Callback`, and ready-made ones."""

from __future__ import annotations

from ppo_agent.callbacks.base import Callback, CallbackError, StepCallback
from ppo_agent.callbacks.progress import ProgressBar
from ppo_agent.callbacks.recording import CheckpointCallback, EvalCallback, HistogramCallback, VideoCallback
from ppo_agent.callbacks.stopping import StopAfterEpisodes, StopOnReturn
from ppo_agent.callbacks.trackers import MLflowCallback, OptunaPruning, WandbCallback

__all__ = [
    "Callback",
    "CallbackError",
    "CheckpointCallback",
    "EvalCallback",
    "HistogramCallback",
    "MLflowCallback",
    "OptunaPruning",
    "ProgressBar",
    "StepCallback",
    "StopAfterEpisodes",
    "StopOnReturn",
    "VideoCallback",
    "WandbCallback",
]
