"""Episode statistics, from rows or from whole rollouts."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory as trajectory_lib

from ppo_agent.common import host_calls, scalar_summaries
from ppo_agent.common.checks import check_int

_FIRST, _LAST = int(ts.StepType.FIRST), int(ts.StepType.LAST)
_MOST_UNREAD = 100_000


class EpisodeStatistics:
    """Returns and lengths of finished episodes, for use as a driver's observer.

    Episodes may span several calls. A row counts as a step if it is a real transition: neither its step type is LAST
    (the row between two episodes) nor its next step type FIRST (that row, or a bootstrap row). Vector rewards are
    summed. An episode whose first steps were not seen counts from the first step seen, and one that is given up by a
    reset is forgotten.

    Attributes:
        num_episodes: Finished episodes so far.
        num_environment_steps: Real transitions so far, over the whole batch.
    """

    def __init__(self, window: int = 100) -> None:
        """Creates empty statistics.

        Args:
            window: Number of the latest episodes over which `mean_return` and `mean_length` go.

        Raises:
            ValueError: `window` is no positive int.
        """
        self._window = check_int("window", window)
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.num_episodes = 0
        self.num_environment_steps = 0
        self._totals: np.ndarray | None = None  # [2, B]: return and length of each running episode so far.
        self._recent: collections.deque[tuple[float, int]] = collections.deque(maxlen=self._window)
        self._unread: collections.deque[tuple[float, int]] = collections.deque(maxlen=_MOST_UNREAD)

    def mean_return(self) -> float:
        """Returns the mean return of the last `window` episodes; NaN before the first one has finished."""
        return float(np.mean([episode[0] for episode in self._recent])) if self._recent else float("nan")

    def mean_length(self) -> float:
        """Returns the mean length of the last `window` episodes in steps; NaN before the first one has finished."""
        return float(np.mean([episode[1] for episode in self._recent])) if self._recent else float("nan")

    def pop(self) -> tuple[list[float], list[int]]:
        """Returns returns and lengths of the episodes that finished since the last call, in order of time.

        No more than the last 100,000 are kept.
        """
        episodes = list(self._unread)
        self._unread.clear()
        return [episode[0] for episode in episodes], [episode[1] for episode in episodes]

    def tf_summaries(self, train_step: Any = None) -> None:
        """Writes what is known to tf.summary, as TF-Agents' metrics do and under their names.

        These are `Metrics/NumberOfEpisodes`, `Metrics/EnvironmentSteps` and, from the first finished episode on,
        `Metrics/AverageReturn` and `Metrics/AverageEpisodeLength`, of the last `window` episodes.

        Args:
            train_step: Where to write them on the horizontal axis; None for TensorFlow's default step.

        Raises:
            RuntimeError: It is called inside a graph.
        """
        if not tf.executing_eagerly():
            raise RuntimeError("tf_summaries is called inside a graph, expected a call outside of any tf.function.")
        if not tf.summary.should_record_summaries():
            return
        scalars: dict[str, float] = {
            "Metrics/NumberOfEpisodes": self.num_episodes,
            "Metrics/EnvironmentSteps": self.num_environment_steps,
        }
        if self._recent:
            scalars["Metrics/AverageReturn"] = self.mean_return()
            scalars["Metrics/AverageEpisodeLength"] = self.mean_length()
        scalar_summaries.write_scalars(train_step, **scalars)

    def __call__(self, trajectory: trajectory_lib.Trajectory) -> trajectory_lib.Trajectory:
        """Adds one row [B, ...], eagerly or in a graph, and returns it."""
        fields = (trajectory.step_type, trajectory.next_step_type, trajectory.reward)
        host_calls.call_on_host(self._add_row, fields)
        return trajectory

    def add_rollout(self, trajectory: trajectory_lib.Trajectory) -> None:
        """Adds rows [B, T, ...] of arrays or eager tensors."""
        self._add(*host_calls.to_arrays((trajectory.step_type, trajectory.next_step_type, trajectory.reward)))

    def get_state(self) -> dict[str, Any]:
        """Returns everything as plain numbers and lists, for `set_state` of another object."""
        return {
            "num_episodes": self.num_episodes,
            "num_environment_steps": self.num_environment_steps,
            "totals": None if self._totals is None else self._totals.tolist(),
            "recent": [list(episode) for episode in self._recent],
            "unread": [list(episode) for episode in self._unread],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over what `get_state` returned."""
        self.num_episodes = int(state["num_episodes"])
        self.num_environment_steps = int(state["num_environment_steps"])
        self._totals = None if state["totals"] is None else np.array(state["totals"], np.float64)
        self._recent = collections.deque(((float(r), int(n)) for r, n in state["recent"]), maxlen=self._window)
        self._unread = collections.deque(((float(r), int(n)) for r, n in state["unread"]), maxlen=_MOST_UNREAD)

    def _add_row(self, fields: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple:
        self._add(*(array[:, None] for array in fields))
        return ()

    def _add(self, step_type: np.ndarray, next_step_type: np.ndarray, reward: np.ndarray) -> None:
        """Adds rows [B, T]; reward may have further dimensions."""
        reward = reward.reshape(*step_type.shape, -1).sum(-1, dtype=np.float64)
        is_step = (step_type != _LAST) & (next_step_type != _FIRST)
        if self._totals is None or self._totals.shape[1] != len(step_type):
            self._totals = np.zeros([2, len(step_type)])
        values = np.stack([np.where(is_step, reward, 0.0), is_step])
        totals = _running_totals(values, step_type == _FIRST, self._totals)
        self._totals = totals[:, :, -1].copy()
        self.num_environment_steps += int(is_step.sum())
        columns, rows = np.nonzero((is_step & (next_step_type == _LAST)).T)  # In order of time.
        if len(rows):
            returns, lengths = totals[:, rows, columns]
            episodes = list(zip(returns.tolist(), lengths.astype(int).tolist(), strict=True))
            self.num_episodes += len(episodes)
            self._recent.extend(episodes)
            self._unread.extend(episodes)


def _running_totals(values: np.ndarray, starts: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Returns sums over time [N, B, T] of values [N, B, T] that start again at each start [B, T].

    `before` has the sums up to the row before the first, [N, B]; the sums include each row.
    """
    sums = values.cumsum(axis=2)
    # Sum before each row, and in front of them what makes a row without any start continue from `before`.
    sums_before = np.concatenate([-before[:, :, None], np.zeros_like(before)[:, :, None], sums[:, :, :-1]], axis=2)
    last_start = np.maximum.accumulate(np.where(starts, np.arange(starts.shape[1]), -1), axis=1)
    return sums - np.take_along_axis(sums_before, np.broadcast_to(last_start + 1, values.shape), axis=2)
