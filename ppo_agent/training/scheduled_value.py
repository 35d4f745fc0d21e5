"""Values that change over a run."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ppo_agent.maths.schedules import make_schedule


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
