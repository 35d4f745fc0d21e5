"""Makes the report of what `benchmarks.learning` trained: docs/results.

    python -m benchmarks.learning_report

Writes `results.csv` (a row for each run), `table.md` (a row for each environment, beside published figures) and a
picture of learning curves for each environment. The interquartile mean and its bootstrapped interval are those that
Agarwal et al. (2021, https://arxiv.org/abs/2108.13264) recommend for few runs.
"""

from __future__ import annotations

import csv
import json
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from benchmarks import learning

DOCS = learning.ROOT / "docs" / "results"
_SMOOTHED_EPISODES = 100


class Published(NamedTuple):
    """Mean returns that others have published; for other versions of the environments, see the report.

    Attributes:
        zoo: of rl-zoo's PPO (stable-baselines3, one run), None if there is none.
        zoo_std: standard deviation over the episodes of its evaluation.
        tf_agents: of TF-Agents' own PPO (three runs, one million steps), None if there is none.
    """

    zoo: float | None
    zoo_std: float | None = None
    tf_agents: float | None = None


PUBLISHED = {
    "CartPole": Published(500.0, 0.0),
    "Acrobot": Published(-73.5, 18.2),
    "MountainCar": Published(-110.4, 19.5),
    "MountainCarContinuous": Published(88.3, 2.6),
    "Pendulum": Published(-172.2, 104.0),
    "LunarLander": Published(242.0, 32.0),
    "LunarLanderContinuous": Published(271.0, 32.0),
    "BipedalWalker": Published(213.0, 129.0),
    "HalfCheetah": Published(5819.0, 664.0, 4239.0),
    "Hopper": Published(2410.0, 10.0, 2530.0),
    "Walker2d": Published(3479.0, 822.0, 2971.0),
    "Swimmer": Published(281.6, 9.7, 46.87),
    "Reacher": Published(None, None, -7.71),
    "InvertedPendulum": Published(None, None, 1000.0),
    "InvertedDoublePendulum": Published(None, None, 9353.0),
    "Ant": Published(1327.0, 452.0),
}


class Run(NamedTuple):
    """A finished run.

    Attributes:
        environment: its name.
        result: contents of result.json.
        steps: environment steps after each iteration in which an episode ended.
        returns: mean return of the training episodes of each of these.
    """

    environment: str
    result: dict[str, Any]
    steps: np.ndarray
    returns: np.ndarray


def read_runs(folder: pathlib.Path) -> list[Run]:
    """Returns the finished runs, in the order of their names and seeds."""
    return [_read_run(path.parent) for path in sorted(folder.glob("*/*/result.json"))]


def _read_run(folder: pathlib.Path) -> Run:
    result = json.loads((folder / "result.json").read_text())
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["episode_return_mean"] not in ("", "nan")]
    steps = np.array([float(row["environment_steps"]) for row in rows])
    return Run(result["env_name"], result, steps, np.array([float(row["episode_return_mean"]) for row in rows]))


def interquartile_mean(values: Any, axis: int = -1) -> Any:
    """The mean of the middle half."""
    return scipy.stats.trim_mean(values, 0.25, axis=axis)


def interval(values: Iterable[float]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the interquartile mean (percentiles of 10,000 resamples); one value has none."""
    sample = np.asarray(list(values))
    if len(sample) < 2 or np.ptp(sample) == 0:
        return float(sample.min()), float(sample.max())
    bootstrapped = scipy.stats.bootstrap((sample,), interquartile_mean, n_resamples=10_000, method="percentile", rng=0)
    return tuple(map(float, bootstrapped.confidence_interval))


def table(runs: list[Run]) -> list[str]:
    """Lines of the table, a row for each environment."""
    lines = [
        "| environment | steps | seeds | mean | std over seeds | interquartile mean [95 %] | rl-zoo | TF-Agents |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for environment in sorted({run.environment for run in runs}):
        group = [run.result for run in runs if run.environment == environment]
        means = [result["eval_return_mean"] for result in group]
        low, high = interval(means)
        published = PUBLISHED.get(environment.rsplit("-v", 1)[0], Published(None))
        zoo = "" if published.zoo is None else f"{published.zoo:,.1f} ± {published.zoo_std:,.1f}"
        theirs = "" if published.tf_agents is None else f"{published.tf_agents:,.1f}"
        lines.append(
            f"| {environment} | {max(result['environment_steps'] for result in group):,} | {len(group)} | "
            f"{np.mean(means):,.1f} | {np.std(means):,.1f} | {interquartile_mean(means):,.1f} "
            f"[{low:,.1f}, {high:,.1f}] | {zoo} | {theirs} |"
        )
    return lines


def draw(environment: str, runs: list[Run], path: pathlib.Path) -> None:
    """Draws the mean over the seeds with a band from the worst to the best."""
    figure = Figure(figsize=(6, 3.5), dpi=110, layout="tight")
    axes = figure.subplots()
    steps = np.linspace(max(run.steps[0] for run in runs), min(run.steps[-1] for run in runs), 300)
    returns = np.array([np.interp(steps, run.steps, _smooth(run.returns)) for run in runs])
    (line,) = axes.plot(steps, returns.mean(0))
    axes.fill_between(steps, returns.min(0), returns.max(0), color=line.get_color(), alpha=0.25, linewidth=0)
    axes.set(title=f"{environment}, {len(runs)} seeds", xlabel="environment steps", ylabel="mean return, training")
    figure.savefig(path)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Means of neighbouring iterations, a hundredth of the run wide."""
    width = max(1, len(values) // _SMOOTHED_EPISODES)
    kernel = np.ones(width)
    return np.convolve(values, kernel, mode="same") / np.convolve(np.ones(len(values)), kernel, mode="same")


def write_csv(runs: list[Run], path: pathlib.Path) -> None:
    """Writes a row for each run."""
    names = ["env_name", "seed", "environment_steps", "eval_return_mean", "eval_return_std", "num_eval_episodes",
             "final_train_return_mean", "wall_time_s", "steps_per_second"]  # fmt: skip
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(run.result for run in runs)


def main() -> None:
    """Writes the report."""
    runs = read_runs(learning.RUNS / learning.PRESETS)
    if not runs:
        raise SystemExit(f"there is no finished run in {learning.RUNS}, expected some: run benchmarks.learning first.")
    DOCS.mkdir(parents=True, exist_ok=True)
    write_csv(runs, DOCS / "results.csv")
    (DOCS / "table.md").write_text("\n".join(table(runs)) + "\n")
    for environment in sorted({run.environment for run in runs}):
        draw(environment, [run for run in runs if run.environment == environment], DOCS / f"{environment}.png")
    print(*table(runs), sep="\n")


if __name__ == "__main__":
    main()
