"""`ppo-train --env_name=CartPole-v1` with its preset, until the last 100 training episodes have a mean of 475."""

# ruff: noqa: I001 - ppo_agent comes before tensorflow: it chooses the Keras that TF-Agents needs.
from __future__ import annotations

import tempfile
from typing import Any

import ppo_agent

from benchmarks import measure

THRESHOLD = 475.0


def train_to_threshold(seed: int) -> dict[str, Any]:
    """Trains as the program does, and ends it when the threshold is reached."""
    reached: dict[str, Any] = {"seconds_to_475": None, "return_mean": 0.0}

    def stop(trainer: ppo_agent.Trainer) -> bool:
        reached.update(steps_to_475=trainer.environment_steps, return_mean=trainer.mean_return)
        if trainer.mean_return >= THRESHOLD:
            reached["seconds_to_475"] = measure.seconds_since_start()
        return not trainer.mean_return >= THRESHOLD

    with tempfile.TemporaryDirectory() as folder:
        trainer = ppo_agent.Trainer("CartPole-v1", seed=seed, root_dir=f"{folder}/run")
        trainer.train(callbacks=[stop])
        trainer.close()
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
