"""What environments say in the infos of an episode's last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ppo_agent.common.types import Array

from ..faults.faults import EPISODES
from ..vector_envs.serial import numbers_of

# Names of environments, not measurements.
_NAMES = ("env_id", "players.env_id")


class EpisodeInfos:
    """Means of the numbers in the infos of last steps, such as `is_success`, since they were read last."""

    def __init__(self) -> None:
        self._totals: dict[str, tuple[float, int]] = {}

    def add(self, infos: Mapping[str, Any], rows: Array) -> None:
        """Takes in the infos of a step, in which the episodes of some rows have ended.

        These have numbers by row (`EPISODES`), or arrays [B] and a mask under each name with an underscore in front, as
        gymnasium's have them, in `final_info` where the environment resets in the same step.
        """
        final = infos.get("final_info", infos)
        for name, values in _measured(infos, rows) if final is infos else _measured_in(final, rows):
            finite = values[np.isfinite(values)]
            total, count = self._totals.get(name, (0.0, 0))
            if len(finite):
                self._totals[name] = total + float(np.sum(finite, dtype=np.float64)), count + len(finite)

    def totals(self) -> dict[str, tuple[float, int]]:
        """Returns sums and counts by name since the last call, for `merge` of another one."""
        totals, self._totals = self._totals, {}
        return totals

    def merge(self, totals: Mapping[str, tuple[float, int]]) -> None:
        """Takes in what another one's `totals` returned."""
        for name, (total, count) in totals.items():
            own, own_count = self._totals.get(name, (0.0, 0))
            self._totals[name] = own + total, own_count + count

    def pop(self) -> dict[str, float]:
        """Returns the means by name, over the episodes since the last call that had such a number."""
        totals = self.totals()
        return {name: total / count for name, (total, count) in totals.items()}


def _measured_in(final: Any, rows: Array) -> Iterator[tuple[str, Array]]:
    if isinstance(final, Mapping):
        yield from _measured(final, rows)
    elif isinstance(final, np.ndarray) and final.dtype == object:  # Of an earlier gymnasium: a dict for each row.
        yield from _by_row({int(row): numbers_of(final[row]) for row in rows})


def _measured(infos: Mapping[str, Any], rows: Array) -> Iterator[tuple[str, Array]]:
    """Yields names and the numbers [n] of those of the rows that have them."""
    if EPISODES in infos:
        yield from _by_row(infos[EPISODES])
        return
    masks = {f"_{name}" for name in infos}
    for name, array in infos.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray) or name in _NAMES or name in masks:
            continue
        if array.ndim == 1 and array.dtype.kind in "biuf" and len(array) > rows[-1]:
            mask = infos.get(f"_{name}")
            yield name, array[rows if mask is None else rows[np.asarray(mask, bool)[rows]]]


def _by_row(found: Mapping[int, Mapping[str, float]]) -> Iterator[tuple[str, Array]]:
    for numbers in found.values():
        for name, value in numbers.items():
            yield name, np.array([value])
