"""Hyper-parameters that may change while an agent trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Tensor = Any
# A number, or a function without arguments that returns the one in force, called in every gradient step.
Scheduled = float | Callable[[], Tensor]


def is_on(value: Scheduled) -> bool:
    """Whether it has an effect: a number above 0, or a function."""
    return callable(value) or value > 0


def current(value: Scheduled) -> Tensor:
    """The number, or what the function returns now."""
    return value() if callable(value) else value
