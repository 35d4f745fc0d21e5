"""What happens to a run's folder in the middle of the run, and what cannot be written at its end."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from reliability import corruptions
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ppo_agent import train
from ppo_agent.checkpoint import CheckpointStore
from ppo_agent.training import recorder
from ppo_agent.training.metrics_table import MetricsTable
from ppo_agent.training.recorder import RunRecorder

FLAGS = [*corruptions.FLAGS, "--total_environment_steps=250"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs do not compile, and export nothing, unless a test puts it back."""
    for name in ("export_policy", "export_policy_saver", "plot_learning_curve"):
        monkeypatch.setattr(recorder, name, lambda *_, **__: None)
    with corruptions.without_compilation():
        yield


@pytest.fixture
def in_the_middle(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has a function called after the third iteration was recorded."""

    def call(function: Any) -> None:
        record, rows = RunRecorder.record, []

        def recorded(*arguments: Any) -> None:
            record(*arguments)
            rows.append(arguments)
            if len(rows) == 3:
                function()

        monkeypatch.setattr(RunRecorder, "record", recorded)

    return call


def run(root_dir: Path, *arguments: str) -> int:
    return train.main(["ppo-train", f"--root_dir={root_dir}", *FLAGS, *arguments])


@pytest.mark.parametrize("way", ["deleted", "moved"])
def test_a_folder_that_is_lost_is_made_again(way: str, in_the_middle, tmp_path: Path, capsys) -> None:
    root_dir = tmp_path / "run"
    if way == "deleted":
        in_the_middle(lambda: shutil.rmtree(root_dir))
    else:
        in_the_middle(lambda: root_dir.rename(tmp_path / "elsewhere"))
    assert run(root_dir) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "was deleted or moved in the middle of the run: it is created again" in line
    assert json.loads((root_dir / "settings.json").read_text())["env_name"] == "CartPole-v1"
    steps = json.loads((root_dir / "result.json").read_text())["environment_steps"]
    assert CheckpointStore(root_dir / "checkpoints").newest_sound().manifest.step == steps
    assert run(root_dir, "--resume", "--total_environment_steps=320") == 0


def test_links_that_are_made_meanwhile_are_not_followed(in_the_middle, tmp_path: Path, monkeypatch, capsys) -> None:
    root_dir, precious = tmp_path / "run", tmp_path / "precious"
    precious.write_text("precious")
    monkeypatch.undo()

    def link() -> None:
        for name in ("metrics.csv", "learning_curve.png", "result.json", "settings.json"):
            (root_dir / name).unlink(missing_ok=True)
            (root_dir / name).symlink_to(precious)

    monkeypatch.setattr(recorder, "export_policy", lambda *_, **__: None)
    monkeypatch.setattr(recorder, "export_policy_saver", lambda *_, **__: None)
    record, rows = RunRecorder.record, []

    def recorded(*arguments: Any) -> None:
        record(*arguments)
        rows.append(arguments)
        if len(rows) == 3:
            link()

    monkeypatch.setattr(RunRecorder, "record", recorded)
    with corruptions.without_compilation():
        run(root_dir)
    assert precious.read_text() == "precious"
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["export_policy", "export_policy_saver"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        tf.errors.ResourceExhaustedError(None, None, "policy/variables; No space left on device"),
        PermissionError(errno.EACCES, "Permission denied"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_policy_that_cannot_be_written_is_one_line(name: str, error, tmp_path: Path, monkeypatch, capsys) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(recorder, name, fail)
    assert run(tmp_path / "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    written = {"export_policy": "policy", "export_policy_saver": "policy_saver"}[name]
    reason = getattr(error, "strerror", None) or "ResourceExhaustedError"
    assert line == f"ppo-train: {tmp_path / 'run' / written} could not be written: {reason}."
    # What is more precious was written before.
    assert CheckpointStore(tmp_path / "run" / "checkpoints").newest_sound().state["loop"]["iterations"] >= 7


@pytest.mark.parametrize(
    "error", [ValueError("bogus is not a valid backend"), ImportError("no matplotlib"), OSError(28)]
)
def test_a_curve_that_cannot_be_drawn_is_a_warning(error, tmp_path: Path, monkeypatch, capsys) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(recorder, "plot_learning_curve", fail)
    assert run(tmp_path / "run") == 0
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(
        f"warning: {tmp_path / 'run' / 'learning_curve.png'} could not be drawn: {type(error).__name__}"
    )
    assert "Return" in said.out.splitlines()[-1]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["finished"]


def test_events_have_one_axis_and_show_no_step_twice(tmp_path: Path) -> None:
    """Neither after a resume, nor after one from a checkpoint behind the last events."""
    root_dir = tmp_path / "run"
    assert run(root_dir, "--eval_interval=1", "--checkpoint_interval=1") == 0
    newest = max((root_dir / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    shutil.rmtree(newest)
    for steps in (300, 350):
        assert run(root_dir, "--resume", f"--total_environment_steps={steps}") == 0
    rows = MetricsTable(root_dir / "metrics.csv").read()["environment_steps"]
    assert rows == sorted(set(rows))
    for folder, least in (("train", 20), ("eval", 1)):
        events = EventAccumulator(str(root_dir / folder), size_guidance={"tensors": 0})
        events.Reload()
        steps_of = {tag: [event.step for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
        scalars = {tag: steps for tag, steps in steps_of.items() if "/" in tag and not tag.startswith("_")}
        assert len(scalars) >= least
        for tag, steps in scalars.items():
            assert steps == [step for step in rows if step in set(steps)], tag
            # Returns are there where an episode ended.
            assert steps == rows or tag.startswith("Metrics/"), tag
