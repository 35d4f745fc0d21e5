"""The example of a user's own networks, as a program of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "examples" / "own_network.py"


@pytest.mark.parametrize("kind", ["keras", "tf_agents"])
def test_learns(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), f"--kind={kind}", "--num_iterations=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    mean = float(re.fullmatch(rf"{kind}: the last episodes returned (.*) on average\.", line)[1])
    assert mean > 40  # A random policy has 22.
