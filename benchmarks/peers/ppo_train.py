"""`ppo-train --env_name=CartPole-v1` with its preset, until the last 100 training episodes have a mean of 475."""

# ruff: noqa: I001 - ppo_agent comes before tensorflow: it chooses the Keras that TF-Agents needs.
from __future__ import annotations

import tempfile
from typing import Any

from ppo_agent import train
from ppo_agent.training import command_line, progress

from benchmarks import measure

THRESHOLD = 475.0


def train_to_threshold(seed: int) -> dict[str, Any]:
    """Runs the program and ends it, as Ctrl-C would, when the threshold is reached."""
    reached: dict[str, Any] = {"seconds_to_475": None, "return_mean": 0.0}

    def update(_: progress.ProgressBar, steps: int, mean_return: float) -> None:
        reached.update(steps_to_475=steps, return_mean=mean_return)
        if mean_return >= THRESHOLD:
            reached["seconds_to_475"] = measure.seconds_since_start()
            raise command_line.Interrupted(2)

    # The program tells its progress bar the mean return of the last 100 episodes after every iteration.
    progress.ProgressBar.update = update  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--env_name=CartPole-v1", f"--seed={seed}", f"--root_dir={folder}/run")
        train.main(["ppo-train", *flags])
    if reached["seconds_to_475"] is None:
        raise SystemExit(f"{THRESHOLD:.0f} was not reached in {reached['steps_to_475']} steps, but {reached}")
    return reached


def main() -> None:
    """Runs what the command line asks for."""
    arguments = measure.parse()
    result = {**train_to_threshold(arguments.seed), "peak_memory_mb": measure.peak_memory_mb(), "other_cores": 0.0}
    measure.emit({"peer": "ppo-train", **result}, arguments, "tensorflow", "tf-agents", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
