"""learning_curve.png."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppo_agent.common import atomic_files


def plot_learning_curve(
    path: Path, title: str, columns: Mapping[str, Sequence[float]], evaluations: Sequence[Sequence[float]] = ()
) -> None:
    """Draws episode returns against environment steps.

    Args:
        path: the PNG file.
        title: above the plot.
        columns: `environment_steps` and `episode_return_mean` of every iteration; NaN where no episode ended.
        evaluations: (environment steps, mean return, its standard deviation) of every evaluation.
    """
    figure = _figure()
    axes = figure.add_subplot()
    steps, returns = np.asarray(columns["environment_steps"]), np.asarray(columns["episode_return_mean"])
    known = np.isfinite(returns)
    steps, returns = steps[known], returns[known]
    if len(returns):
        axes.plot(steps, returns, color="tab:blue", alpha=0.3, linewidth=1, label="training episodes, per iteration")
        axes.plot(steps, smooth(returns), color="tab:blue", linewidth=2, label="the same, smoothed")
    if len(evaluations):
        at, means, deviations = np.asarray(evaluations, float).T
        axes.errorbar(at, means, deviations, fmt="o", color="tab:orange", capsize=3, label="evaluation, mean and std")
    axes.set(title=title, xlabel="environment steps", ylabel="episode return")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", frameon=False)
    image = io.BytesIO()
    figure.savefig(image, dpi=120, format="png")
    # Replaces a link instead of writing to where it leads.
    atomic_files.replace_file(path, image.getvalue())


def _figure() -> Any:
    """An empty figure that belongs to no window."""
    # Imported here, because it takes a second that no other part of a run should wait for.
    try:
        from matplotlib.figure import Figure
    except ValueError:  # MPLBACKEND names a backend that is not installed; none is needed.
        wanted = os.environ.pop("MPLBACKEND", "")
        try:
            from matplotlib.figure import Figure
        finally:
            os.environ["MPLBACKEND"] = wanted
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def smooth(values: np.ndarray) -> np.ndarray:
    """The mean of each value [N] and the up to N / 10 before it."""
    window = max(1, len(values) // 10)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
