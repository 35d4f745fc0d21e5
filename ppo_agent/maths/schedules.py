"""Hyper-parameters that change while an agent trains."""

from __future__ import annotations

from collections.abc import Callable

from ppo_agent.common.types import Tensor

# A number, or a function without arguments that returns the one in force, called in every gradient step.
Scheduled = float | Callable[[], Tensor]
# From the share of the run that is done, in [0, 1], to a value.
Schedule = Callable[[float], float]


def is_on(value: Scheduled) -> bool:
    """Whether it has an effect: a number above 0, or a function."""
    return callable(value) or value > 0


def current(value: Scheduled) -> Tensor:
    """The number, or what the function returns now."""
    return value() if callable(value) else value


def make_schedule(name: str, first: float) -> Schedule:
    """A function from the share of the run that is done, in [0, 1], to a value.

    Args:
        name: 'constant' or 'linear', which falls to 0 at the end.
        first: the value at the start.

    Raises:
        ValueError: there is no such schedule.
    """
    if name == "constant":
        return lambda _: first
    if name == "linear":
        return lambda done: first * max(0.0, 1.0 - done)
    raise ValueError(f"the schedule is {name!r}, expected constant or linear.")
