"""Runs whose environments or numbers fail them: they go on, or end in order."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from misbehaving_environments import INVALID, RAISED, Misbehaving

from ppo_agent import train

TINY = [
    "--preset=none", "--num_environments=2", "--collect_steps_per_iteration=40", "--total_environment_steps=160",
    "--num_epochs=1", "--minibatch_size=16", "--actor_fc_layers=4", "--value_fc_layers=4", "--num_eval_episodes=2",
    "--normalize_rewards=false",
]  # fmt: skip


class Huge(Misbehaving):
    """Rewards that are finite, and whose sums are not."""

    def _reward(self, due):
        return 3e38


@pytest.fixture
def env_id():
    """Registers misbehaving environments; returns their id by fault."""

    def register(fault: str) -> str:
        cls = Huge if fault == "huge" else Misbehaving
        gym.register("Misbehaves-v0", lambda: cls("" if fault == "huge" else fault), disable_env_checker=True)
        return "--env_name=Misbehaves-v0"

    yield register
    gym.registry.pop("Misbehaves-v0", None)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_run_trains_through_faults(env_id, tmp_path):
    mixed = ",".join([*INVALID, "raise_in_step", "strange_error"])
    arguments = [env_id(mixed), f"--root_dir={tmp_path}", "--invalid_steps=drop", "--max_environment_restarts=1000"]
    assert train.main(["ppo-train", *TINY, *arguments]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        header, *rows = [line.strip().split(",") for line in file]
    assert {row[header.index("skipped_steps")] for row in rows} == {"0"}
    assert {row[header.index("episode_return_mean")] for row in rows} == {"5"}


@pytest.mark.parametrize("fault", ["raise_in_step", "nan_reward"])
def test_a_run_ends_in_order_when_its_environments_fail(env_id, tmp_path, capsys, fault):
    arguments = [env_id(fault), f"--root_dir={tmp_path}", "--max_environment_restarts=0"]
    assert train.main(["ppo-train", *TINY, *arguments]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    text = "gave an invalid reward, nan" if fault in INVALID else "raised RuntimeError: the simulator is gone"
    assert fault in (*INVALID, *RAISED)
    assert error.startswith(f"ppo-train: environment 0 {text}")
    assert error.endswith("a checkpoint was saved, --resume goes on with what there is.")
    assert any((tmp_path / "checkpoints").iterdir())


def test_a_run_ends_in_order_when_its_numbers_fail(env_id, tmp_path, capsys):
    arguments = [env_id("huge"), f"--root_dir={tmp_path}", "--max_skipped_steps=3"]
    assert train.main(["ppo-train", *TINY, *arguments]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("ppo-train: 3 gradient steps in a row had a loss or gradient that is not finite")
    path = tmp_path / "nonfinite_minibatch.npz"
    assert str(path) in error
    with np.load(path, allow_pickle=False) as saved:
        assert not np.isfinite(saved["returns"]).all()
        assert "metrics/loss" in saved.files
    assert any((tmp_path / "checkpoints").iterdir())
