"""Kills a training run with SIGKILL at random moments, resumes it each time, and looks at what is left.

    PYTHONPATH=tests python -m reliability.kill --kills=200

One run after the other is forked from a process that has imported everything and run no TensorFlow operation, so that
an attempt takes a second or two. Updates run operation by operation, which saves compiling them; all else is
`ppo-train` as it is. Every run notes in a log what it does; after its death the folder is compared with that:

- the newest sound checkpoint is none older than the last one that was written, and at most an interval behind;
- it holds exactly the arrays that were handed to the store at that step;
- metrics.csv has every row up to it, result.json is absent or complete, and the next run goes on from it.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ppo_agent import _stack

INTERVAL = 2
FLAGS = (
    "--num_environments=2", "--collect_steps_per_iteration=16", "--num_epochs=1", "--minibatch_size=32",
    "--actor_fc_layers=4", "--value_fc_layers=4", "--total_environment_steps=100000000", "--eval_interval=7",
    "--num_eval_episodes=1", f"--checkpoint_interval={INTERVAL}",
)  # fmt: skip
# What a kill waits for, with its share of all, and the longest time from there to it in seconds.
MOMENTS = {"start": (0.15, 3.0), "trained": (0.45, 1.5), "saving": (0.4, 0.06)}


def main() -> int:
    """Runs the program; returns 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    _stack.import_tensorflow()
    from ppo_agent import trainer  # noqa: F401 - Before the forks.

    rng, lost, start = random.Random(arguments.seed), 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = Victim(Path(folder, "run"), Path(folder, "log"))
        for number in range(arguments.kills):
            run.start()
            (moment,) = rng.choices(list(MOMENTS), [share for share, _ in MOMENTS.values()])
            run.kill(moment, rng.uniform(0.0, MOMENTS[moment][1]))
            problems = run.problems()
            lost += bool(problems)
            for problem in problems:
                print(f"kill {number}: {problem}", flush=True)
        counts = run.counts
    print(
        f"{arguments.kills - lost} of {arguments.kills} kills left everything up to the last checkpoint; "
        f"{counts['saving']} came while a checkpoint was being written, {counts['start']} before the first iteration; "
        f"{counts['saved']} checkpoints, {time.perf_counter() - start:.0f} s."
    )
    return 1 if lost else 0


class Victim:
    """A run that is killed and resumed.

    Attributes:
        counts: how many kills came when, and how many checkpoints were written in all.
    """

    def __init__(self, root_dir: Path, log: Path) -> None:
        self._root_dir, self._log, self._process = root_dir, log, 0
        self._sums: dict[int, set[str]] = {}
        self._last_saved = 0
        self._expected: int | None = None
        self.counts = dict.fromkeys(("saving", "start", "saved"), 0)

    def start(self) -> None:
        """Starts the run, or resumes it if there is one."""
        self._log.write_bytes(b"")
        sys.stdout.flush()
        self._process = os.fork()
        if not self._process:
            _train(self._root_dir, self._log)

    def kill(self, moment: str, seconds: float) -> None:
        """Kills the run so long after a moment: its start, its first iteration, or the save that follows that."""
        deadline = time.monotonic() + 300
        while not self._has_come(moment):
            ended, status = os.waitpid(self._process, os.WNOHANG)
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"the run ended by itself with status {status}, or does nothing.")
            time.sleep(0.002)
        time.sleep(seconds)
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def _has_come(self, moment: str) -> bool:
        _, has_trained, after = self._log.read_bytes().partition(b'["trained"')
        return moment == "start" or (bool(has_trained) and (moment == "trained" or b'["saving"' in after))

    def problems(self) -> list[str]:
        """What is not as it should be after a kill, a sentence each."""
        from ppo_agent.checkpoint import CheckpointStore

        events = [json.loads(line) for line in self._log.read_text().splitlines()]
        of: dict[str, list[Any]] = {kind: [e for e in events if e[0] == kind] for kind in _KINDS}
        for _, step, total in of["saving"]:
            self._sums.setdefault(step, set()).add(total)
        self._last_saved = max([self._last_saved, *(step for _, step in of["saved"])])
        self.counts["saved"] += len(of["saved"])
        self.counts["saving"] += len(of["saving"]) > len(of["saved"])
        self.counts["start"] += not of["trained"]
        said: list[str] = []
        loaded = CheckpointStore(self._root_dir / "checkpoints", tell=said.append).newest_sound()
        found = [f"told: {sentence}" for sentence in said]
        if self._expected is not None and of["resumed"] and of["resumed"][0][1] != self._expected:
            found.append(f"resumed at {of['resumed'][0][1]}, expected {self._expected}")
        if loaded is None:
            return found if not self._sums or not self._last_saved else [*found, "no checkpoint is left"]
        step = self._expected = loaded.manifest.step
        behind = sum(trained > step for _, trained in of["trained"])
        if step < self._last_saved or behind > INTERVAL:
            found.append(f"at {step}, {behind} iterations behind, last saved {self._last_saved}")
        if _sum(loaded.arrays) not in self._sums.get(step, set()):
            found.append(f"the checkpoint at {step} holds other arrays than those that were saved")
        return found + self._problems_of_files(step, loaded.state["loop"]["iterations"])

    def _problems_of_files(self, step: int, iterations: int) -> list[str]:
        found = []
        rows: list[int] = []
        if (path := self._root_dir / "metrics.csv").exists():
            with path.open(newline="") as file:
                rows = [int(row["environment_steps"]) for row in csv.DictReader(file)]
        if sum(row <= step for row in rows) != iterations:
            found.append(f"metrics.csv has {sum(row <= step for row in rows)} rows up to {step}, expected {iterations}")
        if (path := self._root_dir / "result.json").exists():
            behind = step - json.loads(path.read_text())["environment_steps"]
            # An iteration takes 32 steps and some more.
            if not 0 <= behind <= INTERVAL * 40:
                found.append(f"result.json is {behind} steps behind the checkpoint")
        return found


_KINDS = ("resumed", "trained", "saving", "saved")


def _train(root_dir: Path, log: Path) -> None:
    """The run itself; does not return."""
    import tensorflow as tf

    from ppo_agent import train
    from ppo_agent.checkpoint import CheckpointStore
    from ppo_agent.learner.compilation import CompiledUpdate
    from ppo_agent.training.recorder import RunRecorder

    file = os.open(log, os.O_WRONLY | os.O_APPEND)

    def note(*event: Any) -> None:
        os.write(file, f"{json.dumps(event)}\n".encode())

    def write(store: Any, step: int, arrays: Any, *arguments: Any, **keywords: Any) -> Path:
        note("saving", step, _sum(arrays))
        path = store_write(store, step, arrays, *arguments, **keywords)
        note("saved", step)
        return path

    def record(recorder: Any, row: Any) -> None:
        recorder_record(recorder, row)
        note("trained", row["environment_steps"])

    def resumed(recorder: Any, trainer: Any) -> None:
        recorder_resumed(recorder, trainer)
        note("resumed", trainer.environment_steps)

    store_write, recorder_record, recorder_resumed = CheckpointStore.write, RunRecorder.record, RunRecorder.resumed
    CheckpointStore.write, RunRecorder.record, RunRecorder.resumed = write, record, resumed
    CompiledUpdate.__call__ = lambda compiled, rows, weights: compiled.update(rows, weights)
    tf.config.run_functions_eagerly(True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    is_there = any((root_dir / name).exists() for name in ("settings.json", "checkpoints"))
    os._exit(train.main(["ppo-train", f"--root_dir={root_dir}", *FLAGS, *(["--resume"] if is_there else [])]))


def _sum(arrays: Any) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
