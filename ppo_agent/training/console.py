"""What a run shows on standard output and on standard error."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from ppo_agent.training.command_line import say
from ppo_agent.training.metrics_table import INFO

if TYPE_CHECKING:
    from ppo_agent.trainer import Trainer

_SHOWN = (
    "environment_steps", "episodes", "episode_return_mean", "episode_return_min", "episode_return_max",
    "episode_length_mean", "truncated_fraction", "policy_gradient_loss", "value_estimation_loss", "entropy",
    "approx_kl", "clip_fraction", "explained_variance", "gradient_norm", "value_mean", "action_std", "learning_rate",
    "importance_ratio_clipping", "entropy_regularization", "skipped_steps", "steps_per_second", "wall_time_s",
)  # fmt: skip


class ConsoleTable:
    """Writes the numbers of every so many iterations: a table on a terminal, else a line."""

    def __init__(self, interval: int) -> None:
        """Takes the number of iterations between tables."""
        self._interval = interval

    def on_update_end(self, trainer: Trainer) -> None:
        """Writes the table if it is due."""
        iterations = trainer.loop.tally.iterations
        if iterations % self._interval == 0:
            metrics = trainer.metrics
            infos = [name for name in metrics if name.startswith(INFO)]
            row = {name: metrics[name] for name in (*_SHOWN, *infos) if name in metrics}
            shown = {name: _to_text(value) for name, value in row.items() if not math.isnan(value)}
            say(_table({"iteration": str(iterations), **shown}))


def _table(shown: dict[str, str]) -> str:
    if not sys.stdout.isatty():
        return " ".join(f"{name}={value}" for name, value in shown.items())
    width = max(map(len, shown))
    rule = "-" * (width + 15)
    return "\n".join([rule, *(f"{name:<{width}} {value:>14}" for name, value in shown.items()), rule])


def _to_text(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
