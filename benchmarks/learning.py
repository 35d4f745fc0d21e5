"""Trains environments with their presets, several seeds each, and keeps what came out.

    python -m benchmarks.learning --environments=CartPole-v1,Acrobot-v1 --seeds=3
    python -m benchmarks.learning --suite=mujoco --jobs=2

Each run is a `ppo-train` process with one thread for each library, `--jobs` of them at a time. A run that is done is
not done again: the same command goes on where it was ended. Everything lies in `build/learning/ENVIRONMENT/SEED`;
`python -m benchmarks.learning_report` makes the report of it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNS = ROOT / "build" / "learning"

SUITES = {
    "classic": ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
    "box2d": ("LunarLander-v3", "LunarLanderContinuous-v3", "BipedalWalker-v3"),
    "mujoco": (
        "HalfCheetah-v5",
        "Hopper-v5",
        "Walker2d-v5",
        "Swimmer-v5",
        "Reacher-v5",
        "InvertedPendulum-v5",
        "InvertedDoublePendulum-v5",
        "Ant-v5",
    ),
}
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")


def folder(environment: str, seed: int) -> pathlib.Path:
    """Where a run lies."""
    return RUNS / environment.replace(":", "_").replace("/", "_") / str(seed)


def train(environment: str, seed: int, flags: tuple[str, ...]) -> str:
    """Runs `ppo-train`, or does nothing if it has been done.

    Args:
        environment: a gymnasium id.
        seed: of the run.
        flags: further ones.

    Returns:
        A line that tells what happened.
    """
    root_dir = folder(environment, seed)
    if (root_dir / "result.json").exists():
        return f"{environment} {seed}: done before"
    command = [sys.executable, "-m", "ppo_agent.train", f"--env_name={environment}", f"--seed={seed}", *flags]
    if (root_dir / "checkpoints").exists():
        command.append("--resume")
    root_dir.parent.mkdir(parents=True, exist_ok=True)
    with (root_dir.parent / f"{seed}.log").open("a") as log:
        ended = subprocess.run(  # noqa: S603 - Its arguments are not a user's text.
            [*command, f"--root_dir={root_dir}", "--progress=false", "--num_eval_episodes=100"],
            check=False, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **_ONE_THREAD},
        )  # fmt: skip
    return f"{environment} {seed}: exit status {ended.returncode}"


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environments", default="", help="gymnasium ids, with commas between them")
    parser.add_argument("--suite", choices=sorted(SUITES), help="a group of environments")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every environment: seeds 0, 1, ...")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at a time")
    arguments, flags = parser.parse_known_args()
    environments = [*SUITES.get(arguments.suite, ()), *filter(None, arguments.environments.split(","))]
    if not environments:
        parser.error("nothing to train: give --environments or --suite")
    pairs = [(environment, seed) for seed in range(arguments.seeds) for environment in environments]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for future in concurrent.futures.as_completed([pool.submit(train, *pair, tuple(flags)) for pair in pairs]):
            print(future.result(), flush=True)


if __name__ == "__main__":
    main()
