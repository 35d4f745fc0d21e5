"""The soak in its short form, and its judgement."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from reliability import soak


def sample(**more):
    return {"memory_mb": 100.0, "files": 8, "threads": 20, "children": 0, **more}


def test_what_grows_is_told():
    early = [sample() for _ in range(40)]
    assert soak.problems(soak.growth(early + [sample() for _ in range(10)])) == []
    for name, value in (("memory_mb", 200.0), ("files", 12), ("threads", 30), ("children", 1)):
        (text,) = soak.problems(soak.growth(early + [sample(**{name: value}) for _ in range(10)]))[:1]
        assert text.startswith(name)
    # A child that was always there is one too many.
    assert soak.problems(soak.growth([sample(children=1) for _ in range(50)])) == ["1 child processes are left"]


def test_counts_of_this_process():
    before = soak.held()
    with Path(os.devnull).open(encoding="utf-8"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        during = soak.held()
        child.communicate()
    assert during["files"] >= before["files"] + 2
    assert during["children"] == before["children"] + 1
    assert 50 < during["memory_mb"] < 50_000


@pytest.mark.slow
def test_five_minutes():
    tests = Path(__file__).parent.parent
    command = [sys.executable, "-m", "reliability.soak", "--minutes=5", "--seed=7"]
    environment = {**os.environ, "PYTHONPATH": str(tests)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert "nothing grew." in run.stdout
