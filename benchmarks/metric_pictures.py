"""Trains good and bad runs on purpose, and draws what their metrics look like, for docs/metrics.md.

    python -m benchmarks.metric_pictures

Everything is CartPole-v1 with its preset but for what the name of a run says, 60,000 steps and two seeds each. Runs
that are done are not done again; they lie in build/metric_pictures. The pictures go to docs/images/metrics.
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np

import ppo_agent  # Before tensorflow: it chooses the Keras that TF-Agents needs.
from ppo_agent.common import atomic_files
from ppo_agent.training import comparison

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNS = ROOT / "build" / "metric_pictures"
PICTURES = ROOT / "docs" / "images" / "metrics"
SEEDS = range(2)
STEPS = 60_000
GOOD = "good"
# What is wrong with each bad run, by the name of its picture.
BAD: dict[str, dict[str, Any]] = {
    "learning_rate_too_high": {"learning_rate": 0.03, "learning_rate_schedule": "constant"},
    "learning_rate_too_low": {"learning_rate": 1e-5},
    "entropy_bonus_too_large": {"entropy_regularization": 0.5},
    "too_many_epochs": {"num_epochs": 60, "importance_ratio_clipping": 10.0},
    "values_do_not_keep_up": {"discount_factor": 0.9999, "lambda_value": 1.0, "value_pred_loss_coef": 1e-6},
}
COLUMNS = {
    "episode_return_mean": "return",
    "entropy": "entropy (nats)",
    "approx_kl": "approx_kl (nats)",
    "clip_fraction": "clip_fraction",
    "explained_variance": "explained_variance",
    "value_estimation_loss": "value loss",
}


def main() -> None:
    """Trains what is missing and draws all pictures."""
    for name, settings in {GOOD: {}, **BAD}.items():
        train(name, settings)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in BAD:
        draw(PICTURES / f"{name}.png", name)
    draw(PICTURES / f"{GOOD}.png", None)


def train(name: str, settings: Mapping[str, Any]) -> None:
    """Trains with all seeds, unless that has been done."""
    for seed in SEEDS:
        folder = RUNS / name / str(seed)
        if (folder / "learning_curve.png").exists():
            continue
        with ppo_agent.Trainer(
            "CartPole-v1", seed=seed, root_dir=folder, total_environment_steps=STEPS, **settings
        ) as trainer:
            trainer.train()
            print(f"{name}, seed {seed}: {trainer.mean_return:.1f}", flush=True)


def draw(path: pathlib.Path, name: str | None) -> None:
    """Draws a bad run beside the good one, or the good one alone."""
    figure = matplotlib.figure.Figure(figsize=(9.0, 4.6), layout="constrained")
    for axes, (column, title) in zip(figure.subplots(2, 3).flat, COLUMNS.items(), strict=True):
        for label, color in ((GOOD, "tab:blue"), (name, "tab:red")):
            if label is not None:
                curve = _curve(label, column)
                axes.plot(curve.steps, curve.mean, color=color, linewidth=1.8, label=label.replace("_", " "))
                axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.15, linewidth=0)
        axes.set_title(title, fontsize=10)
        axes.xaxis.set_major_formatter(lambda steps, _: f"{steps / 1000:.0f}k")
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    image = io.BytesIO()
    figure.savefig(image, dpi=110, format="png")
    atomic_files.replace_file(path, image.getvalue())


def _curve(name: str, column: str) -> comparison.Curve:
    """Mean and smallest and largest value over the seeds: an interval of two wild runs hides everything else."""
    runs: Sequence[comparison.Run] = [comparison.read_run(RUNS / name / str(seed), column, 3) for seed in SEEDS]
    (curve,) = comparison.compare(runs, "env_name")
    values = [np.interp(curve.steps, run.steps, run.values) for run in runs]
    low, high = np.min(values, axis=0), np.max(values, axis=0)
    return comparison.Curve(curve.label, curve.num_runs, curve.steps, curve.mean, low, high)


if __name__ == "__main__":
    main()
