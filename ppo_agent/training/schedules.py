"""Values that change over a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Schedule = Callable[[float], float]


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


class ScheduledValue:
    """A hyper-parameter of an agent that follows a schedule: the agent calls it, the training loop updates it."""

    def __init__(self, name: str, first: float) -> None:
        """Takes what `make_schedule` takes."""
        self._schedule = make_schedule(name, first)
        self._variable = tf.Variable(first, trainable=False, dtype=tf.float32)

    def __call__(self) -> Any:
        """Returns the value in force, a scalar."""
        return self._variable.read_value()

    def update(self, done: float) -> None:
        """Sets the value for the share of the run that is done, in [0, 1]."""
        self._variable.assign(self._schedule(done))
