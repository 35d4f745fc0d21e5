"""Environments as TF-Agents' `TFEnvironment`s."""

from __future__ import annotations

from .gymnasium_environment import GymnasiumEnvironment

__all__ = ["GymnasiumEnvironment"]
