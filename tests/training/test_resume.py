"""A run that is stopped and resumed computes what one without a stop does, bit by bit."""

import contextlib
import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest

import ppo_agent
from ppo_agent import train
from ppo_agent.checkpoint.store import CheckpointStore, Loaded, load
from ppo_agent.common import program_space
from ppo_agent.training.metrics_table import COLUMNS

SMALL = (
    "--num_environments=2", "--collect_steps_per_iteration=40", "--num_epochs=2", "--minibatch_size=32",
    "--actor_fc_layers=5", "--value_fc_layers=4", "--total_environment_steps=480", "--seed=3",
    "--num_eval_episodes=2", "--eval_interval=2", "--checkpoint_interval=3", "--checkpoints_kept=9",
)  # fmt: skip
RECURRENT = ("--recurrent", "--memory_units=4", "--sequence_length=8")
PENDULUM = ("--env_name=TFPendulum", "--learning_rate_schedule=linear")
RUNS = {
    "clip": ("--normalize_observations", "--normalize_rewards", "--normalize_rewards_by=return"),
    "kl_penalty": ("--agent=kl_penalty", "--learning_rate_schedule=linear"),
    "schedules": ("--importance_ratio_clipping_schedule=linear", "--entropy_regularization=0.01",
                  "--entropy_regularization_schedule=linear", "--target_kl=0.01", "--value_clipping=0.2"),
    "adapted": ("--recompute_advantages", "--normalize_value_targets", "--dual_clipping=3",
                "--learning_rate_schedule=constant", "--learning_rate_kl_target=0.001"),
    "warm-up": ("--learning_rate_schedule=warmup_cosine", "--value_clipping=0.3", "--value_clipping_schedule=linear"),
    "episodes": ("--collect_episodes_per_iteration=4", "--minibatch_size=16"),
    "lstm": RECURRENT,
    "gru": (*RECURRENT, "--memory=gru", "--agent=kl_penalty"),
    "shared torso": ("--shared_torso",),
    "shared lstm": (*RECURRENT, "--shared_torso", *PENDULUM),
    "continuous": (*PENDULUM, "--normalize_observations", "--normalize_rewards"),
    "state-dependent": (*PENDULUM, "--state_dependent_std", "--squash_actions"),
    "acrobot": ("--env_name=TFAcrobot", "--nonormalize_observations"),
}  # fmt: skip
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in list(RUNS)[1:]]
TIMES = {"wall_time_s", "steps_per_second"}
STATE_OF_TIMES = {"wall_time_s", "collect_time_s", "train_time_s", "timed_steps", "timed_s", "start_up_time_s"}


def run(root_dir: Path, *arguments: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        assert train.main(["ppo-train", f"--root_dir={root_dir}", *arguments]) == 0


def flags_of(name: str) -> tuple[str, ...]:
    flags = [flag for flag in SMALL if not (name == "episodes" and flag.startswith("--collect_steps"))]
    return ("--env_name=TFCartPole", *flags, *RUNS[name])


def rows_of(root_dir: Path) -> list[dict[str, str]]:
    with (root_dir / "metrics.csv").open() as file:
        return [{name: row[name] for name in COLUMNS if name not in TIMES} for row in csv.DictReader(file)]


def newest(root_dir: Path) -> Loaded:
    return CheckpointStore(root_dir / "checkpoints").newest_sound()


def assert_equal_runs(first: Path, second: Path) -> None:
    assert rows_of(first) == rows_of(second)
    one, other = newest(first), newest(second)
    assert one.manifest.step == other.manifest.step
    assert one.arrays.keys() == other.arrays.keys()
    different = [name for name in one.arrays if one.arrays[name].tobytes() != other.arrays[name].tobytes()]
    assert not different
    for state in (one.state, other.state):
        state["loop"] = {name: value for name, value in state["loop"].items() if name not in STATE_OF_TIMES}
    assert one.state == other.state


def go_back(root_dir: Path, target: Path) -> None:
    """Copies a run as it would be if it had been killed some time after its second checkpoint of four or more."""
    shutil.copytree(root_dir, target)
    paths = sorted((target / "checkpoints").iterdir(), key=lambda path: load(path).manifest.number)
    for path in paths[-1:0:-1]:
        if load(path).state["loop"]["iterations"] != 3:
            shutil.rmtree(path)
    assert newest(target).state["loop"]["iterations"] == 3
    assert newest(root_dir).state["loop"]["iterations"] > 4


def assert_resumed_run_is_equal(name: str, tmp_path: Path) -> None:
    run(tmp_path / "whole", *flags_of(name))
    go_back(tmp_path / "whole", tmp_path / "resumed")
    run(tmp_path / "resumed", "--resume", *(flag for flag in SMALL if "eval" in flag or "checkpoint" in flag))
    assert_equal_runs(tmp_path / "whole", tmp_path / "resumed")


@pytest.mark.parametrize("name", ["clip", *SLOW])
def test_a_resumed_run_is_equal_bit_by_bit(name: str, tmp_path: Path) -> None:
    assert_resumed_run_is_equal(name, tmp_path)


def test_it_is_equal_too_where_the_process_has_no_room_for_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_space, "is_left", lambda: False)
    assert_resumed_run_is_equal("acrobot", tmp_path)


def test_a_run_that_was_killed_before_its_second_checkpoint_has_no_row_twice(tmp_path: Path) -> None:
    settings = {"collect_steps_per_iteration": 16, "num_environments": 2, "minibatch_size": 16, "num_epochs": 1,
                "actor_fc_layers": (4,), "value_fc_layers": (4,), "num_eval_episodes": 1, "checkpoints_kept": 9,
                "checkpoint_interval": 1, "jit_compile": False}  # fmt: skip
    with ppo_agent.Trainer("CartPole-v1", seed=3, root_dir=tmp_path, preset="none", **settings) as trainer:
        trainer.train(96)
    for path in (tmp_path / "checkpoints").iterdir():
        if load(path).manifest.step:
            shutil.rmtree(path)
    evaluations = (tmp_path / "evaluations.csv").read_text().splitlines()
    assert len(evaluations) == 2
    with ppo_agent.Trainer.load(tmp_path, root_dir=tmp_path) as trainer:
        assert trainer.environment_steps == 0
        trainer.train(64)
        iterations = trainer.loop.tally.iterations
    steps = [int(row["environment_steps"]) for row in rows_of(tmp_path)]
    assert len(steps) == iterations > 1
    assert steps == sorted(set(steps))
    assert len((tmp_path / "evaluations.csv").read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("env_name", ["CartPole-v1", "Pendulum-v1", "TFPendulum"])
def test_equal_seeds_give_equal_runs(env_name: str, tmp_path: Path) -> None:
    for name in ("first", "second"):
        run(tmp_path / name, *SMALL, f"--env_name={env_name}", "--vectorization=sync")
    assert_equal_runs(tmp_path / "first", tmp_path / "second")
    run(tmp_path / "third", *SMALL, f"--env_name={env_name}", "--vectorization=sync", "--seed=4")
    name = "agent/_actor_net/encoder/dense_layers/0/kernel"
    weights = [newest(tmp_path / folder).arrays[name] for folder in ("first", "third")]
    assert not np.array_equal(*weights)
