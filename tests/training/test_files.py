"""Run directory, metrics.csv, learning curve."""

import json
from pathlib import Path

import numpy as np
import pytest

from ppo_agent.training import plotting, run_directory
from ppo_agent.training.command_line import FlagError
from ppo_agent.training.metrics_table import COLUMNS, MetricsTable
from ppo_agent.training.run_directory import RunDirectory, default_root_dir, write_json


def a_row(steps: int, rng: np.random.Generator) -> dict[str, float]:
    return {**dict(zip(COLUMNS, rng.normal(size=len(COLUMNS)).tolist(), strict=True)), "environment_steps": steps}


def test_table_gives_back_what_was_written(tmp_path: Path, rng: np.random.Generator) -> None:
    table = MetricsTable(tmp_path / "metrics.csv")
    rows = [a_row(steps, rng) for steps in (10, 20, 30)]
    rows[1]["episode_return_mean"] = float("nan")
    for row in rows:
        table.append(row)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert [line.split(",")[0] for line in lines[1:]] == ["10", "20", "30"]
    for name, column in table.read().items():
        np.testing.assert_allclose(column, [row[name] for row in rows], rtol=1e-5)


def test_rows_after_a_checkpoint_are_dropped(tmp_path: Path, rng: np.random.Generator) -> None:
    table = MetricsTable(tmp_path / "metrics.csv")
    for steps in (10, 20, 30):
        table.append(a_row(steps, rng))
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("40,1.0")  # A line that was being written when the process was killed.
    before = (tmp_path / "metrics.csv").read_text()
    table.drop_after(20)
    after = (tmp_path / "metrics.csv").read_text()
    assert before.startswith(after)
    assert table.read()["environment_steps"] == [10, 20]
    table.drop_after(0)
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("mark", ["settings.json", "metrics.csv", "result.json", "checkpoints"])
def test_a_folder_with_a_run_is_refused(tmp_path: Path, mark: str) -> None:
    RunDirectory(tmp_path).check(resume=False)
    (tmp_path / mark).touch()
    with pytest.raises(FlagError, match="already holds a run"):
        RunDirectory(tmp_path).check(resume=False)


def test_a_run_can_be_resumed_where_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(FlagError, match="expected the folder of a run"):
        RunDirectory(tmp_path).check(resume=True)
    (tmp_path / "settings.json").touch()
    RunDirectory(tmp_path).check(resume=True)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(FlagError, match="expected a folder that can be written"):
            RunDirectory(path).check(resume=False)


def test_a_folder_that_cannot_be_made_is_a_wrong_flag(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FlagError, match=r"root_dir is .* expected a folder that can be written"):
        RunDirectory(tmp_path / "file" / "run").create()


def test_default_folders_differ(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory.time, "strftime", lambda _: "now")
    first = default_root_dir("my_module:ns/Task-v0")
    assert first == Path("runs/my_module_ns/Task-v0/now")
    for _ in range(3):
        path = default_root_dir("my_module:ns/Task-v0")
        assert not path.exists()
        path.mkdir(parents=True)
    assert len(list((in_tmp_path / first).parent.iterdir())) == 3
    assert ".." not in default_root_dir("../../etc").parts


def test_json_is_replaced_in_one_step(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    write_json(tmp_path / "a.json", {"x": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_smoothing_is_a_mean_over_the_last_tenth(rng: np.random.Generator) -> None:
    values = rng.normal(size=50)
    expected = [values[max(0, i - 4) : i + 1].mean() for i in range(50)]
    np.testing.assert_allclose(plotting.smooth(values), expected)
    np.testing.assert_allclose(plotting.smooth(values[:3]), values[:3])


@pytest.mark.parametrize("returns", [[], [float("nan")], [1.0, float("nan"), 3.0]])
def test_curve_is_drawn_from_whatever_there_is(tmp_path: Path, returns: list[float]) -> None:
    columns = {"environment_steps": [10.0 * i for i in range(len(returns))], "episode_return_mean": returns}
    plotting.plot_learning_curve(tmp_path / "curve.png", "title", columns, [[20, 2.0, 0.5]] if returns else [])
    assert (tmp_path / "curve.png").stat().st_size < 200_000
