"""Ends training runs with environments in processes by every signal in every phase, and counts what is left.

    PYTHONPATH=tests python -m reliability.orphans --runs=50

One run after the other is forked from a process that has imported everything and run no TensorFlow operation. It
leads a session of its own. Ten seconds after the signal no process of that session may be alive: neither the trainer
nor a worker. Updates run operation by operation, which saves compiling them; all else is `ppo-train` as it is.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ppo_agent import _stack

SECONDS = 10.0
FLAGS = (
    "--vectorization=async", "--num_environments=4", "--collect_steps_per_iteration=16", "--num_epochs=1",
    "--minibatch_size=32", "--actor_fc_layers=4", "--value_fc_layers=4", "--total_environment_steps=400",
    "--eval_interval=2", "--num_eval_episodes=2", "--checkpoint_interval=1",
)  # fmt: skip
SIGNALS = {
    "kill -9": [signal.SIGKILL],
    "SIGHUP": [signal.SIGHUP],
    "SIGTERM": [signal.SIGTERM],
    "SIGINT": [signal.SIGINT],
    "SIGQUIT": [signal.SIGQUIT],
    "two SIGTERMs": [signal.SIGTERM, signal.SIGTERM],
}


def phases() -> dict[str, tuple[Any, str]]:
    """The functions whose call begins a phase of a run, by its name."""
    from ppo_agent.checkpoint import CheckpointStore
    from ppo_agent.drivers.vector_envs import factory
    from ppo_agent.learner.compilation import CompiledUpdate
    from ppo_agent.training import evaluation, recorder
    from ppo_agent.training.collection import Collector

    return {
        "starting": (factory, "make_vector_env"),
        "collecting": (Collector, "collect"),
        "updating": (CompiledUpdate, "__call__"),
        "saving": (CheckpointStore, "write"),
        "evaluating": (evaluation, "evaluate"),
        "exporting": (recorder, "export_policy"),
    }


def main() -> int:
    """Runs the program; returns 1 if a process was left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    _stack.import_tensorflow()
    from ppo_agent import trainer  # noqa: F401 - Before the forks.

    rng, bad, slowest, start = random.Random(arguments.seed), 0, 0.0, time.perf_counter()
    for number in range(arguments.runs):
        phase = list(phases())[number % len(phases())]
        name = list(SIGNALS)[(number + number // len(phases())) % len(SIGNALS)]
        seconds, workers, left = end_a_run(phase, SIGNALS[name], rng.uniform(0.0, 0.2))
        slowest = max(slowest, seconds)
        bad += bool(left)
        print(
            f"{number}: {name} while {phase}, {workers} workers: {left or 'none left'} after {seconds:.1f} s",
            flush=True,
        )
    print(
        f"{arguments.runs - bad} of {arguments.runs} runs left no process after {SECONDS:.0f} s; the slowest took "
        f"{slowest:.1f} s; {time.perf_counter() - start:.0f} s in all."
    )
    return 1 if bad else 0


def end_a_run(phase: str, signals: list[int], delay: float) -> tuple[float, int, list[int]]:
    """Starts a run and ends it.

    Args:
        phase: that it is ended in, see `phases`.
        signals: sent one after the other.
        delay: in seconds, from the beginning of the phase.

    Returns:
        Seconds until its last process was gone or `SECONDS` had passed, the number of workers that it had, and the
        processes that were left.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        log = Path(folder, "log")
        log.touch()
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            _train(Path(folder, "run"), log)
        _wait(lambda: bool(log.read_text()), 120.0)
        _wait(lambda: phase in log.read_text().splitlines() or not _alive(pid), 120.0)
        time.sleep(delay)
        workers = len(_alive(pid)) - 1
        for number in signals:
            if pid in _alive(pid):
                os.kill(pid, number)
            time.sleep(0.02)
        start = time.monotonic()
        _wait(lambda: not _alive(pid), SECONDS)
        seconds, left = time.monotonic() - start, _alive(pid)
        for process in left:
            os.kill(process, signal.SIGKILL)
        os.waitpid(pid, 0)
        return seconds, workers, left


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def _alive(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, leader = path.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # It has ended meanwhile.
            continue
        if int(leader) == session and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def _train(root_dir: Path, log: Path) -> None:
    """The run itself; does not return."""
    os.setsid()
    log.write_text("session\n")
    import tensorflow as tf

    from ppo_agent import train
    from ppo_agent.learner.compilation import CompiledUpdate
    from ppo_agent.training import recorder

    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for file in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), file)
    CompiledUpdate.__call__ = lambda compiled, rows, weights: compiled.update(rows, weights)
    recorder.export_policy_saver = lambda *_: None
    tf.config.run_functions_eagerly(True)
    for name, (owner, function) in phases().items():
        setattr(owner, function, _noted(getattr(owner, function), log, name))
    os._exit(train.main(["ppo-train", f"--root_dir={root_dir}", *FLAGS]))


def _noted(function: Callable[..., Any], log: Path, name: str) -> Callable[..., Any]:
    def noted(*arguments: Any, **keywords: Any) -> Any:
        with log.open("a") as file:
            file.write(f"{name}\n")
        return function(*arguments, **keywords)

    return noted


if __name__ == "__main__":
    sys.exit(main())
