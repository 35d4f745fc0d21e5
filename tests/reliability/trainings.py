"""Trains one agent after the other in one process, and looks at what they leave behind.

    PYTHONPATH=tests python -m reliability.trainings --trainings=300

Every training makes environments, networks, an agent and what TensorFlow compiles for it, and closes them again.
Memory may grow by less than 2 MB a training after the tenth, or --most_mb; processes, threads and open files may not
grow at all. With --jit_compile=0 XLA is left out.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from ppo_agent import _stack

FIRST = 10
SETTINGS = {
    "num_environments": 2, "collect_steps_per_iteration": 32, "minibatch_size": 32, "num_epochs": 1,
    "actor_fc_layers": (16,), "value_fc_layers": (16,), "num_eval_episodes": 1, "preset": "none",
}  # fmt: skip


class Count(NamedTuple):
    """What this process holds."""

    memory_mb: float
    functions: int
    processes: int
    threads: int
    files: int


def main() -> int:
    """Runs the program; returns 1 if something grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainings", type=int, default=300)
    parser.add_argument("--env_name", default="CartPole-v1", help="TFCartPole for rollouts that XLA compiles too")
    parser.add_argument("--vectorization", default="auto")
    parser.add_argument("--most_mb", type=float, default=2.0)
    parser.add_argument("--jit_compile", type=int, choices=(0, 1))
    arguments = parser.parse_args()
    jit_compile = None if arguments.jit_compile is None else bool(arguments.jit_compile)
    _stack.import_tensorflow()
    start, counts = time.perf_counter(), []
    for number in range(arguments.trainings):
        train(number, arguments.env_name, vectorization=arguments.vectorization, jit_compile=jit_compile)
        counts.append(count())
        if number % 10 == 9:
            print(f"{number + 1}: {counts[-1]}, {time.perf_counter() - start:.0f} s", flush=True)
    growth = growth_of(counts)
    print(f"After training {FIRST}, each added {growth.memory_mb:.2f} MB; since then, in all: {growth[1:]}")
    return int(is_leak(growth, arguments.most_mb))


def train(seed: int, env_name: str = "CartPole-v1", **settings: Any) -> None:
    """One training from beginning to end."""
    import ppo_agent

    with ppo_agent.Trainer(env_name, seed=seed, **{**SETTINGS, **settings}) as trainer:
        trainer.train(128)


def count() -> Count:
    """Counts after garbage collection, with freed memory given back to the system."""
    from tensorflow.python.eager import context

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return Count(
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(context.context().list_function_names()),
        len(children),
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),
    )


def growth_of(counts: list[Count]) -> Count:
    """Memory for each training after number `FIRST`, by the least of the last and the first five; all else in all."""
    before, after = counts[FIRST : FIRST + 5], counts[-5:]
    steps = len(counts) - 5 - FIRST
    memory = (min(c.memory_mb for c in after) - min(c.memory_mb for c in before)) / steps
    return Count(memory, *(a - b for a, b in zip(counts[-1][1:], counts[FIRST][1:], strict=True)))


def is_leak(growth: Count, most_mb: float) -> bool:
    """Whether that is more than is allowed."""
    return growth.memory_mb >= most_mb or growth.processes > 0 or growth.threads > 0 or growth.files > 0


if __name__ == "__main__":
    sys.exit(main())
