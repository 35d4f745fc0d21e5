"""What ends a training whose losses or gradients are not finite any more."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from tf_agents.utils import nest_utils

from ppo_agent.common.types import Nest


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


def by_path(nest: Nest, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The leaves of a nest by their paths, taken from `arrays` in tf.nest's order."""
    paths = [path for path, _ in nest_utils.flatten_with_joined_paths(nest)]
    return dict(zip(paths, arrays, strict=True))
