"""The command line that all peers share, and the clock that times their iterations."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.workloads import ALL, Workload

# Set by the runner to the time at which it starts the process.
STARTED = "BENCHMARK_STARTED"
_IMPORTED = time.time()
WARM_UP = 2
_LEAST_ITERATIONS = 2
# Keys of `Workload` that the command line can change, for the scaling table.
_CHANGEABLE = ("num_environments", "num_steps", "minibatch_size")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The command line.

    Attributes:
        name: of the workload.
        workload: what to run.
        seed: of everything that is random.
        seconds: for how long iterations are timed, at least.
        iterations: how many are timed; 0 for as many as fit into `seconds`.
        threads: for peers that can be told; 0 for their own choice.
        option: of one peer, see there.
    """

    name: str
    workload: Workload
    seed: int
    seconds: float
    iterations: int
    threads: int
    option: str


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """Reads the command line; None for that of the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", choices=ALL, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--iterations", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--option", default="")
    parser.add_argument("--width", type=int, help="units of every hidden layer")
    for name in _CHANGEABLE:
        parser.add_argument(f"--{name}", type=int)
    values = parser.parse_args(argv)
    workload = ALL[values.workload]
    changes: dict[str, Any] = {name: getattr(values, name) for name in _CHANGEABLE if getattr(values, name)}
    if values.width:
        changes["hidden"] = (values.width,) * len(workload.hidden)
    return Arguments(
        values.workload,
        dataclasses.replace(workload, **changes),
        values.seed,
        values.seconds,
        values.iterations,
        values.threads,
        values.option,
    )


class Meter:
    """Times iterations: call `collected` after the collection, if there is one, and `updated` after the update."""

    def __init__(self, arguments: Arguments) -> None:
        """Starts the clock of the first iteration."""
        self._arguments = arguments
        self._laps: list[tuple[float, float]] = []
        self._memory_mb: list[float] = []
        self._collected: float | None = None
        self._startup_s = 0.0
        self._lap = time.perf_counter()
        self._busy, self._own, self._since = 0.0, 0.0, self._lap

    def collected(self) -> None:
        """Ends the collection of an iteration."""
        self._collected = time.perf_counter()

    def updated(self) -> bool:
        """Ends an iteration; returns whether to go on with another one."""
        now = time.perf_counter()
        middle = self._lap if self._collected is None else self._collected
        self._laps.append((middle - self._lap, now - middle))
        if len(self._laps) == 1:
            self._startup_s = seconds_since_start()
        self._memory_mb.append(resident_memory_mb())
        if len(self._laps) == WARM_UP:
            self._busy, self._own, self._since = _busy_seconds(), _own_seconds(), now
        self._collected, self._lap = None, time.perf_counter()
        return not self._is_done(now)

    def report(self, **more: Any) -> dict[str, Any]:
        """What was measured, in seconds, steps per second and MB."""
        timed = self._laps[WARM_UP:]
        steps = self._arguments.workload.steps_per_iteration
        wall = time.perf_counter() - self._since
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return {
            "steps_per_second": steps * len(timed) / sum(map(sum, timed)),
            "collect_s": statistics.median(lap[0] for lap in timed),
            "update_s": statistics.median(lap[1] for lap in timed),
            "startup_s": self._startup_s,
            "first_iteration_s": sum(self._laps[0]),
            "iterations": len(timed),
            "peak_memory_mb": peak_memory_mb(),
            # Of the resident memory over the later four fifths of the iterations.
            "memory_growth_mb": self._memory_mb[-1] - self._memory_mb[len(self._memory_mb) // 5],
            "other_cores": max(0.0, others / wall),
            **more,
        }

    def _is_done(self, now: float) -> bool:
        timed = len(self._laps) - WARM_UP
        if self._arguments.iterations:
            return timed >= self._arguments.iterations
        return timed >= _LEAST_ITERATIONS and now - self._since >= self._arguments.seconds


def emit(result: dict[str, Any], arguments: Arguments, *packages: str) -> None:
    """Prints the result as one JSON line, with what was asked for and the versions of the packages."""
    versions = {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
    head = {"workload": arguments.name, "seed": arguments.seed, "threads": arguments.threads}
    print(json.dumps({**head, **result, "versions": versions}), flush=True)


def seconds_since_start() -> float:
    """Wall time since the runner started this process; since the import of this module without a runner."""
    return time.time() - float(os.environ.get(STARTED, _IMPORTED))


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    status = read("/proc/self/status")
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_memory_mb() -> float:
    """Resident memory of this process now; 0 where the system does not tell."""
    fields = read("/proc/self/statm").split()
    return int(fields[1]) * resource.getpagesize() / 2**20 if fields else 0.0


def _busy_seconds() -> float:
    """Processor time of all processes since the machine was started; 0 where the system does not tell."""
    line = read("/proc/stat").partition("\n")[0].split()
    if not line:
        return 0.0
    user, nice, system, _, _, irq, softirq, *_ = (int(field) for field in line[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Processor time of this process, of children that have ended, and of those that step environments."""
    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in multiprocessing.active_children():
        fields = read(f"/proc/{child.pid}/stat").rpartition(")")[2].split()
        if fields:
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def read(path: str) -> str:
    """The text of a file, empty where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
