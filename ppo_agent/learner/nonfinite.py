"""What ends a training whose losses or gradients are not finite any more."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.agents.tf_agent import LossInfo
from tf_agents.utils import nest_utils

from ppo_agent.common.types import Nest, Tensor
from ppo_agent.learner import report


class NonFiniteUpdateError(FloatingPointError):
    """`max_skipped_steps` gradient steps in a row had a loss or a gradient that was not finite, and were skipped.

    Parameters, optimiser and normalisers are those after the last good step.

    Attributes:
        skipped: how many steps in a row.
        metrics: what the last good step reported, by name, as in `PPOAgent.train_metrics`; NaN if there was none in
            that call of `train`.
        minibatch: the last minibatch that was skipped, arrays [rows, steps, ...] by the path of the leaf, for instance
            `time_steps/observation`, `returns`, `mask`.
    """

    def __init__(self, skipped: int, metrics: Mapping[str, float], minibatch: Mapping[str, np.ndarray]) -> None:
        """Takes the attributes."""
        bad = [name for name, values in minibatch.items() if values.dtype.kind == "f" and not np.isfinite(values).all()]
        found = f"not finite in {', '.join(bad)}" if bad else "finite in all its entries"
        super().__init__(
            f"{skipped} gradient steps in a row had a loss or gradient that is not finite and were skipped; the last "
            f"minibatch is {found}."
        )
        self.skipped, self.metrics, self.minibatch = skipped, dict(metrics), dict(minibatch)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `minibatch` and, as `metrics/NAME`, `metrics` into an .npz file, without any pickle."""
        metrics = {f"metrics/{name}": np.float32(value) for name, value in self.metrics.items()}
        arrays: dict[str, Any] = {**self.minibatch, **metrics}
        with open(path, "wb") as file:
            np.savez_compressed(file, **arrays)


class SkippedMinibatch:
    """Where a graph leaves the last minibatch of too many that were skipped, for the eager code around it.

    It holds nothing of the graph, so that an operation that outlives it keeps no more alive than this.
    """

    def __init__(self) -> None:
        """Holds nothing yet."""
        self._arrays: dict[str, np.ndarray] | None = None

    def __bool__(self) -> bool:
        """Whether there is one."""
        return self._arrays is not None

    def take(self) -> dict[str, np.ndarray]:
        """Hands the arrays out, by the path of the leaf."""
        arrays, self._arrays = self._arrays or {}, None
        return arrays

    def error(self, loss_info: LossInfo, values: Tensor) -> NonFiniteUpdateError:
        """What ends the training after too many skipped steps.

        Args:
            loss_info: of the last good step.
            values: the report of that call of `train`.
        """
        loss, extra = tf.nest.map_structure(float, loss_info)
        metrics = {**report.train_metrics(values.numpy().tolist()), "loss": loss, **extra._asdict()}
        return NonFiniteUpdateError(int(report.entry(values, "skipped_in_a_row")), metrics, self.take())

    def put_if(self, condition: Tensor, minibatch: Callable[[], Nest]) -> None:
        """Takes a copy of a minibatch where a condition, a bool scalar of the graph, holds."""

        def call() -> tf.Tensor:
            nest = minibatch()
            keep = functools.partial(self._keep, [path for path, _ in nest_utils.flatten_with_joined_paths(nest)])
            with tf.control_dependencies([tf.numpy_function(keep, tf.nest.flatten(nest), [])]):
                return tf.constant(0)

        tf.cond(condition, call, lambda: tf.constant(0))

    def _keep(self, paths: list[str], *leaves: Any) -> tuple[()]:
        self._arrays = dict(zip(paths, map(np.array, leaves), strict=True))
        return ()
