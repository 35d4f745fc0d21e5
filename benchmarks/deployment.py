"""Measures exported policies: size, latency, difference from the SavedModel, return in the environment.

    python -m benchmarks.deployment

Trains a policy of each kind for a short time (runs that are there already are used again), exports it to every format
with `ppo-export`, and times a call with one and with 64 observations on one thread. Writes docs/deployment.csv and
prints the table of docs/deployment.md. Formats take turns, so that all of them meet the same load.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BATCH_SIZES = (1, 64)
FORMATS = ("saved_model", "tflite", "tflite_int8", "onnx", "numpy")
# By kind of policy, what ppo-train is told.
KINDS = {
    "64x64, discrete": ["--env_name=CartPole-v1", "--total_environment_steps=60000"],
    "64x64, continuous": ["--env_name=Pendulum-v1", "--total_environment_steps=30000"],
    "64x64, squashed": ["--env_name=Pendulum-v1", "--total_environment_steps=30000", "--squash_actions"],
    "LSTM": ["--env_name=CartPole-v1", "--total_environment_steps=20000", "--recurrent"],
    "GRU": ["--env_name=CartPole-v1", "--total_environment_steps=20000", "--recurrent", "--memory=gru"],
    "CNN, 84x84x4": ["--env_name=ALE/Pong-v5", "--total_environment_steps=2048"],
}
# An episode of Pong takes a thousand steps.
NUM_EPISODES = dict.fromkeys(KINDS, 20) | {"CNN, 84x84x4": 2}
FIELDS = (
    "kind", "format", "call", "size_bytes", "p50_us_batch_1", "p99_us_batch_1", "p50_us_batch_64", "p99_us_batch_64",
    "max_relative_difference", "differing_actions", "eval_return_mean", "saved_model_eval_return_mean",
)  # fmt: skip


def main() -> None:
    """Measures everything; with --kind only what is timed in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "deployment", help="for runs and exports")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement of latency")
    parser.add_argument("--num_observations", type=int, default=10_000)
    parser.add_argument("--reuse", action="store_true", help="do not export again what is in the folder")
    parser.add_argument("--kind", default="", help="time the exports of this kind, in this process")
    flags = parser.parse_args()
    if flags.kind:
        print(json.dumps(latencies(_folder(flags.folder, flags.kind), flags.seconds)))
        return
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        rows += measure(kind, flags)
        with (ROOT / "docs" / "deployment.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print("\n".join(table(rows)))


def measure(kind: str, flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of one kind of policy."""
    folder = _folder(flags.folder, kind)
    run, episodes = folder / "run", f"--num_eval_episodes={NUM_EPISODES[kind]}"
    if not (run / "result.json").exists():
        _call("ppo_agent.train", f"--root_dir={run}", "--progress=false", episodes, *KINDS[kind])
    reports = {}
    for name in FORMATS:
        output = folder / name / "policy"
        report = (output if name in ("saved_model", "numpy") else output.parent) / "export.json"
        if not (flags.reuse and report.exists()):
            given = [f"--root_dir={run}", f"--format={name}", f"--output={output}"]
            _call("ppo_agent.export_command", *given, episodes, f"--num_observations={flags.num_observations}")
        reports[name] = json.loads(report.read_text())
    # One thread each, which TensorFlow has to know before it starts.
    one_thread = dict.fromkeys(
        ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
    )
    given = [f"--kind={kind}", f"--folder={flags.folder}", f"--seconds={flags.seconds}"]
    timed = json.loads(_call("benchmarks.deployment", *given, environment=one_thread).splitlines()[-1])
    for (name, call), values in ((tuple(key.split("/")), values) for key, values in timed.items()):
        yield {"kind": kind, "format": name, "call": call, **_reported(reports[name]), **values}


def latencies(folder: Path, seconds: float) -> dict[str, dict[str, float]]:
    """Microseconds of a call by `format/call`, for arrays in and out."""
    import ppo_agent  # noqa: F401  First, for the right Keras.
    from ppo_agent.export.runners import SavedModelRunner

    reference = SavedModelRunner(folder / "saved_model" / "policy", ("action",))
    calls = dict(_calls(folder))
    found: dict[str, dict[str, float]] = {name: {} for name in calls}
    for batch_size in BATCH_SIZES:
        inputs = {name: _sample(spec, batch_size) for name, spec in reference.inputs.items()}
        for name, times in _in_turns(calls, inputs, seconds).items():
            found[name] |= {f"p{q}_us_batch_{batch_size}": _percentile(times, q) for q in (50, 99)}
    return found


def _calls(folder: Path) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    import tensorflow as tf

    from ppo_agent.export import formats

    loaded = tf.saved_model.load(str(folder / "saved_model" / "policy"))
    signature = loaded.signatures["action"]

    def call_signature(inputs: dict[str, Any]) -> Any:
        outputs = signature(**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    call_signature.loaded = loaded  # type: ignore[attr-defined]  # Variables live as long as the object.
    yield "saved_model/signature", call_signature
    for name in FORMATS:
        runner = formats.FORMATS[name].load(folder / name / "policy", ("action",))
        yield f"{name}/{'one operation' if name == 'saved_model' else 'run'}", runner


def _in_turns(calls: dict[str, Callable[[Any], Any]], inputs: Any, seconds: float) -> dict[str, list[float]]:
    """Seconds of each call, the calls taking turns of a tenth of the time."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3):
            call(inputs)
    for _ in range(10):
        for name, call in calls.items():
            end = time.perf_counter() + seconds / 10
            while (start := time.perf_counter()) < end:
                call(inputs)
                times[name].append(time.perf_counter() - start)
    return times


def _percentile(times: list[float], q: int) -> float:
    import numpy as np

    return round(float(np.percentile(times, q)) * 1e6, 1)


def _sample(spec: Any, batch_size: int) -> Any:
    import numpy as np

    rng, shape = np.random.default_rng(0), [batch_size, *spec.shape[1:]]
    values = rng.integers(0, 256, shape) if spec.dtype.is_integer else rng.normal(size=shape)
    return values.astype(spec.dtype.as_numpy_dtype)


def _reported(report: dict[str, Any]) -> dict[str, Any]:
    differences = report["differences"]
    return {
        "size_bytes": report["size_bytes"],
        "max_relative_difference": max(
            value["max_relative"] for value in differences.values() if "differing_rows" not in value
        ),
        "differing_actions": differences.get("action", {}).get("differing_rows", ""),
        "eval_return_mean": report["eval_return_mean"],
        "saved_model_eval_return_mean": report["saved_model_eval_return_mean"],
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The lines of the table in docs/deployment.md."""
    head = ["policy", "format", "KB", "batch 1: p50 / p99", "batch 64: p50 / p99", "difference", "return (SavedModel)"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        name = f"{row['format']}, {row['call']}" if row["format"] == "saved_model" else row["format"]
        batches = [f"{row[f'p50_us_batch_{n}']:,.1f} / {row[f'p99_us_batch_{n}']:,.1f} us" for n in BATCH_SIZES]
        returns = f"{row['eval_return_mean']:.1f} ({row['saved_model_eval_return_mean']:.1f})"
        size, difference = f"{row['size_bytes'] / 1000:,.0f}", f"{row['max_relative_difference']:.1e}"
        lines.append([row["kind"], name, size, *batches, difference, returns])
    return [f"| {' | '.join(line)} |" for line in lines]


def _folder(folder: Path, kind: str) -> Path:
    return folder / "".join(c if c.isalnum() else "_" for c in kind)


def _call(module: str, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """Runs a module's program; its output."""
    command = [sys.executable, "-m", module, *arguments]
    print(" ".join(command[2:]), file=sys.stderr, flush=True)
    environ = {**os.environ, **(environment or {})}
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environ).stdout  # noqa: S603


if __name__ == "__main__":
    main()
