"""Trains tiny runs whose environments and numbers fail at random, for hours, and watches what the process holds.

    PYTHONPATH=tests python -m reliability.soak --minutes=120

One agent goes through one round after the other. Each makes new environments, in this process or in others, that
misbehave in a few random ways (`misbehaving_environments.FAULTS`), collects and trains some iterations in them, and
closes them; in some rounds a reward in the experience is not finite, as if a check had missed it, and in some
`ppo-train` is run on top, in a process of its own. A round ends well, or with one of the two errors of this package. In
between the resident memory, open files, threads and child processes are counted. What grows, or a round that takes more
than two minutes, is a failure: exit status 1.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import functools
import gc
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import misbehaving_environments as misbehaving
import numpy as np

import ppo_agent
from ppo_agent import networks
from ppo_agent.drivers import (
    DynamicEpisodeDriver,
    DynamicStepDriver,
    EnvironmentFaultError,
    EpisodeStatistics,
    GymnasiumEnvironment,
    UniformReplayBuffer,
)

import tensorflow as tf  # isort: skip - ppo_agent comes first.

LONGEST_ROUND_S = 120
ITERATIONS, STEPS = 4, 24
NUM_ENVIRONMENTS = 4
# What may be more at the end than after the first fifth of the time.
MORE_MEMORY_MB, MORE_FILES, MORE_THREADS = 60, 2, 2
PROGRAM = """
import gymnasium as gym, sys
from misbehaving_environments import Misbehaving
from ppo_agent import train
gym.register("Soaked-v0", lambda: Misbehaving(sys.argv[1]), disable_env_checker=True)
sys.exit(train.main(["ppo-train", "--env_name=Soaked-v0", *sys.argv[2:]]))
"""
FLAGS = (
    "--preset=none", "--num_environments=4", "--collect_steps_per_iteration=16", "--total_environment_steps=192",
    "--num_epochs=1", "--minibatch_size=32", "--actor_fc_layers=4", "--value_fc_layers=4", "--num_eval_episodes=2",
    "--step_time_limit_s=1",
)  # fmt: skip


class Soak:
    """The agent, and the tally of what happened.

    Args:
        seed: of what happens.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.tally: collections.Counter[str] = collections.Counter()
        with GymnasiumEnvironment(misbehaving.Misbehaving, num_environments=NUM_ENVIRONMENTS) as env:
            specs = env.time_step_spec(), env.action_spec()
        self._agent = ppo_agent.PPOClipAgent(
            *specs,
            actor_net=networks.ActorNetwork(specs[0].observation, specs[1], (4,)),
            value_net=networks.ValueNetwork(specs[0].observation, (4,)),
            optimizer=tf.keras.optimizers.Adam(1e-3),
            num_epochs=2,
            minibatch_size=32,
            max_skipped_steps=8,
        )
        self._agent.initialize()

    def round(self) -> None:
        """One set of environments."""
        self.tally["rounds"] += 1
        rng, in_processes = self._rng, self._rng.random() < 0.5
        kinds = (
            misbehaving.FAULTS if in_processes else (*misbehaving.INVALID, *misbehaving.RAISED, *misbehaving.HARMLESS)
        )
        faults = rng.sample(kinds, rng.randint(1, 5))
        self.tally.update(f"fault {fault}" for fault in faults)
        make = functools.partial(
            misbehaving.Misbehaving, ",".join(faults), first_step=rng.randint(1, 40), period=rng.randint(5, 60)
        )
        try:
            with GymnasiumEnvironment(
                make,
                num_environments=NUM_ENVIRONMENTS,
                seed=rng.randrange(2**20),
                vectorization="async" if in_processes else "sync",
                max_restarts=rng.choice([0, 3, 1000]),
                invalid_steps=rng.choice(["error", "drop", "drop"]),
                step_time_limit_s=0.5,
            ) as env:
                self._train(env, rng.random() < 0.1)
                self.tally["drops"] += int(env._recovery.drops.sum())
                self.tally["restarts"] += int(env._recovery.restarts.sum())
            self.tally["trained"] += 1
        except EnvironmentFaultError:
            self.tally["ended by an environment"] += 1
        except ppo_agent.NonFiniteUpdateError:
            self.tally["ended by numbers"] += 1
        for variable in self._agent._trained_variables():
            assert np.isfinite(variable.numpy()).all()

    def _train(self, env: GymnasiumEnvironment, spoils: bool) -> None:
        statistics = EpisodeStatistics()
        buffer = UniformReplayBuffer(self._agent.collect_data_spec, env.batch_size, 10_000)
        arguments = (env, self._agent.collect_policy, [buffer.add_batch, statistics])
        driver: Any = DynamicStepDriver(*arguments, num_steps=STEPS * env.batch_size, bootstrap_row=True)
        if self._rng.random() < 0.3:
            driver = DynamicEpisodeDriver(*arguments, num_episodes=8, bootstrap_row=True)
        state: tuple = (None, None)
        for _ in range(ITERATIONS):
            state = driver.run(*state, maximum_iterations=100)
            experience = buffer.gather_all()
            buffer.clear()
            for leaf in tf.nest.flatten(experience):
                assert not leaf.dtype.is_floating or np.isfinite(leaf.numpy()).all()
            if spoils:
                reward = experience.reward.numpy().copy()
                reward[0, 0] = np.nan
                experience = experience._replace(reward=tf.constant(reward))
            if experience.step_type.shape[0] * experience.step_type.shape[1] >= 32:
                self._agent.train(experience)
                self.tally["skipped steps"] += int(self._agent.train_metrics()["skipped_steps"])
                self.tally["environment steps"] += statistics.num_environment_steps
                statistics.reset()

    def program(self) -> None:
        """A run of ppo-train."""
        kinds = [fault for fault in misbehaving.FAULTS if not fault.startswith("hang")]
        faults = ",".join(self._rng.sample(kinds, 2))
        choices = self._rng.choice([["--vectorization=sync"], ["--vectorization=async"]])
        if "exit" in faults or "killed" in faults:
            choices = ["--vectorization=async"]
        choices.append(self._rng.choice(["--invalid_steps=error", "--invalid_steps=drop"]))
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", PROGRAM, faults, *FLAGS, *choices, f"--root_dir={folder}/run"]
            run = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_ROUND_S, check=False)
            last = run.stderr.strip().splitlines()[-1:] or [""]
            ended = run.returncode == 1 and last[0].startswith("ppo-train: environment ")
            if not (run.returncode == 0 or ended) or not list(Path(folder, "run", "checkpoints").iterdir()):
                raise AssertionError(f"ppo-train with {faults} {choices}: status {run.returncode}, {last[0]}")
        self.tally[f"ppo-train, status {run.returncode}"] += 1


