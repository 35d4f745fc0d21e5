"""Runs this package and its peers in turn and writes what came out.

python -m benchmarks.run --cases=W1,W2 --rounds=3
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import cases, measure, report, virtual_environments
from benchmarks.cases import CASES, PEERS, SCALING, Case, Peer

_TIME_LIMIT_S = 900
_SCALING = "scaling"


def main() -> None:
    """Runs what the command line asks for."""
    arguments = _parse()
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    records = []
    for record in _records(arguments):
        records.append(record)
        print(_line(record, time.monotonic() - start), flush=True)
    data = {"date": dt.datetime.now(dt.UTC).date().isoformat(), "machine": machine(), "records": records}
    (output / "results.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    report.write(data, output)
    print(f"\n{(output / 'table.md').read_text(encoding='utf-8')}")
    print(f"benchmark: everything is in {output}")


def machine() -> dict[str, Any]:
    """What the figures depend on beside the programs."""
    model = platform.processor() or platform.machine()
    for line in measure.read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"processor": model, "cores": len(os.sched_getaffinity(0)), "system": platform.system()}


def run_peer(peer: Peer, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a program once.

    Args:
        peer: which.
        flags: its command line.

    Returns:
        What it printed; with the key `error` if it failed or cannot be installed.
    """
    try:
        python = virtual_environments.python_of(peer.environment)
    except virtual_environments.UnavailableError as error:
        return {"error": str(error)}
    command = [python, "-m", f"benchmarks.peers.{peer.module}", *(f"--{key}={value}" for key, value in flags.items())]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", measure.STARTED: repr(time.time())}
    try:
        done = subprocess.run(  # noqa: S603 - Its arguments are not a user's text.
            command,
            capture_output=True,
            check=False,
            cwd=virtual_environments.ROOT,
            env=environment,
            text=True,
            timeout=_TIME_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {_TIME_LIMIT_S} s"}
    results = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not results:
        return {"error": (done.stderr.strip().splitlines() or ["no result"])[-1][:200]}
    return json.loads(results[-1])


def _records(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Runs everything; yields a record of every run."""
    names = arguments.cases.split(",") if arguments.cases else [*CASES, _SCALING]
    for name in names:
        if name == _SCALING:
            yield from _scale(arguments)
        else:
            yield from _compare(name, CASES[name], arguments)


def _compare(name: str, case: Case, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Runs the peers of a case in turn: A B C A B C ..."""
    chosen = arguments.peers.split(",") if arguments.peers else list(case.peers)
    broken: set[str] = set()
    for index in range(arguments.rounds or case.rounds or 3):
        for peer in (peer for peer in case.peers if peer in chosen and peer not in broken):
            flags = {
                "workload": case.workload,
                "seed": index,
                "seconds": case.seconds or arguments.seconds,
                "iterations": case.iterations,
                "threads": PEERS[peer].threads,
                "option": PEERS[peer].option,
            }
            result = run_peer(PEERS[peer], flags)
            if "error" in result:
                broken.add(peer)
            yield {"case": name, "peer": peer, "round": index, **{k: v for k, v in result.items() if k != "peer"}}


def _scale(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Runs this package's W1 with one quantity changed at a time."""
    for flag, values in SCALING.items():
        for value in values:
            flags = {"workload": "W1", "seconds": arguments.seconds / 2, flag: value}
            if flag == "num_environments":
                # As many minibatches an iteration as in W1.
                flags["minibatch_size"] = 32 * value
            result = run_peer(PEERS[cases.OURS], flags)
            yield {**result, "case": _SCALING, "peer": cases.OURS, "round": 0, "changed": flag, "value": value}


def _line(record: Mapping[str, Any], seconds: float) -> str:
    """What is printed of a run."""
    head = f"{seconds:6.0f} s  {record['case']:11} {record['peer']:30}"
    if "error" in record:
        return f"{head} {record['error']}"
    changed = f" {record['changed']}={record['value']}" if "changed" in record else ""
    quantity = CASES[record["case"]].quantity if record["case"] in CASES else "steps_per_second"
    return f"{head} {quantity} {record[quantity]:,.2f}{changed}   other processes: {record['other_cores']:.1f} cores"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="", help=f"of {', '.join([*CASES, _SCALING])}; default: all")
    parser.add_argument("--peers", default="", help=f"of {'; '.join(PEERS)}; default: those of the cases")
    parser.add_argument("--rounds", type=int, default=0, help="how often each peer runs; default: 3, long cases 1 or 2")
    parser.add_argument("--seconds", type=float, default=3.0, help="for which iterations are timed in each run")
    parser.add_argument("--output", default="build/benchmark", help="folder for results and pictures")
    arguments = parser.parse_args()
    for flag, known in (("cases", {*CASES, _SCALING}), ("peers", set(PEERS))):
        unknown = set(filter(None, getattr(arguments, flag).split(","))) - known
        if unknown:
            sys.exit(f"benchmark: --{flag} is {', '.join(sorted(unknown))}, expected of {', '.join(sorted(known))}.")
    return arguments


if __name__ == "__main__":
    main()
