"""learning_curve.png."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


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
    # Imported here, because it takes a second that no other part of a run should wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
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
    figure.savefig(path, dpi=120)


def smooth(values: np.ndarray) -> np.ndarray:
    """The mean of each value [N] and the up to N / 10 before it."""
    window = max(1, len(values) // 10)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