def held() -> dict[str, float]:
    """What this process holds: resident memory in MB, open files, threads, child processes."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    children = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            children += len((task / "children").read_text().split())
    return {
        "memory_mb": int(status["VmRSS"].split()[0]) / 1024,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
        "children": children,
    }


def growth(samples: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Of each thing the largest value from the second fifth of the time, and from the last fifth."""
    fifth = max(1, len(samples) // 5)
    early, late = samples[fifth : 2 * fifth] or samples[-1:], samples[-fifth:]
    return {name: tuple(max(s[name] for s in part) for part in (early, late)) for name in samples[0]}  # type: ignore[misc]


def problems(found: dict[str, tuple[float, float]]) -> list[str]:
    """What has grown too much, in words."""
    most = {"memory_mb": MORE_MEMORY_MB, "files": MORE_FILES, "threads": MORE_THREADS, "children": 0}
    grown = [f"{name} grew from {a:.0f} to {b:.0f}" for name, (a, b) in found.items() if b - a > most[name]]
    return grown + ([f"{found['children'][1]:.0f} child processes are left"] if found["children"][1] else [])


def main() -> int:
    """Runs the program; returns 1 if anything leaked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    soak, samples, start, told = Soak(arguments.seed), [], time.monotonic(), 0.0
    while (elapsed := time.monotonic() - start) < 60 * arguments.minutes:
        faulthandler.dump_traceback_later(2 * LONGEST_ROUND_S, exit=True)
        soak.round()
        if soak.tally["rounds"] % 40 == 20:
            soak.program()
        samples.append(held())
        if elapsed - told > 60:
            told = elapsed
            print(f"{elapsed / 60:.0f} min, {soak.tally['rounds']} rounds, {samples[-1]}", flush=True)
    faulthandler.cancel_dump_traceback_later()
    found = growth(samples)
    print(json.dumps({"minutes": arguments.minutes, **soak.tally, "second and last fifth": found}))
    leaks = problems(found)
    print("; ".join(leaks) if leaks else "nothing grew.")
    return 1 if leaks else 0


if __name__ == "__main__":
    sys.exit(main())
