"""Values that change over a run."""

from __future__ import annotations

from collections.abc import Callable

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
