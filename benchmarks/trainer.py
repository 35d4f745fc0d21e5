"""What the training loop costs beside a bare loop of driver and agent, and `ppo-train` beside that of another checkout.

    python -m benchmarks.trainer [--workload=W1] [--rounds=20]
    python -m benchmarks.trainer --base=/path/to/another/checkout [--workload=W1] [--rounds=5] [--steps=200000]

Both sides take turns. The first compares in one process, by its processor time, which other processes disturb less;
the second whole processes, by the `steps_per_second` of their result.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.workloads import WORKLOADS, Workload

_ROOT = Path(__file__).parents[1]
_ITERATIONS = 10


def settings_of(workload: Workload) -> dict[str, Any]:
    """The settings of a trainer for a workload."""
    return {
        "num_environments": workload.num_environments,
        "collect_steps_per_iteration": workload.num_steps,
        "num_epochs": workload.num_epochs,
        "minibatch_size": workload.minibatch_size,
        "learning_rate": workload.learning_rate,
    }


def compare_loops(workload: Workload, rounds: int) -> dict[str, float]:
    """Processor time for an environment step, in a bare loop and in a trainer, microseconds."""
    import ppo_agent

    settings = settings_of(workload)
    trainers = [ppo_agent.Trainer(workload.env_name, preset="none", seed=seed, **settings) for seed in (0, 1)]
    sides = {"bare": _bare_loop(trainers[0], workload), "trainer": _training(trainers[1], workload)}
    for side in sides.values():
        side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.process_time()
            steps = side()
            times[name].append(1e6 * (time.process_time() - start) / steps)
    medians = {name: statistics.median(found) for name, found in times.items()}
    ratios = [b / a for a, b in zip(times["bare"], times["trainer"], strict=True)]
    return {
        **medians,
        "ratio": statistics.median(ratios),
        "ratio of minima": min(times["trainer"]) / min(times["bare"]),
    }


def _bare_loop(trainer: Any, workload: Workload) -> Callable[[], int]:
    """A loop of driver, buffer and agent, `_ITERATIONS` at a time; returns the steps taken."""
    from ppo_agent.drivers import DynamicStepDriver, EpisodeStatistics, UniformReplayBuffer

    env, agent, statistics_ = trainer.env, trainer.agent, EpisodeStatistics()
    buffer = UniformReplayBuffer(agent.collect_data_spec, env.batch_size, 2 * workload.num_steps + 2)
    observers = [buffer.add_batch, statistics_]
    driver = DynamicStepDriver(
        env, agent.collect_policy, observers, num_steps=workload.steps_per_iteration, bootstrap_row=True
    )
    state: tuple[Any, Any] = (None, None)

    def run() -> int:
        nonlocal state
        before = statistics_.num_environment_steps
        for _ in range(_ITERATIONS):
            state = driver.run(*state)
            experience = buffer.gather_all()
            buffer.clear()
            agent.train(experience)
            agent.train_metrics()
        return statistics_.num_environment_steps - before

    return run


def _training(trainer: Any, workload: Workload) -> Callable[[], int]:
    def run() -> int:
        before = trainer.environment_steps
        # Rows behind episodes' ends are no steps of theirs, so that an iteration may have a few more.
        trainer.train((_ITERATIONS + 1) * workload.steps_per_iteration)
        return trainer.environment_steps - before

    return run


def compare_checkouts(name: str, workload: Workload, base: Path, rounds: int, steps: int) -> dict[str, float]:
    """Steps per second of `ppo-train` of another checkout and of this one, in turns."""
    rates: dict[str, list[float]] = {"base": [], "this": []}
    for index in range(rounds):
        for side, folder in (("base", base), ("this", _ROOT)):
            rates[side].append(_rate(folder, workload, steps, seed=index))
            print(f"{name} {side} {rates[side][-1]:.0f}", flush=True)
    medians = {side: statistics.median(found) for side, found in rates.items()}
    ratios = [b / a for a, b in zip(rates["base"], rates["this"], strict=True)]
    return {**medians, "ratio": statistics.median(ratios)}


def _rate(folder: Path, workload: Workload, steps: int, seed: int) -> float:
    flags = [f"--{name}={value}" for name, value in settings_of(workload).items()]
    with tempfile.TemporaryDirectory() as run:
        command = [
            sys.executable, "-m", "ppo_agent.train", f"--env_name={workload.env_name}", f"--root_dir={run}/run",
            "--preset=none", "--noprogress", "--num_eval_episodes=1", "--checkpoint_interval=0",
            f"--total_environment_steps={steps}", f"--seed={seed}", *flags,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(folder), "PPO_AGENT_COMPILATION_CACHE": "off"}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)  # noqa: S603
        return float(json.loads((Path(run) / "run" / "result.json").read_text())["steps_per_second"])


def main() -> None:
    """Measures and prints a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="W1", choices=["W1", "W2"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--steps", type=int, default=200_000)
    arguments = parser.parse_args()
    workload = WORKLOADS[arguments.workload]
    if arguments.base is None:
        found = compare_loops(workload, arguments.rounds)
    else:
        found = compare_checkouts(arguments.workload, workload, arguments.base, arguments.rounds, arguments.steps)
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
