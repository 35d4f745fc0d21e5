"""ppo-train, end to end with tiny settings."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from gymnasium.envs import registration
from toy_environments import Spaces

from ppo_agent import train
from ppo_agent.training import collection, experiment
from ppo_agent.training.metrics_table import COLUMNS

TINY = [
    "--num_environments=2",
    "--collect_episodes_per_iteration=3",
    "--total_environment_steps=200",
    "--num_epochs=2",
    "--minibatch_size=32",
    "--actor_fc_layers=5",
    "--value_fc_layers=",
    "--num_eval_episodes=3",
    "--checkpoint_interval=1",
]
TIMES = {"wall_time_s", "steps_per_second"}


def run(root_dir: Path, *arguments: str) -> int:
    return train.main(["ppo-train", f"--root_dir={root_dir}", *arguments])


def result_of(root_dir: Path) -> dict:
    return json.loads((root_dir / "result.json").read_text())


def rows_of(root_dir: Path) -> list[dict[str, str]]:
    with (root_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    root_dir = tmp_path_factory.mktemp("runs") / "finished"
    assert run(root_dir, *TINY, "--seed=3", "--eval_interval=1") == 0
    return root_dir


def test_result_has_everything(finished: Path) -> None:
    result, rows = result_of(finished), rows_of(finished)
    assert result["env_name"] == "CartPole-v1"
    assert result["seed"] == 3
    assert 100 < result["environment_steps"] <= 200
    assert result["environment_steps"] == int(rows[-1]["environment_steps"])
    assert result["iterations"] == len(rows) >= 2
    assert result["train_steps"] >= 2 * result["iterations"]
    assert 0 < result["start_up_time_s"] < result["wall_time_s"]
    assert 0 < result["collect_time_s"] + result["train_time_s"] < result["wall_time_s"]
    assert result["steps_per_second"] > 0
    assert 8 <= result["final_train_return_mean"] <= 200
    assert result["num_eval_episodes"] == 3
    assert result["eval_return_mean"] >= 8
    assert result["eval_return_std"] >= 0


def test_metrics_have_a_row_for_each_iteration(finished: Path) -> None:
    rows = rows_of(finished)
    assert tuple(rows[0]) == COLUMNS
    steps = [int(row["environment_steps"]) for row in rows]
    assert steps == sorted(set(steps))
    values = np.array([[float(value) for value in row.values()] for row in rows])
    # No episode was truncated, and actions are discrete.
    unknown = ["explained_variance", "truncated_fraction", "action_std"]
    assert np.isfinite(np.delete(values, [COLUMNS.index(name) for name in unknown], axis=1)).all()
    assert values[0, COLUMNS.index("learning_rate")] == pytest.approx(1e-3)  # CartPole's preset, and its schedule.
    assert values[1, COLUMNS.index("learning_rate")] == pytest.approx(1e-3 * (1 - steps[0] / 200), rel=1e-4)


def test_schedules_and_limits_reach_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[float] = []
    update = experiment.ScheduledValue.update

    def record(value: experiment.ScheduledValue, done: float) -> None:
        update(value, done)
        if value._schedule(0.0) == 0.4:  # The preset has one for the learning rate.
            values.append(float(value()))

    monkeypatch.setattr(experiment.ScheduledValue, "update", record)
    flags = ["--importance_ratio_clipping_schedule=linear", "--importance_ratio_clipping=0.4", "--target_kl=1e-9"]
    assert run(tmp_path / "run", *TINY, *flags, "--value_clipping=0.2") == 0
    rows, result = rows_of(tmp_path / "run"), result_of(tmp_path / "run")
    starts = [0, *(int(row["environment_steps"]) for row in rows[:-1])]
    assert values == pytest.approx([0.4 * (1 - start / 200) for start in starts])
    # The second step of an update is further away than that, and ends it.
    assert result["train_steps"] <= 2 * result["iterations"]


def test_all_artifacts_are_written(finished: Path) -> None:
    for name in ("policy/saved_model.pb", "policy_saver/saved_model.pb", "result.json"):
        assert (finished / name).stat().st_size > 0
    assert (finished / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


TAGS = [("train", "Losses/policy_gradient_loss"), ("train", "Metrics/AverageReturn"), ("eval", "Metrics/AverageReturn")]


@pytest.mark.parametrize(("folder", "tag"), TAGS)
def test_events_are_written(finished: Path, folder: str, tag: str) -> None:
    (path,) = (finished / folder).iterdir()
    events = tf.compat.v1.train.summary_iterator(str(path))
    steps = [event.step for event in events for value in event.summary.value if value.tag == tag]
    assert len(steps) >= result_of(finished)["iterations"]


def test_the_exported_policy_acts(finished: Path, rng: np.random.Generator) -> None:
    policy = tf.saved_model.load(str(finished / "policy"))
    actions = policy.signatures["serving_default"](observation=tf.constant(rng.normal(size=[7, 4]), tf.float32))[
        "action"
    ]
    assert actions.shape == [7]
    assert set(actions.numpy().tolist()) <= {0, 1}


def test_equal_seeds_give_equal_runs(finished: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "again", *TINY, "--seed=3") == 0
    assert without_times(rows_of(tmp_path / "again")) == without_times(rows_of(finished))
    # Evaluating now and then does not change what is learnt.
    assert result_of(tmp_path / "again")["eval_return_mean"] == result_of(finished)["eval_return_mean"]


def test_interrupted_run_is_saved_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collect = collection.Collector.collect
    calls = []

    def interrupt_the_second(self: collection.Collector, budget: int) -> object:
        calls.append(budget)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return collect(self, budget)

    root_dir = tmp_path / "run"
    monkeypatch.setattr(collection.Collector, "collect", interrupt_the_second)
    assert run(root_dir, *TINY, "--seed=5") == 130
    monkeypatch.undo()
    assert str(root_dir) in capsys.readouterr().out.splitlines()[-1]
    before = rows_of(root_dir)
    assert len(before) == 1
    assert result_of(root_dir)["eval_return_mean"] is None
    assert (root_dir / "policy" / "saved_model.pb").exists()

    with (root_dir / "metrics.csv").open("a") as file:  # A row that was written after the last checkpoint.
        file.write(",".join(["9999"] * len(COLUMNS)) + "\n")
    assert run(root_dir, "--resume", "--num_eval_episodes=2", "--total_environment_steps=300") == 0
    after, result = rows_of(root_dir), result_of(root_dir)
    assert after[:1] == before
    assert result["iterations"] == len(after) > 2
    assert result["seed"] == 5
    assert 200 < result["environment_steps"] <= 300
    # Gradient steps, wall time and the settings of the first process go on.
    assert result["train_steps"] == train_steps_of(after)
    assert float(after[1]["wall_time_s"]) > float(before[0]["wall_time_s"])
    first_steps = int(before[0]["environment_steps"])
    assert float(after[1]["learning_rate"]) == pytest.approx(1e-3 * (1 - first_steps / 300), rel=1e-4)


def train_steps_of(rows: list[dict[str, str]]) -> int:
    """Gradient steps of a run with TINY settings: two epochs of as few minibatches of 32 (or 33) as possible."""
    steps = np.diff([0, *(int(row["environment_steps"]) for row in rows)])
    return int(2 * np.ceil((steps - 1) / 32).sum())


def test_other_settings_train_too(tmp_path: Path) -> None:
    arguments = ["--env_name=Pendulum-v1", "--preset=none", "--agent=kl_penalty", "--collect_steps_per_iteration=24"]
    tiny = [argument for argument in TINY if "episodes_per" not in argument and "total" not in argument]
    assert run(tmp_path / "run", *arguments, *tiny, "--total_environment_steps=100") == 0
    rows = rows_of(tmp_path / "run")
    assert [int(row["environment_steps"]) for row in rows] == [48, 96]
    assert rows[0]["episode_return_mean"] == "nan"  # Pendulum's episodes have 200 steps.
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([3e-4, 3e-4])
    assert result_of(tmp_path / "run")["final_train_return_mean"] is None


WRONG_FLAGS = {
    "unknown preset": (["--preset=CartPoule"], ["preset", "'CartPoule'", "did you mean CartPole"]),
    "negative count": (["--num_epochs=-1"], ["num_epochs", "-1"]),
    "both collections": (
        ["--collect_episodes_per_iteration=1", "--collect_steps_per_iteration=1"],
        ["collect_episodes_per_iteration", "collect_steps_per_iteration"],
    ),
    "no flag": (["--no_such_flag=1"], ["no_such_flag"]),
    "no flag at all": (["CartPole-v1"], ["'CartPole-v1'", "flags only"]),
    "layers": (["--actor_fc_layers=64,-1"], ["actor_fc_layers", "positive"]),
    "not recurrent": (["--memory=gru"], ["memory", "recurrent"]),
    "unknown environment": (["--env_name=NoSuch-v0"], ["env_name", "NoSuch"]),
    "minibatch": (["--minibatch_size=4096", "--total_environment_steps=100"], ["minibatch_size", "4096", "96"]),
    "steps": (["--total_environment_steps=3"], ["total_environment_steps", "3", "num_environments"]),
    "discount": (["--discount_factor=1.5"], ["discount_factor", "1.5"]),
    "not writable": (["--root_dir=/dev/null/run"], ["root_dir", "/dev/null/run"]),
    "nothing to resume": (["--resume"], ["root_dir", "resume"]),
}


@pytest.mark.parametrize("name", WRONG_FLAGS)
def test_wrong_flags_are_told_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, words = WRONG_FLAGS[name]
    assert run(tmp_path / "run", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words)
    assert not any(tmp_path.iterdir())


def test_spaces_that_cannot_be_learnt_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gymnasium import spaces

    text = spaces.Text(3)
    registration.register("Text-v0", entry_point=lambda **_: Spaces(text, spaces.Discrete(2)))
    assert run(tmp_path / "run", "--env_name=Text-v0") == 2
    assert "Text" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_second_run_in_the_same_folder_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "result.json").read_bytes()
    assert run(finished) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert run(finished, "--resume", "--env_name=Pendulum-v1") == 2
    assert "Pendulum-v1" in capsys.readouterr().err
    assert (finished / "result.json").read_bytes() == before


def test_an_error_at_run_time_has_its_own_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError("No space left\non device")

    monkeypatch.setattr(train, "_begin", fail)
    assert run(tmp_path / "run") == 1
    assert capsys.readouterr().err == "ppo-train: No space left on device\n"


def test_help_lists_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["ppo-train", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{flag}" in text for flag in ("env_name", "minibatch_size", "[no]normalize_rewards"))


def test_module_can_be_run(in_tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ppo_agent.train", "--preset=nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("ppo-train: preset is 'nothing'")
    assert "Traceback" not in done.stderr
    assert not any(in_tmp_path.iterdir())
