"""The same training with several seeds, each in a process and a folder of its own."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppo_agent.common import atomic_files
from ppo_agent.training.command_line import WRONG_FLAG, FlagError, one_line
from ppo_agent.training.comparison import mean_interval
from ppo_agent.training.run_directory import RunDirectory

# Numbers of result.json that the table shows, with their names there.
SHOWN = {
    "eval_return_mean": "return",
    "final_train_return_mean": "training return",
    "environment_steps": "environment steps",
    "wall_time_s": "wall time, s",
    "steps_per_second": "steps per second",
}
# How long a run that was told to end is waited for, before it is killed.
_PATIENCE_S = 60.0


@dataclasses.dataclass
class Sweep:
    """Runs of `ppo-train` that differ in their seeds.

    Attributes:
        root_dir: folder of the sweep; the runs lie in `seed-N` in it, what they print in `seed-N.log`.
        train_flags: of `ppo-train`.
        seeds: of the runs.
        jobs: how many run at the same time.
    """

    root_dir: Path
    train_flags: Sequence[str]
    seeds: Sequence[int]
    jobs: int

    def __post_init__(self) -> None:
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._has_ended = False

    def prepare(self) -> None:
        """Makes the folder, or checks that the sweep in it is this one.

        Raises:
            ValueError: it holds a sweep with other flags, or cannot be written.
        """
        file = self.root_dir / "sweep.json"
        wanted = {"train_flags": list(self.train_flags)}
        if file.exists():
            found = _read_json(file)
            if found != wanted:
                flags = found.get("train_flags") if found else "unreadable"
                raise ValueError(
                    f"root_dir is {str(self.root_dir)!r}, which holds a sweep with other flags, {flags}: expected the "
                    "same, or another folder."
                )
            return
        try:
            self.root_dir.mkdir(parents=True, exist_ok=True)
            atomic_files.write_json(file, wanted)
        except OSError as error:
            raise ValueError(
                f"root_dir is {str(self.root_dir)!r}, expected a folder that can be written: {error.strerror}."
            ) from error

    def run(self) -> Generator[tuple[int, dict[str, Any] | str], None, None]:
        """Runs what is not done yet; yields seeds with their result.json, or with what went wrong, as they end.

        Raises:
            FlagError: `ppo-train` refuses its flags; the other runs are ended.
        """
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            futures = {pool.submit(self._run_one, seed): seed for seed in self.seeds}
            try:
                for future in concurrent.futures.as_completed(futures):
                    yield futures[future], future.result()
            finally:
                self.end()

    def end(self) -> None:
        """Ends what is running, in order: the same sweep continues it later."""
        with self._lock:
            self._has_ended = True
            running = list(self._processes)
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def folder(self, seed: int) -> Path:
        """The folder of a run."""
        return self.root_dir / f"seed-{seed}"

    def result(self, seed: int) -> dict[str, Any] | None:
        """result.json of a run that is done, else None."""
        found = _read_json(RunDirectory(self.folder(seed)).result)
        return found if found is not None and found.get("finished") else None

    def _run_one(self, seed: int) -> dict[str, Any] | str:
        if (found := self.result(seed)) is not None:
            return found
        log = self.root_dir / f"seed-{seed}.log"
        with log.open("wb") as output:
            process = self._start(seed, output)
            if process is None:
                return "it was not started"
            status = process.wait()
        with self._lock:
            self._processes.discard(process)
        found = self.result(seed)
        if status == 0 and found is not None:
            return found
        last = one_line(log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2])
        if status == WRONG_FLAG:
            raise FlagError(last)
        return last or f"exit status {status}"

    def _start(self, seed: int, output: Any) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._has_ended:
                return None
            # In a group of its own: Ctrl-C is for the sweep, which ends its runs with one signal each.
            process = subprocess.Popen(  # noqa: S603
                self._command(seed),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                process_group=0,
            )
            self._processes.add(process)
            return process

    def _command(self, seed: int) -> list[str]:
        own = [f"--root_dir={self.folder(seed)}", f"--seed={seed}", "--noprogress"]
        resumes = ["--resume"] if RunDirectory(self.folder(seed)).holds_run else []
        return [sys.executable, "-m", "ppo_agent.train", *self.train_flags, *own, *resumes]

    def _environment(self) -> Mapping[str, str]:
        """Runs at the same time share the cores instead of fighting for them."""
        share = str(max(1, (os.cpu_count() or 1) // self.jobs))
        names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        shares = dict.fromkeys(names, share) if self.jobs > 1 else {}
        return {**shares, **os.environ}


def to_rows(results: Mapping[int, Mapping[str, Any]]) -> list[list[str]]:
    """A table: a row for each seed, then the means and the bounds of their 95 % intervals; names come first."""
    rows = [["seed", *SHOWN]]
    seeds = sorted(results)
    values = np.array([[_number(results[seed].get(name)) for name in SHOWN] for seed in seeds])
    rows += [[str(seed), *map(_text, numbers)] for seed, numbers in zip(seeds, values, strict=True)]
    for name, numbers in zip(("mean", "low", "high"), mean_interval(values), strict=True):
        rows.append([name, *map(_text, numbers)])
    return rows


def to_text(rows: Sequence[Sequence[str]]) -> str:
    """The table for a terminal."""
    shown = [[rows[0][0], *SHOWN.values()], *rows[1:]]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in shown)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = atomic_files.read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
