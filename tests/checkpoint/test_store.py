"""Checkpoints in a folder: complete or absent, checked, the last and the best kept."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ppo_agent.checkpoint import CheckpointError, CheckpointStore
from ppo_agent.checkpoint.store import load
from ppo_agent.common import atomic_files


def arrays_of(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {"a/b": rng.normal(size=(3, 2)).astype(np.float32), "count": np.int64(step) + np.zeros((), np.int64)}


def write(store: CheckpointStore, *steps: int, evaluation: float | None = None) -> list[Path]:
    return [
        store.write(step, arrays_of(step), {"step": step, "x": [0.1, None]}, evaluation=evaluation) for step in steps
    ]


def assert_holds(path: Path, step: int) -> None:
    loaded = load(path)
    assert loaded.manifest.step == step
    assert loaded.state == {"step": step, "x": [0.1, None]}
    assert loaded.arrays.keys() == arrays_of(step).keys()
    for name, array in arrays_of(step).items():
        np.testing.assert_array_equal(loaded.arrays[name], array, strict=True)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path / "new" / "folder").write(
        70, arrays_of(70), {"step": 70, "x": [0.1, None]}, evaluation=1.5, hyper_parameters={"gamma": 0.9}
    )
    assert_holds(path, 70)
    manifest = load(path).manifest
    assert (manifest.number, manifest.evaluation, manifest.hyper_parameters) == (1, 1.5, {"gamma": 0.9})
    assert manifest.variables == {"a/b": ["float32", [3, 2]], "count": ["int64", []]}
    assert manifest.packages["numpy"] == np.__version__
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "state.json", "variables.npz"]


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, kept=2)
    write(store, 10, evaluation=5.0)
    (best,) = write(store, 20, evaluation=9.0)
    write(store, 30, 40, evaluation=9.0)
    paths = write(store, 50, 60)
    assert sorted(tmp_path.iterdir()) == sorted([best, *paths])
    # A new process does not forget it.
    again = CheckpointStore(tmp_path, kept=1)
    assert again.best() == best
    paths = write(again, 70)
    assert sorted(tmp_path.iterdir()) == sorted([best, *paths])


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(bytes(data))


def swap_with_older(path: Path) -> None:
    number = int(path.parent.name.split("-")[1])
    (older,) = path.parent.parent.glob(f"checkpoint-{number - 1}-*")
    shutil.copy(older / path.name, path)


def link(path: Path) -> None:
    target = path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(target)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [truncate, flip, swap_with_older, link, make_folder, Path.unlink, lambda path: path.write_bytes(b"")]


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "variables.npz"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over(tmp_path: Path, name: str, damage) -> None:
    said: list[str] = []
    store = CheckpointStore(tmp_path, tell=said.append)
    paths = write(store, 10, 20, 30)
    damage(paths[2] / name)
    assert store.newest_sound().path == paths[1]
    (sentence,) = said
    assert paths[2].name in sentence
    assert paths[1].name in sentence
    # The next ones do not push out what is sound.
    new = write(store, 31, 41)
    assert sorted(p.name for p in tmp_path.glob("[cd]*")) == sorted(
        [paths[1].name, *(p.name for p in new), f"damaged-{paths[2].name}"]
    )


def test_a_renamed_checkpoint_is_not_believed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, tell=lambda _: None)
    paths = write(store, 10, 20)
    paths[0].rename(tmp_path / "checkpoint-9-90")
    assert store.newest_sound().path == paths[1]


def test_none_sound_is_one_error_and_nothing_changes(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    paths = write(store, 10, 20)
    for path in paths:
        flip(path / "variables.npz")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=r"no sound checkpoint; damaged: checkpoint-2-20 .*checkpoint-1-10"):
        store.newest_sound()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "absent").newest_sound() is None
    (tmp_path / "checkpoint-x").mkdir()
    assert CheckpointStore(tmp_path).newest_sound() is None


def test_an_older_format_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-100"')
    with pytest.raises(CheckpointError, match="older format"):
        CheckpointStore(tmp_path).newest_sound()


def test_an_unknown_version_is_told(tmp_path: Path) -> None:
    (path,) = write(CheckpointStore(tmp_path), 10)
    document = json.loads((path / "manifest.json").read_text())
    document["content"]["format_version"] = 99
    from ppo_agent.checkpoint import manifest

    document["sha256"] = manifest.sha256(manifest._canonical(document["content"]))
    (path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="format version 99"):
        CheckpointStore(tmp_path).newest_sound()


def test_what_was_not_finished_is_deleted(tmp_path: Path) -> None:
    write(CheckpointStore(tmp_path), 10)
    unfinished = tmp_path / f"{atomic_files.UNFINISHED}checkpoint-2-20.123"
    unfinished.mkdir()
    (unfinished / "variables.npz").write_bytes(b"half")
    store = CheckpointStore(tmp_path)
    assert store.newest_sound().manifest.step == 10
    write(store, 20)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-1-10", "checkpoint-2-20"]


def test_code_beside_the_files_is_not_read(tmp_path: Path) -> None:
    (path,) = write(CheckpointStore(tmp_path), 10)
    for name in ("config.gin", "json.py", "sitecustomize.py"):
        (path / name).write_text("raise SystemExit(1)")
    assert_holds(CheckpointStore(tmp_path).newest_sound().path, 10)


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a has dtype object"):
        CheckpointStore(tmp_path).write(1, {"a": np.array([{}])}, {})
    assert not list(tmp_path.glob("*"))


@pytest.mark.parametrize("fails", ["write", "fsync", "rename"])
def test_a_full_disk_leaves_the_others_as_they_are(tmp_path: Path, fails: str, monkeypatch) -> None:
    store = CheckpointStore(tmp_path)
    (path,) = write(store, 10)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    where = {"write": (atomic_files, "_write"), "fsync": (os, "fsync"), "rename": (Path, "rename")}[fails]
    monkeypatch.setattr(*where, fail)
    with pytest.raises(OSError, match="No space left"):
        write(store, 20)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    assert_holds(path, 10)
    assert write(store, 30)[0].name == "checkpoint-2-30"
