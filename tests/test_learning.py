"""The runner of learning results and its report, with a tiny run and made-up ones."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

# Behind all others, and not for long: the sources of ppo_agent lie there too.
sys.path.append(str(Path(__file__).parent.parent))
from benchmarks import learning, learning_report

sys.path.pop()

TINY = ("--total_environment_steps=120", "--collect_episodes_per_iteration=2", "--num_environments=2", "--num_epochs=1",
        "--minibatch_size=16")  # fmt: skip


def test_a_run_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "RUNS", tmp_path)
    assert learning.train(learning.PRESETS, "CartPole-v1", 4, TINY) == "presets, CartPole-v1 4: exit status 0"
    (run,) = learning_report.read_runs(tmp_path / "presets")
    assert (run.environment, run.result["seed"], run.result["num_eval_episodes"]) == ("CartPole-v1", 4, 100)
    assert len(run.steps) == len(run.returns) >= 1
    assert learning.train(learning.PRESETS, "CartPole-v1", 4, TINY) == "presets, CartPole-v1 4: done before"


def test_a_run_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "RUNS", tmp_path)
    assert learning.train(learning.PRESETS, "NoSuch-v1", 0, ()).endswith("exit status 2")
    assert "NoSuch" in (tmp_path / "presets" / "NoSuch-v1" / "0.log").read_text()


def test_interquartile_mean_leaves_out_the_best_and_worst_quarter() -> None:
    assert learning_report.interquartile_mean([-100, 1, 2, 3, 4, 5, 6, 900]) == pytest.approx(3.5)


def test_interval_holds_the_mean_nineteen_times_of_twenty(rng: np.random.Generator) -> None:
    hits = 0
    for _ in range(40):
        low, high = learning_report.interval(rng.normal(5.0, 2.0, 20))
        assert 0.3 < high - low < 5
        hits += low <= 5.0 <= high
    assert 32 <= hits <= 40
    assert learning_report.interval([3.0]) == (3.0, 3.0)
    assert learning_report.interval([500.0] * 3) == (500.0, 500.0)


def test_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, mean in enumerate((480.0, 500.0)):
        folder = tmp_path / "runs" / "presets" / "CartPole-v1" / str(seed)
        folder.mkdir(parents=True)
        result = {"env_name": "CartPole-v1", "seed": seed, "environment_steps": 1000 + seed, "eval_return_mean": mean}
        (folder / "result.json").write_text(json.dumps(result))
        rows = "\n".join(f"{steps},{steps / 2}" for steps in range(100, 1000, 100))
        (folder / "metrics.csv").write_text(f"environment_steps,episode_return_mean\n50,nan\n{rows}\n")
    monkeypatch.setattr(learning, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(learning_report, "DOCS", tmp_path / "docs")
    learning_report.main()
    line = capsys.readouterr().out.splitlines()[2]
    assert line.startswith("| CartPole-v1 | 1,001 | 2 | 490.0 | 10.0 | 490.0 [480.0, 500.0] | 500.0")
    assert (tmp_path / "docs" / "CartPole-v1.png").stat().st_size < 200_000
    assert len((tmp_path / "docs" / "results.csv").read_text().splitlines()) == 3
    assert line in (tmp_path / "docs" / "table.md").read_text()
