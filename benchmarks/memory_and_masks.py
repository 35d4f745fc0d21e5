"""Shows what memory and action masks are good for: learning curves of `ppo-train` with and without them.

    python benchmarks/memory_and_masks.py

Two tasks of tests/toy_environments.py, five seeds each, everything else equal:

- RecallCue: a cue is shown at the first step and asked for nine steps later. LSTM and GRU against no memory.
- Doors: 256 keys, of which at most six are at hand. With the action mask, and with the same numbers as an observation.

Writes into docs/memory_and_masks: `curves.csv` (every iteration of every run), `results.csv` (the trained policies, 100
episodes each) and one picture for each task. Takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "memory_and_masks"

COMMON = (
    "--num_environments=16",
    "--collect_steps_per_iteration=64",
    "--minibatch_size=256",
    "--num_epochs=8",
    "--learning_rate_schedule=linear",
    "--entropy_regularization=0.01",
    "--num_eval_episodes=100",
    "--checkpoint_interval=0",
    "--progress=false",
)
_RECALL = ("--env_name=toy_environments:RecallCue-v0", "--total_environment_steps=60000", "--learning_rate=2e-3")
_DOORS = ("--total_environment_steps=100000", "--learning_rate=1e-3")


class Task(NamedTuple):
    """What is compared.

    Attributes:
        title: of the picture.
        variants: flags of `ppo-train` by the name of the curve.
        lines: returns to mark in the picture, by their names.
    """

    title: str
    variants: Mapping[str, tuple[str, ...]]
    lines: Mapping[str, float]


TASKS = {
    "recall_cue": Task(
        "Recall one of four cues after eight distractions",
        {
            "LSTM": (*_RECALL, "--recurrent", "--memory=lstm"),
            "GRU": (*_RECALL, "--recurrent", "--memory=gru"),
            "no memory": _RECALL,
        },
        {"best": 1.0, "chance": 0.25},
    ),
    "doors": Task(
        "Open eight doors, each with one of 256 keys",
        {
            "masked": ("--env_name=toy_environments:MaskedDoors-v0", *_DOORS),
            "not masked": ("--env_name=toy_environments:UnmaskedDoors-v0", *_DOORS),
        },
        {"best": 8.0},
    ),
}


class Run(NamedTuple):
    """A finished training run.

    Attributes:
        steps: environment steps after each iteration.
        returns: mean return of the training episodes of each iteration.
        eval_return_mean: of the trained, greedy policy.
    """

    steps: list[int]
    returns: list[float]
    eval_return_mean: float


def train(flags: Iterable[str], seed: int, extra: Iterable[str] = ()) -> Run:
    """Runs `ppo-train` in a process of its own.

    Args:
        flags: of the variant.
        seed: of the run.
        extra: further flags, which win.

    Raises:
        subprocess.CalledProcessError: it failed; its message is in the error's `stderr`.
    """
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "ppo_agent.train", *COMMON, *flags, f"--seed={seed}", *extra]
        subprocess.run(  # noqa: S603 - Its arguments are not a user's text.
            [*command, f"--root_dir={directory}/run"],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
        )
        with open(f"{directory}/run/metrics.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["episode_return_mean"]]
        result = json.loads(pathlib.Path(directory, "run", "result.json").read_text())
    steps = [int(row["environment_steps"]) for row in rows]
    return Run(steps, [float(row["episode_return_mean"]) for row in rows], result["eval_return_mean"])


def draw(task: Task, runs: Mapping[str, list[Run]], path: pathlib.Path) -> None:
    """Draws the mean over the seeds, smoothed over 3 iterations, with a band from the worst to the best seed."""
    figure = Figure(figsize=(7, 4), dpi=120, layout="tight")
    axes = figure.subplots()
    for name, curves in runs.items():
        steps = np.linspace(max(c.steps[0] for c in curves), min(c.steps[-1] for c in curves), 200)
        returns = np.array([np.interp(steps, curve.steps, _smooth(curve.returns)) for curve in curves])
        (line,) = axes.plot(steps, returns.mean(0), label=name)
        axes.fill_between(steps, returns.min(0), returns.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
    for name, value in task.lines.items():
        axes.axhline(value, color="grey", linestyle=":", linewidth=1)
        axes.annotate(name, (0, value), xytext=(3, 3), textcoords="offset points", color="grey", fontsize=8)
    axes.set(title=task.title, xlabel="environment steps", ylabel="mean return of training episodes")
    axes.legend()
    figure.savefig(path)


def _smooth(values: list[float]) -> np.ndarray:
    """Means of each value and its neighbours."""
    sums = np.convolve(values, np.ones(3), mode="same")
    return sums / np.convolve(np.ones(len(values)), np.ones(3), mode="same")


def _write(path: pathlib.Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def main() -> None:
    """Trains everything, writes tables and pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="runs of every variant")
    seeds = range(parser.parse_args().seeds)
    DOCS.mkdir(parents=True, exist_ok=True)
    curves, results = [], []
    for key, task in TASKS.items():
        runs: dict[str, list[Run]] = {}
        for name, flags in task.variants.items():
            runs[name] = []
            for seed in seeds:
                run = train(flags, seed)
                runs[name].append(run)
                results.append([key, name, seed, round(run.eval_return_mean, 4)])
                points = zip(run.steps, run.returns, strict=True)
                curves += [[key, name, seed, steps, round(value, 4)] for steps, value in points]
                print(*results[-1], flush=True)
        draw(task, runs, DOCS / f"{key}.png")
    _write(DOCS / "results.csv", ["task", "variant", "seed", "eval_return_mean"], results)
    _write(DOCS / "curves.csv", ["task", "variant", "seed", "environment_steps", "episode_return_mean"], curves)


if __name__ == "__main__":
    main()
