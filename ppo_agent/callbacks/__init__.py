"""What can be called while a trainer trains: see `Callback`, and ready-made ones."""

from __future__ import annotations

from ppo_agent.callbacks.base import Callback, CallbackError, StepCallback

__all__ = ["Callback", "CallbackError", "StepCallback"]
