"""Callbacks that end the training."""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING

from ppo_agent.callbacks.base import Callback
from ppo_agent.common.checks import check_int

if TYPE_CHECKING:
    from ppo_agent.trainer import Trainer


class StopOnReturn(Callback):
    """Ends the training at a mean return.

    Args:
        threshold: of the mean return of the last 100 training episodes, or of an evaluation.
        on_evaluations: whether evaluations decide instead of training episodes.
    """

    def __init__(self, threshold: float, *, on_evaluations: bool = False) -> None:
        self._threshold, self._on_evaluations = threshold, on_evaluations
        if not isinstance(threshold, numbers.Real) or not math.isfinite(threshold):
            raise ValueError(f"threshold is {threshold!r}, expected a finite number.")

    def on_update_end(self, trainer: Trainer) -> bool:
        """Looks at the training episodes."""
        return self._on_evaluations or not trainer.mean_return >= self._threshold

    def on_evaluation(self, trainer: Trainer) -> bool:
        """Looks at the evaluation."""
        return not self._on_evaluations or trainer.evaluations[-1][1].mean < self._threshold


class StopAfterEpisodes(Callback):
    """Ends the training after so many episodes, counted from the start of each call of `train`.

    Args:
        num_episodes: how many.
    """

    def __init__(self, num_episodes: int) -> None:
        self._num_episodes, self._before = check_int("num_episodes", num_episodes), 0

    def on_training_start(self, trainer: Trainer) -> None:
        """Begins to count."""
        self._before = trainer.num_episodes

    def on_update_end(self, trainer: Trainer) -> bool:
        """Counts."""
        return trainer.num_episodes - self._before < self._num_episodes
