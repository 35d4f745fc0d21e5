"""Values that change over a run."""

from __future__ import annotations

from ppo_agent.maths.schedules import make_schedule


class ScheduledValue:
    """A hyper-parameter that follows a schedule: the agent calls it, the training loop updates it."""

    def __init__(self, name: str, first: float) -> None:
        """Takes what `make_schedule` takes."""
        self._schedule = make_schedule(name, first)
        self._value = self._schedule(0.0)

    def __call__(self) -> float:
        """Returns the value in force."""
        return self._value

    def update(self, done: float) -> None:
        """Sets the value for the share of the run that is done, in [0, 1]."""
        self._value = self._schedule(done)
