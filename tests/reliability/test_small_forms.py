"""Small forms of the scripts beside this file, and runs that are interrupted or find the disk full."""

import csv
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tensorflow as tf
from reliability import corruptions, kill

from ppo_agent import train
from ppo_agent import trainer as trainer_module
from ppo_agent.checkpoint import CheckpointStore
from ppo_agent.common import atomic_files
from ppo_agent.learner.compilation import CompiledUpdate
from ppo_agent.training import evaluation, interrupts, recorder
from ppo_agent.training.recorder import RunRecorder

FLAGS = [*corruptions.FLAGS, "--total_environment_steps=250"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs do not compile, and export nothing, unless a test puts it back."""
    for name in ("export_policy", "export_policy_saver", "plot_learning_curve"):
        monkeypatch.setattr(recorder, name, lambda *_, **__: None)
    with corruptions.without_compilation():
        yield


def run(root_dir: Path, *arguments: str) -> int:
    return train.main(["ppo-train", f"--root_dir={root_dir}", *arguments])


def newest_step(root_dir: Path) -> int:
    return CheckpointStore(root_dir / "checkpoints").newest_sound().manifest.step


def steps_of(root_dir: Path) -> list[int]:
    with (root_dir / "metrics.csv").open() as file:
        return [int(row["environment_steps"]) for row in csv.DictReader(file)]


def test_no_corruption_is_loaded(tmp_path: Path) -> None:
    problems, counts = corruptions.run(tmp_path, 20, seed=1)
    assert not problems
    assert counts["an older one"] > 5
    assert sum(counts.values()) == 20


@pytest.mark.slow
def test_nothing_is_lost_by_kills() -> None:
    command = [sys.executable, "-m", "reliability.kill", "--kills=10", "--seed=1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(kill.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("10 of 10 kills")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "flags"),
    [
        ("orphans", ["--runs=12"]),
        ("trainings", ["--trainings=20", "--jit_compile=0"]),
        # About 3 MB each are left in TensorFlow, for a reason that is not known; before, it was 30 to 50.
        ("trainings", ["--trainings=20", "--most_mb=5"]),
    ],
)
def test_nothing_is_left_behind(program: str, flags: list[str]) -> None:
    """No process by any signal, no memory by one training after the other."""
    environment = {**os.environ, "PYTHONPATH": str(Path(kill.__file__).parents[1])}
    command = [sys.executable, "-m", f"reliability.{program}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# What is under way when the signal comes, and the least number of iterations that the last checkpoint holds.
MOMENTS = {
    "building": (trainer_module, "make_learner", 0),
    "updating": (CompiledUpdate, "__call__", 1),
    "reporting": (RunRecorder, "record", 1),
    "evaluating": (evaluation, "evaluate", 2),
    "saving": (CheckpointStore, "write", 0),
    "exporting": (recorder, "export_policy", 7),
}


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("building", signal.SIGTERM),
        ("updating", signal.SIGINT),
        ("evaluating", signal.SIGTERM),
        ("exporting", signal.SIGTERM),
        *(pytest.param(name, signal.SIGTERM, marks=pytest.mark.slow) for name in ("reporting", "saving")),
    ],
)
def test_a_signal_ends_the_run_in_order(moment, number, quick, tmp_path: Path, capsys) -> None:
    owner, name, iterations = MOMENTS[moment]
    original, came = getattr(owner, name), []

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        if not came:
            came.append(time.monotonic())
            os.kill(os.getpid(), number)
        return original(*arguments, **keywords)

    root_dir = tmp_path / "run"
    # Undone before what `quick` has put in the same place.
    with mock.patch.object(owner, name, interrupted):
        assert run(root_dir, *FLAGS) == 128 + number
    assert time.monotonic() - came[0] < 10
    assert "Traceback" not in capsys.readouterr().err
    if moment == "building":
        assert not root_dir.exists()
        return
    assert newest_step(root_dir) == (steps_of(root_dir)[-1] if iterations else 0)
    assert run(root_dir, "--resume", "--num_eval_episodes=1") == 0
    assert len(steps_of(root_dir)) >= max(iterations, 7)
    assert sorted(set(steps_of(root_dir))) == steps_of(root_dir)


def test_a_long_update_is_not_waited_for(tmp_path: Path, monkeypatch, capsys) -> None:
    """The state before it is saved, though no checkpoint was due."""
    statuses: list[int] = []
    monkeypatch.setattr(recorder, "_LONG_ITERATION_SECONDS", 0.0)
    monkeypatch.setattr(interrupts, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr(RunRecorder, "finish", lambda *_, **__: {"interrupted": True, **dict.fromkeys(_RESULT, 0)})
    flags = [flag for flag in FLAGS if not flag.startswith(("--checkpoint_interval", "--eval_interval"))]
    with corruptions.without_compilation():
        update, calls = CompiledUpdate.__call__, []

        def long(*arguments: Any) -> Any:
            calls.append(None)
            if len(calls) == 4:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1.5)
            return update(*arguments)

        monkeypatch.setattr(CompiledUpdate, "__call__", long)
        assert run(tmp_path / "run", *flags, "--checkpoint_interval=0") == 143
        monkeypatch.undo()
    assert statuses == [143]
    assert "still busy" in capsys.readouterr().err
    loaded = CheckpointStore(tmp_path / "run" / "checkpoints").newest_sound()
    assert loaded.state["loop"]["iterations"] == 3
    assert loaded.manifest.step == steps_of(tmp_path / "run")[2]


_RESULT = ("environment_steps", "wall_time_s")


def test_a_full_disk_is_told_and_the_run_goes_on(quick, tmp_path: Path, monkeypatch, capsys) -> None:
    write, full = atomic_files._write, []

    def fail(path: Path, data: bytes) -> None:
        metrics = tmp_path / "run" / "metrics.csv"
        if metrics.exists() and len(steps_of(tmp_path / "run")) in (3, 4):
            full.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(atomic_files, "_write", fail)
    assert run(tmp_path / "run", *FLAGS) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all("No space left" in line and "the run goes on" in line for line in lines)
    assert full
    assert newest_step(tmp_path / "run") == steps_of(tmp_path / "run")[-1]


def test_a_full_disk_at_the_end_is_an_error(quick, tmp_path: Path, monkeypatch, capsys) -> None:
    write = atomic_files._write

    def fail(path: Path, data: bytes) -> None:
        if path.parent.name.startswith(atomic_files.UNFINISHED) and "checkpoint-1-" not in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(atomic_files, "_write", fail)
    assert run(tmp_path / "run", *FLAGS) == 1
    assert "the last checkpoint could not be written" in capsys.readouterr().err.splitlines()[-1]
    assert newest_step(tmp_path / "run") == 0


def test_events_that_cannot_be_written_are_left_out(quick, tmp_path: Path, monkeypatch, capsys) -> None:
    calls: list[None] = []
    create = tf.summary.create_file_writer

    def create_full(folder: str) -> Any:
        writer = create(folder)

        def flush() -> None:
            calls.append(None)
            if len(calls) == 5:
                raise tf.errors.ResourceExhaustedError(None, None, f"{folder}/events.out.1; No space left on device")

        writer.flush = flush
        return writer

    monkeypatch.setattr(tf.summary, "create_file_writer", create_full)
    assert run(tmp_path / "run", *FLAGS) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "events cannot be written" in line
    assert len(calls) > 8


def test_two_runs_in_one_folder(quick, tmp_path: Path, monkeypatch, capsys) -> None:
    statuses: list[int] = []
    record = RunRecorder.record

    def second(*arguments: Any) -> None:
        record(*arguments)
        if not statuses:
            statuses.append(run(tmp_path / "run", "--resume"))

    monkeypatch.setattr(RunRecorder, "record", second)
    assert run(tmp_path / "run", *FLAGS) == 0
    assert statuses == [2]
    assert "another run is using" in capsys.readouterr().err


RESUMED_OTHERWISE = {
    "hyper-parameter": (["--learning_rate=0.5"], "learning_rate is 0.5, the checkpoint's 0.001"),
    "layers": (["--actor_fc_layers=7"], "actor_fc_layers is [7], the checkpoint's [4]"),
    "environment": (["--env_name=Pendulum-v1"], "env_name is 'Pendulum-v1', the checkpoint's 'CartPole-v1'"),
    "seed": (["--seed=9"], "seed is 9, the checkpoint's 0"),
}


def test_what_does_not_fit_is_refused(quick, tmp_path: Path, capsys) -> None:
    root_dir = tmp_path / "run"
    assert run(root_dir, *FLAGS) == 0
    before = (root_dir / "result.json").read_bytes()
    for flags, words in RESUMED_OTHERWISE.values():
        assert run(root_dir, "--resume", *flags) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert (root_dir / "result.json").read_bytes() == before
    # The same command line again is no other one.
    assert run(root_dir, "--resume", *FLAGS[:-1], "--total_environment_steps=300") == 0
    assert steps_of(root_dir)[-1] > 250
