"""Run directory, metrics.csv, learning curve."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ppo_agent.common.atomic_files import write_json
from ppo_agent.training import comparison, plotting, run_directory
from ppo_agent.training.metrics_table import COLUMNS, MetricsTable
from ppo_agent.training.run_directory import RunDirectory, default_root_dir


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


def test_columns_of_infos_come_behind(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "metrics.csv"
    table = MetricsTable(path)
    rows = [a_row(10, rng), {**a_row(20, rng), "info/b": 0.5}, {**a_row(30, rng), "info/a": 2.0}]
    for row in rows:
        table.append(row)
    # As a resumed run does.
    table = MetricsTable(path)
    table.drop_after(20)
    rows[2] = {**a_row(30, rng), "info/b": 1.5, "info/c": -1.0}
    table.append(rows[2])
    assert path.read_text().splitlines()[0].split(",") == [*COLUMNS, "info/b", "info/a", "info/c"]
    found = table.read()
    for name in found:
        np.testing.assert_allclose(found[name], [row.get(name, np.nan) for row in rows], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("mark", ["settings.json", "metrics.csv", "result.json", "checkpoints"])
def test_a_folder_with_a_run_is_refused(tmp_path: Path, mark: str) -> None:
    RunDirectory(tmp_path).check(resume=False)
    (tmp_path / mark).touch()
    with pytest.raises(ValueError, match="already holds a run"):
        RunDirectory(tmp_path).check(resume=False)


def test_a_run_can_be_resumed_where_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected the folder of a run"):
        RunDirectory(tmp_path).check(resume=True)
    (tmp_path / "settings.json").touch()
    RunDirectory(tmp_path).check(resume=True)


def test_a_folder_that_another_run_uses_is_refused(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run") as first:
        first.create()
        with RunDirectory(tmp_path / "run") as second, pytest.raises(ValueError, match="another run is using"):
            second.create()
    with RunDirectory(tmp_path / "run") as third:
        third.create()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        RunDirectory(tmp_path / "run").lock()
        os.fork()  # A process of an environment, which outlives the run.
        os.write(writer, b"%9d" % os.getpid())
        time.sleep(30)
        os._exit(0)
    processes = {int(os.read(reader, 9)) for _ in range(2)}
    with pytest.raises(ValueError, match="another run is using"):
        RunDirectory(tmp_path / "run").lock()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        with RunDirectory(tmp_path / "run") as directory:
            directory.lock()
    finally:
        (other,) = processes - {child}
        os.kill(other, signal.SIGKILL)
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("name", ["metrics.csv", "checkpoints", "settings.json", "train", "learning_curve.png"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").touch()
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run" / "result.json").touch()
    with pytest.raises(ValueError, match=f"{name} in it leads to .*elsewhere"):
        RunDirectory(tmp_path / "run").check(resume=True)


def test_rows_wait_for_room_on_the_disk(tmp_path: Path, rng: np.random.Generator, capsys) -> None:
    table = MetricsTable(tmp_path / "metrics.csv")
    table.append(a_row(10, rng))
    before = (tmp_path / "metrics.csv").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # Room for a part of a row.
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 7, limits[1]))
        table.append(a_row(20, rng))
        table.append(a_row(30, rng))
        assert (tmp_path / "metrics.csv").read_bytes() == before
        with pytest.raises(OSError, match="too large"):
            table.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(capsys.readouterr().err.splitlines()) == 1
    table.append(a_row(40, rng))
    assert table.read()["environment_steps"] == [10, 20, 30, 40]


def test_a_last_line_without_its_end_is_no_row(tmp_path: Path, rng: np.random.Generator) -> None:
    table = MetricsTable(tmp_path / "metrics.csv")
    for steps in (10, 20):
        table.append(a_row(steps, rng))
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("30" + ",1.0" * (len(COLUMNS) - 1))  # The last number may have lacked digits.
    assert table.read()["environment_steps"] == [10, 20]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="expected a folder that can be written"):
            RunDirectory(path).check(resume=False)


def test_a_folder_that_cannot_be_made_is_a_wrong_flag(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"root_dir is .* expected a folder that can be written"):
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
    np.testing.assert_allclose(comparison.moving_mean(values, 0), expected)
    np.testing.assert_allclose(comparison.moving_mean(values[:3], 0), values[:3])


@pytest.mark.parametrize("returns", [[], [float("nan")], [1.0, float("nan"), 3.0]])
def test_curve_is_drawn_from_whatever_there_is(tmp_path: Path, returns: list[float]) -> None:
    columns = {"environment_steps": [10.0 * i for i in range(len(returns))], "episode_return_mean": returns}
    plotting.plot_learning_curve(tmp_path / "curve.png", "title", columns, [[20, 2.0, 0.5]] if returns else [])
    assert (tmp_path / "curve.png").stat().st_size < 200_000


@pytest.mark.parametrize("name", ["metrics.csv", "evaluations.csv", "learning_curve.png", "result.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_in_the_place_of_one_is_refused(make, name: str, tmp_path: Path) -> None:
    """A pipe would hold a resumed run up for ever."""
    (tmp_path / "settings.json").touch()
    make(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} in it is no regular file"):
        RunDirectory(tmp_path).check(resume=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe\n\n,,,\n",
        b"other,columns\n1,2\n3,4\n",
        b"environment_steps\n10\n20\n",
        b'"' * 1000,
        b"environment_steps,wall_time_s\n10,1.0\nten,1.0\nnan,1\n1e400,2\n20,2.0,7,8\n",
    ],
)
def test_a_damaged_table_can_be_continued(content: bytes, tmp_path: Path, rng: np.random.Generator) -> None:
    """Lines that cannot be read are left out, and the rows that follow are found again."""
    (tmp_path / "metrics.csv").write_bytes(content)
    table = MetricsTable(tmp_path / "metrics.csv")
    table.drop_after(15)
    for steps in (20, 30):
        table.append(a_row(steps, rng))
    table.sync()
    assert MetricsTable(tmp_path / "metrics.csv").read()["environment_steps"][-2:] == [20, 30]


def test_a_table_that_became_a_link_is_not_written_through(tmp_path: Path, rng: np.random.Generator, capsys) -> None:
    (tmp_path / "precious").write_text("precious")
    table = MetricsTable(tmp_path / "metrics.csv")
    table.append(a_row(10, rng))
    (tmp_path / "metrics.csv").unlink()
    (tmp_path / "metrics.csv").symlink_to(tmp_path / "precious")
    for steps in (20, 30):
        table.append(a_row(steps, rng))
    assert (tmp_path / "precious").read_text() == "precious"
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_curve_replaces_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "curve.png").symlink_to(tmp_path / "precious")
    plotting.plot_learning_curve(tmp_path / "curve.png", "title", {"environment_steps": [], "episode_return_mean": []})
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "curve.png").is_symlink()


@pytest.mark.parametrize("backend", ["bogus", "module://nowhere.backend", "module://matplotlib_inline.backend_inline"])
def test_curves_need_no_backend(backend: str, tmp_path: Path) -> None:
    """The shell of a notebook's kernel sets one that a run's environment may not have."""
    code = (
        "import sys; from pathlib import Path; from ppo_agent.training import plotting;"
        "columns = {'environment_steps': [1, 2], 'episode_return_mean': [1, 3]};"
        "plotting.plot_learning_curve(Path(sys.argv[1]), 'title', columns)"
    )
    environment = {**os.environ, "MPLBACKEND": backend}
    command = [sys.executable, "-c", code, str(tmp_path / "curve.png")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
