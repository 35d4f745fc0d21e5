"""Trains environments with their presets, several seeds each, and keeps what came out.

    make learning TASKS=mujoco SEEDS=10
    python -m benchmarks.learning --tasks=CartPole-v1,Acrobot-v1 --seeds=3
    python -m benchmarks.learning --tasks=mujoco --jobs=2
    python -m benchmarks.learning --tasks=HalfCheetah-v5,Ant-v5,Humanoid-v5 --variant=presets_3m
    python -m benchmarks.learning --tasks=atari --total_environment_steps=300000
    python -m benchmarks.learning --variant=stable_baselines3 --tasks=CartPole-v1,LunarLander-v3,Hopper-v5
    python -m benchmarks.learning --variant=without_1 --tasks=CartPole-v1
    python -m benchmarks.learning --variant=with_recompute_advantages --tasks=Hopper-v5 --total_environment_steps=300000
    python -m benchmarks.learning --variant=critic_sees_velocities --tasks=benchmarks.environments:HopperParts-v5 \
        --preset=Hopper

Each run is a process with one thread for each library, `--jobs` of them at a time: `ppo-train`, or another program
(`--variant`) that writes the same files. Flags that are not known here are passed on. A run that is done is not done
again: the same command continues where it was ended. Everything lies in `build/learning/VARIANT/ENVIRONMENT/SEED`;
`python -m benchmarks.learning_report` makes the report of it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata, util

from benchmarks import virtual_environments

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNS = ROOT / "build" / "learning"
ORIGIN = "origin.json"

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
        "Humanoid-v5",
        "HumanoidStandup-v5",
    ),
    "atari": ("ALE/Pong-v5",),
}
PRESETS, LONG, PEER = "presets", "presets_3m", "stable_baselines3"
# Of `benchmarks.ablation`, which is not imported here because it imports TensorFlow.
ABLATIONS = ("nothing", "1", "2", "minibatch_statistics", "3", "4")
WITHOUT, WITH = "without_", "with_"
# Keywords of the agent that are off in the presets, with the flags that turn them on; to be compared with nothing.
FEATURES = {
    "nothing": (),
    "recompute_advantages": ("--recompute_advantages",),
    "learning_rate_kl_target": ("--learning_rate_schedule=constant", "--learning_rate_kl_target=0.01"),
    "warmup_cosine": ("--learning_rate_schedule=warmup_cosine",),
    "value_clipping": ("--value_clipping=0.2",),
    "dual_clipping": ("--dual_clipping=3",),
    "normalize_value_targets": ("--normalize_value_targets",),
    "target_kl": ("--target_kl=0.02",),
    "glorot_init": ("--orthogonal_init=false",),
}
# Who is shown the velocities of `benchmarks.environments:HopperParts-v5` and the like, which need --preset.
_BLIND_ACTOR = "--actor_observation_keys=position"
VELOCITIES = {
    "both_see_velocities": (),
    "critic_sees_velocities": (_BLIND_ACTOR,),
    "none_sees_velocities": (_BLIND_ACTOR, "--value_observation_keys=position"),
}
VARIANTS = (
    PRESETS,
    LONG,
    PEER,
    *(WITHOUT + name for name in ABLATIONS),
    *(WITH + name for name in FEATURES),
    *VELOCITIES,
)
# What a variant adds to the presets.
_FLAGS: dict[str, tuple[str, ...]] = {
    LONG: ("--total_environment_steps=3000000",),
    **{WITH + name: flags for name, flags in FEATURES.items()},
    **VELOCITIES,
}
_EVALUATED_EPISODES = 20
# Iterations of 2,048 steps between evaluations in MuJoCo's tasks: others publish the best evaluation of a training.
_EVALUATION_INTERVALS = {PRESETS: 25, LONG: 75}
_PACKAGES = ("tensorflow", "gymnasium", "mujoco", "numpy")
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")


def folder(variant: str, environment: str, seed: int) -> pathlib.Path:
    """Where a run lies."""
    return RUNS / variant / environment.replace(":", "_").replace("/", "_") / str(seed)


def program(variant: str) -> list[str]:
    """What is called with the flags of `ppo-train`.

    Raises:
        UnavailableError: the peer cannot be installed.
    """
    if variant in _FLAGS or variant == PRESETS:
        return [sys.executable, "-m", "ppo_agent.train"]
    if variant == PEER:
        return [virtual_environments.python_of(PEER), "-m", "benchmarks.peers.sb3_learning"]
    return [sys.executable, "-m", "benchmarks.ablation", variant.removeprefix(WITHOUT)]


def train(variant: str, environment: str, seed: int, flags: Sequence[str], episodes: int = _EVALUATED_EPISODES) -> str:
    """Runs a training, or does nothing if it has been done.

    Args:
        variant: one of `VARIANTS`.
        environment: a gymnasium id.
        seed: of the run.
        flags: further ones.
        episodes: of the evaluation at the end.

    Returns:
        A line that tells what happened.
    """
    root_dir = folder(variant, environment, seed)
    if _is_finished(root_dir):
        return f"{variant}, {environment} {seed}: done before"
    flags = [*_FLAGS.get(variant, ()), *flags]
    if environment in SUITES["mujoco"] and variant in _EVALUATION_INTERVALS:
        flags.insert(0, f"--eval_interval={_EVALUATION_INTERVALS[variant]}")
    command = [*program(variant), f"--env_name={environment}", f"--seed={seed}", *flags]
    if (root_dir / "checkpoints").exists():
        command.append("--resume")
    root_dir.parent.mkdir(parents=True, exist_ok=True)
    with (root_dir.parent / f"{seed}.log").open("a") as log:
        ended = subprocess.run(  # noqa: S603 - Its arguments are not a user's text.
            [*command, f"--root_dir={root_dir}", "--progress=false", f"--num_eval_episodes={episodes}"],
            check=False, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **_ONE_THREAD},
        )  # fmt: skip
    if ended.returncode == 0:
        (root_dir / ORIGIN).write_text(json.dumps(origin()) + "\n")
    return f"{variant}, {environment} {seed}: exit status {ended.returncode}"


def origin() -> dict[str, str]:
    """What a run was made with: the commit of this checkout, `+` for changes on top, and versions of packages."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    commit = subprocess.run(git, check=False, capture_output=True, text=True).stdout.strip()  # noqa: S603 - As above.
    found = {name: metadata.version(name) for name in _PACKAGES if util.find_spec(name) is not None}
    return {"commit": commit, "versions": " ".join(f"{name} {version}" for name, version in found.items())}


