"""Runs side by side: ppo-plot, and what it computes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from ppo_agent import plot_command
from ppo_agent.training import comparison
from ppo_agent.training.metrics_table import COLUMNS


def write_run(path: Path, steps: np.ndarray, returns: np.ndarray, seed: int = 0, env: str = "A-v0", **settings) -> Path:
    path.mkdir(parents=True)
    saved = {"env_name": env, "seed": seed, "settings": {"learning_rate": 1e-3, "actor_fc_layers": [8, 8], **settings}}
    (path / "settings.json").write_text(json.dumps(saved))
    with (path / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="nan")
        writer.writeheader()
        for step, value in zip(steps, returns, strict=True):
            writer.writerow({"environment_steps": int(step), "episode_return_mean": value, "approx_kl": value / 10})
    return path


def write_runs(folder: Path, rng: np.random.Generator, rates=(1e-3, 1e-2), seeds: int = 3) -> dict[float, list]:
    """Runs whose iterations have different lengths; returns (steps, returns) by learning rate."""
    made = {}
    for rate in rates:
        for seed in range(seeds):
            steps = np.cumsum(rng.integers(50, 150, 30))
            returns = rng.normal(100 * rate * steps, 5.0)
            write_run(folder / f"{rate}" / str(seed), steps, returns, seed, learning_rate=rate)
            made.setdefault(rate, []).append((steps, returns))
    return made


def expected_curve(runs: list, window: int, at: np.ndarray) -> tuple:
    rows = []
    for steps, returns in runs:
        smooth = [np.mean(returns[max(0, i - window + 1) : i + 1]) for i in range(len(returns))]
        rows.append(np.interp(at, steps, smooth))
    interval = scipy.stats.t.interval(0.95, len(rows) - 1, np.mean(rows, 0), scipy.stats.sem(rows, 0))
    return np.mean(rows, 0), *interval


def test_curves_are_means_with_intervals(tmp_path: Path, rng: np.random.Generator) -> None:
    made = write_runs(tmp_path / "runs", rng)
    paths = comparison.find_runs([tmp_path / "runs" / "0.01", tmp_path / "runs"])
    assert len(paths) == 6
    runs = [comparison.read_run(path, "episode_return_mean", 4) for path in paths]
    curves = {curve.label: curve for curve in comparison.compare(runs, None)}
    assert set(curves) == {"learning_rate=0.001", "learning_rate=0.01"}
    for rate, members in made.items():
        curve = curves[f"learning_rate={rate}"]
        assert curve.num_runs == 3
        assert curve.steps[0] == max(steps[0] for steps, _ in members)
        assert curve.steps[-1] == min(steps[-1] for steps, _ in members)
        mean, low, high = expected_curve(members, 4, curve.steps)
        np.testing.assert_allclose(curve.mean, mean)
        np.testing.assert_allclose(curve.low, low, rtol=1e-3)
        np.testing.assert_allclose(curve.high, high, rtol=1e-3)


@pytest.mark.parametrize("degrees", [1, 2, 4, 17, 30, 31, 50, 1000])
def test_t_quantiles(degrees: int) -> None:
    assert comparison.t_quantile(degrees) == pytest.approx(scipy.stats.t.ppf(0.975, degrees), abs=1e-3)


def test_one_run_has_no_interval() -> None:
    mean, low, high = comparison.mean_interval(np.array([[1.0, 2.0]]))
    np.testing.assert_array_equal(mean, [1, 2])
    assert np.isnan([low, high]).all()


def test_program_writes_picture_and_table(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_runs(tmp_path / "runs", rng)
    arguments = [str(tmp_path / "runs"), "--group_by=actor_fc_layers", "--metric=approx_kl", "--smooth=1"]
    assert plot_command.main(["ppo-plot", *arguments, f"--output={tmp_path / 'c.png'}"]) == 0
    assert "6 runs in 1 curve:" in capsys.readouterr().out
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["group"] for row in rows} == {"actor_fc_layers=8,8"}
    assert {row["runs"] for row in rows} == {"6"}
    first = rows[0]
    mean, low, _ = expected_curve([*made[1e-3], *made[1e-2]], 1, np.array([float(first["environment_steps"])]))
    assert float(first["mean"]) == pytest.approx(mean[0] / 10, rel=1e-4)
    assert float(first["low"]) == pytest.approx(low[0] / 10, rel=1e-2)


def test_environments_are_never_mixed(tmp_path: Path) -> None:
    steps = np.array([10, 20])
    for env in ("A-v0", "B-v0"):
        write_run(tmp_path / env, steps, steps, env=env)
    runs = [comparison.read_run(path, "episode_return_mean", 1) for path in comparison.find_runs([tmp_path])]
    assert [c.label for c in comparison.compare(runs, "learning_rate")] == [
        "A-v0, learning_rate=0.001",
        "B-v0, learning_rate=0.001",
    ]
    (curve,) = comparison.compare(runs[:1], None)
    assert comparison.to_rows([curve])[1] == ["A-v0", "1", "10", "10", "", ""]


def test_settings_of_later_versions_make_no_groups(tmp_path: Path) -> None:
    steps = np.array([10, 20])
    write_run(tmp_path / "0", steps, steps)
    write_run(tmp_path / "1", steps, steps, seed=1, invented_later=3)
    runs = [comparison.read_run(path, "episode_return_mean", 1) for path in comparison.find_runs([tmp_path])]
    assert [curve.num_runs for curve in comparison.compare(runs, None)] == [2]


WRONG = {
    "nothing": ([], "RUN is missing, expected the folders of runs."),
    "no run": (["{}/empty"], "RUN is '{}/empty', expected the folder of a run, or one with runs inside."),
    "no returns": (["{}/no-returns"], "whose metrics.csv has no episode_return_mean, expected at least one."),
    "no settings": (["{}/no-settings"], "expected a settings.json in it that can be read"),
    "setting": (["{}/good", "--group_by=colour"], "group_by is 'colour', expected a setting of the runs"),
    "metric": (["{}/good", "--metric=colour"], "metric is 'colour', expected one of wall_time_s"),
    "apart": (["{}/good", "{}/late"], "the runs of A-v0 have no environment steps in common"),
    "suffix": (["{}/good", "--output={}/x.pdf"], "output is '{}/x.pdf', expected the name of a .png file."),
    "folder": (["{}/good", "--output={}/none/x.png"], "expected a file in a folder that exists."),
    "flag": (["{}/good", "--window=3"], "--window is no flag"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_told_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = np.array([10.0, 20.0])
    write_run(tmp_path / "good", steps, steps)
    write_run(tmp_path / "late", steps + 100, steps, seed=1)
    write_run(tmp_path / "no-returns", steps, steps * np.nan)
    (write_run(tmp_path / "no-settings", steps, steps) / "settings.json").write_text("{")
    (tmp_path / "empty").mkdir()
    arguments, message = WRONG[name]
    given = [argument.format(tmp_path) for argument in arguments]
    before = set(tmp_path.rglob("*"))
    assert plot_command.main(["ppo-plot", f"--output={tmp_path}/x.png", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.format(tmp_path) in line
    assert set(tmp_path.rglob("*")) == before
