"""Hyper-parameters that change while an agent trains."""

from __future__ import annotations

import math
from collections.abc import Callable

from ppo_agent.common.types import Tensor

# A number, or a function that returns the one in force: without arguments, or of the train step as Keras' schedules.
Scheduled = float | Callable[..., Tensor]
# From the share of the run that is done, in [0, 1], to a value.
Schedule = Callable[[float], float]


def is_on(value: Scheduled) -> bool:
    """Whether it has an effect: a number above 0, or a function."""
    return callable(value) or value > 0


def current(value: Scheduled) -> Tensor:
    """The number, or what the function returns now."""
    return value() if callable(value) else value


# The share of a run that a warm-up takes.
WARMUP = 0.05
_WARMUP_PREFIX = "warmup_"
_FALLS: dict[str, Schedule] = {
    "constant": lambda _: 1.0,
    "linear": lambda done: max(0.0, 1.0 - done),
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))),
}
NAMES = (*_FALLS, *(_WARMUP_PREFIX + name for name in _FALLS))


def make_schedule(name: str, first: float) -> Schedule:
    """A function from the share of the run that is done, in [0, 1], to a value.

    Args:
        name: one of `NAMES`. 'linear' falls to 0 at the end, 'cosine' along half a period of one; with 'warmup' it
            first rises from 0 over the first `WARMUP` of the run, and what follows takes the rest.
        first: the value at the start, or behind the warm-up.

    Raises:
        ValueError: there is no such schedule.
    """
    if name not in NAMES:
        raise ValueError(f"the schedule is {name!r}, expected {' or '.join(NAMES)}.")
    fall = _FALLS[name.removeprefix(_WARMUP_PREFIX)]
    if not name.startswith("warmup"):
        return lambda done: first * fall(done)
    return lambda done: first * (done / WARMUP if done < WARMUP else fall((done - WARMUP) / (1.0 - WARMUP)))
