"""The example of a search, as a program of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from ppo_agent.training import preset_files

optuna = pytest.importorskip("optuna")
PROGRAM = Path(__file__).parents[2] / "examples" / "optuna_search.py"


def search(folder: Path, *arguments: str) -> str:
    small = ["--total_environment_steps=300", "--num_evaluations=1", "--num_eval_episodes=2"]
    command = [sys.executable, str(PROGRAM), *small, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def study(folder: Path) -> "optuna.Study":
    return optuna.load_study(study_name="CartPole-v1", storage=f"sqlite:///{folder / 'optuna.db'}")


def test_writes_a_preset(tmp_path: Path) -> None:
    out = search(tmp_path, "--trials=1")
    (trial,) = study(tmp_path).trials
    assert trial.state == optuna.trial.TrialState.COMPLETE
    preset = preset_files.read(tmp_path / "best.json")
    assert preset.settings == trial.user_attrs["settings"]
    assert preset.settings["learning_rate"] == trial.params["learning_rate"]
    assert preset.source in out
    assert len(trial.intermediate_values) >= 1  # Evaluations, by which trials are pruned.


@pytest.mark.slow
def test_is_continued_by_several_processes(tmp_path: Path) -> None:
    search(tmp_path, "--trials=1")
    first = study(tmp_path).trials[0]
    search(tmp_path, "--trials=4", "--jobs=2")
    trials = study(tmp_path).trials
    assert len(trials) >= 4
    assert trials[0].params == first.params
    assert len({str(trial.params) for trial in trials}) == len(trials)  # None is tried again.
    assert all(trial.state.is_finished() for trial in trials)