def tasks(names: str) -> list[str]:
    """The environments of a text: names of suites and gymnasium ids with commas or blanks between them."""
    return [task for name in re.split(r"[,\s]+", names) if name for task in SUITES.get(name, (name,))]


def _is_finished(root_dir: pathlib.Path) -> bool:
    """Whether a run has come to its end: result.json is there before, with what is known so far."""
    result = root_dir / "result.json"
    return result.exists() and json.loads(result.read_text()).get("finished", True)


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="", help=f"gymnasium ids, or {', '.join(SUITES)}; commas between them")
    parser.add_argument("--variant", choices=VARIANTS, default=PRESETS, help="what trains")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every environment: seeds 0, 1, ...")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at a time")
    parser.add_argument("--episodes", type=int, default=_EVALUATED_EPISODES, help="of each evaluation")
    arguments, flags = parser.parse_known_args()
    environments = tasks(arguments.tasks)
    if not environments:
        parser.error("tasks is empty, expected environments or suites: give --tasks")
    program(arguments.variant)  # Makes the peer's virtual environment once.
    pairs = [(environment, seed) for seed in range(arguments.seeds) for environment in environments]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [pool.submit(train, arguments.variant, *pair, tuple(flags), arguments.episodes) for pair in pairs]
        for future in concurrent.futures.as_completed(runs):
            print(future.result(), flush=True)


if __name__ == "__main__":
    main()
