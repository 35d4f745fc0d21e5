"""ppo-sweep, with a program in place of ppo-train's runs, and once with those."""

import csv
import json
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from ppo_agent import sweep_command
from ppo_agent.training import sweep

# Writes what a run writes: its return is ten times its seed, unless it is told to fail.
RUN = """
import json, pathlib, sys
flags = dict(part[2:].split("=", 1) for part in sys.argv[1:] if "=" in part)
seed, folder = int(flags["seed"]), pathlib.Path(flags["root_dir"])
folder.mkdir(exist_ok=True)
with (folder / "calls").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
(folder / "settings.json").write_text("{}")
if pathlib.Path(flags["root_dir"]).parent.joinpath(f"fail-{seed}").exists():
    sys.exit("ppo-train: the disk is full.")
result = {"eval_return_mean": 10.0 * seed, "eval_return_std": 0.5, "final_train_return_mean": None,
          "environment_steps": 100 + seed, "wall_time_s": 1.5, "steps_per_second": 7.0, "finished": True}
(folder / "result.json").write_text(json.dumps(result))
"""


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets a small program stand in for `python -m ppo_agent.train`; returns the folder of the sweep."""
    program = tmp_path / "run.py"
    program.write_text(RUN)
    command = sweep.Sweep._command
    monkeypatch.setattr(
        sweep.Sweep, "_command", lambda self, seed: [sys.executable, str(program), *command(self, seed)[3:]]
    )
    return tmp_path / "sweep"


def run(root_dir: Path, *arguments: str, flags: tuple[str, ...] = ("--env_name=Toy-v0",)) -> int:
    return sweep_command.main(["ppo-sweep", f"--root_dir={root_dir}", *arguments, "--", *flags])


def test_ends_with_a_table(pretended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(pretended, "--seeds=4", "--first_seed=3", "--jobs=2") == 0
    with (pretended / "sweep.csv").open() as file:
        rows = {row["seed"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["3", "4", "5", "6", "mean", "low", "high"]
    returns = [30.0, 40.0, 50.0, 60.0]
    assert [float(rows[seed]["eval_return_mean"]) for seed in "3456"] == returns
    expected = scipy.stats.t.interval(0.95, 3, np.mean(returns), scipy.stats.sem(returns))
    assert float(rows["mean"]["eval_return_mean"]) == 45.0
    found = [float(rows[name]["eval_return_mean"]) for name in ("low", "high")]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert rows["mean"]["final_train_return_mean"] == ""
    out = capsys.readouterr().out
    assert "seed 5: return 50 +- 0.5" in out
    assert "steps per second" in out


def test_is_continued_where_it_failed(pretended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretended.mkdir()
    (pretended / "fail-1").touch()
    assert run(pretended, "--seeds=3") == 1
    err = capsys.readouterr().err
    assert "warning: seed 1: ppo-train: the disk is full. (seed-1.log has the rest)" in err
    assert "1 of 3 runs failed" in err
    (pretended / "fail-1").unlink()
    assert run(pretended, "--seeds=4") == 0
    calls = {seed: (pretended / f"seed-{seed}" / "calls").read_text().splitlines() for seed in range(4)}
    assert [len(calls[seed]) for seed in range(4)] == [1, 2, 1, 1]
    assert "--resume" not in calls[1][0]
    assert "--resume" in calls[1][1]


def test_other_flags_are_another_sweep(pretended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(pretended, "--seeds=1") == 0
    assert run(pretended, "--seeds=1", flags=("--env_name=Other-v0",)) == 2
    assert "holds a sweep with other flags, ['--env_name=Toy-v0']" in capsys.readouterr().err


WRONG = {
    "seed": (["--seed=3"], "seed is given behind --"),
    "folder": (["--root_dir=x"], "root_dir is given behind --"),
    "no flag": (["--colour=3"], "--colour behind -- is no flag of ppo-train."),
    "value": (["--learning_rate=fast"], "learning_rate"),
    "argument": (["CartPole-v1"], "found the argument 'CartPole-v1'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_told_before_anything_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, message = WRONG[name]
    assert run(tmp_path / "new", flags=tuple(flags)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "new").exists()


def test_a_flag_that_ppo_train_refuses_ends_the_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "new", "--seeds=2", flags=("--env_name=NoSuch-v0",)) == 2
    assert "env_name" in capsys.readouterr().err


def test_a_signal_ends_the_runs_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "import signal, sys, time; signal.signal(15, lambda *_: (open(sys.argv[1], 'w').close(), sys.exit())); "
    program += "open(sys.argv[2], 'w').close(); time.sleep(60)"
    ended, begun = tmp_path / "ended", tmp_path / "begun"
    monkeypatch.setattr(sweep.Sweep, "_command", lambda *_: [sys.executable, "-c", program, str(ended), str(begun)])

    def interrupt() -> None:
        while not begun.exists():
            if timer.wait(0.02):
                return
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    timer = threading.Event()
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        assert run(tmp_path / "sweep", "--seeds=2") == 130
    finally:
        timer.set()
        thread.join()
    assert ended.exists()
    assert "Interrupted with 0 of 2 runs done" in capsys.readouterr().out


@pytest.mark.slow
def test_trains(tmp_path: Path) -> None:
    small = ("--env_name=CartPole-v1", "--total_environment_steps=256", "--num_eval_episodes=1", "--num_epochs=1")
    assert run(tmp_path / "sweep", "--seeds=2", flags=small) == 0
    result = json.loads((tmp_path / "sweep" / "seed-1" / "result.json").read_text())
    assert result["seed"] == 1
