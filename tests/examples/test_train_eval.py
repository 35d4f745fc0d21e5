"""The training example, as a program of its own."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "examples" / "train_eval.py"


def test_trains_evaluates_and_exports(tmp_path: Path) -> None:
    arguments = ["--num_iterations=2", "--collect_episodes_per_iteration=6", "--num_environments=3", "--num_epochs=1"]
    command = [sys.executable, str(PROGRAM), f"--root_dir={tmp_path}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report, place = done.stdout.splitlines()
    assert report.startswith("iteration 2: ")
    assert place == f"The policy is in {tmp_path / 'policy'}."
    assert (tmp_path / "policy" / "saved_model.pb").exists()
    assert any((tmp_path / "train").iterdir())
