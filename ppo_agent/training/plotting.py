"""Pictures: learning_curve.png of a run, and several runs in one."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppo_agent.common import atomic_files
from ppo_agent.training.comparison import Curve, moving_mean


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
        axes.plot(steps, moving_mean(returns, 0), color="tab:blue", linewidth=2, label="the same, smoothed")
    if len(evaluations):
        at, means, deviations = np.asarray(evaluations, float).T
        axes.errorbar(at, means, deviations, fmt="o", color="tab:orange", capsize=3, label="evaluation, mean and std")
    _finish(figure, axes, path, title, "episode return")


def _figure() -> Any:
    """An empty figure that belongs to no window."""
    # Imported here, because it takes a second that no other part of a run should wait for.
    try:
        from matplotlib.figure import Figure
    except ValueError:  # MPLBACKEND names a backend that is not installed; none is needed.
        wanted = os.environ.pop("MPLBACKEND", "")
        # What was imported before the error is of no use.
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]
        try:
            from matplotlib.figure import Figure
        finally:
            os.environ["MPLBACKEND"] = wanted
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plot_curves(path: Path, title: str, ylabel: str, curves: Sequence[Curve]) -> None:
    """Draws the curves of groups of runs with their intervals against environment steps, into a PNG file."""
    figure = _figure()
    axes = figure.add_subplot()
    for curve in curves:
        runs = f"{curve.num_runs} run{'s' if curve.num_runs > 1 else ''}"
        (line,) = axes.plot(curve.steps, curve.mean, linewidth=2, label=f"{curve.label} ({runs})")
        axes.fill_between(curve.steps, curve.low, curve.high, color=line.get_color(), alpha=0.2, linewidth=0)
    _finish(figure, axes, path, title, ylabel)


def _finish(figure: Any, axes: Any, path: Path, title: str, ylabel: str) -> None:
    """Labels and writes a plot against environment steps."""
    axes.set(title=title, xlabel="environment steps", ylabel=ylabel)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", frameon=False)
    image = io.BytesIO()
    figure.savefig(image, dpi=120, format="png")
    # Replaces a link instead of writing to where it leads.
    atomic_files.replace_file(path, image.getvalue())
