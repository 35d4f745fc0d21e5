"""Counts and times of a run, from the start of its process on, imports of the interpreter included."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_IMPORTED = time.perf_counter()


def _age_at_import() -> float:
    """Seconds between the start of the process and the import of this module; 0 where the system does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


_AGE_AT_IMPORT = _age_at_import()


def seconds_since_process_start() -> float:
    """Wall time in seconds since the process started; since this module was imported where that is not known."""
    return _AGE_AT_IMPORT + time.perf_counter() - _IMPORTED


@dataclasses.dataclass
class Tally:
    """Counts and times of a run in seconds, those before a resume included.

    Attributes:
        iterations: updates so far.
        wall_time_s: from the start of the process to its end, added up over processes that are done.
        collect_time_s: in collection.
        train_time_s: in updates.
        timed_steps: environment steps after the first iteration.
        timed_s: wall time after the first iteration, without evaluation.
        start_up_time_s: from the start of this process to the end of its first iteration.
        evaluations: (environment steps, mean return, its standard deviation) each.
        steps_not_counted: environment steps before the counter was reset.
    """

    iterations: int = 0
    wall_time_s: float = 0.0
    collect_time_s: float = 0.0
    train_time_s: float = 0.0
    timed_steps: int = 0
    timed_s: float = 0.0
    start_up_time_s: float = 0.0
    evaluations: list[list[float]] = dataclasses.field(default_factory=list)
    steps_not_counted: int = 0

    @classmethod
    def checked(cls, state: Any) -> Tally:
        """A tally of values that were read.

        Raises:
            ValueError: they are no such values.
        """
        if not isinstance(state, Mapping) or set(state) - {field.name for field in dataclasses.fields(cls)}:
            raise ValueError(f"the tally is {state!r}, expected counts and times by name.")
        evaluations = state.get("evaluations", [])
        numbers = [value for name, value in state.items() if name != "evaluations"]
        if not isinstance(evaluations, list) or not all(isinstance(e, list) and len(e) == 3 for e in evaluations):
            raise ValueError(f"evaluations is {evaluations!r}, expected lists of three numbers.")
        for number in (*numbers, *(number for evaluation in evaluations for number in evaluation)):
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
                raise ValueError(f"the tally holds {number!r}, expected finite numbers.")
        return cls(**state)

    def evaluation_at(self, environment_steps: int) -> tuple[float, float] | None:
        """Mean return and standard deviation if the last evaluation was then, else None."""
        if not self.evaluations or self.evaluations[-1][0] != environment_steps:
            return None
        return self.evaluations[-1][1], self.evaluations[-1][2]

    def last_is_best(self) -> bool:
        """Whether the last evaluation is better than all before it."""
        *before, last = (evaluation[1] for evaluation in self.evaluations)
        return all(last > mean for mean in before)

    def steps_per_second(self, environment_steps: int) -> float:
        """Environment steps per second after the first iteration; over the whole of a run that has only one."""
        if self.timed_s > 0:
            return self.timed_steps / self.timed_s
        seconds = self.collect_time_s + self.train_time_s
        return environment_steps / seconds if seconds else 0.0
