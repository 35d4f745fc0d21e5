"""Programs on disk: only those that are as they were written are handed out."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ppo_agent.common import program_store
from ppo_agent.common.program_store import ProgramStore, make_staging, move_staging, remove_staging

KEY = "versions-and-machine"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "xla"


def compiled(folder: Path, programs: dict[str, bytes], key: str = KEY, **keywords: int) -> None:
    """Does what a process does that compiles programs."""
    staging = make_staging(folder)
    for name, data in programs.items():
        (staging / name).write_bytes(data)
    ProgramStore(folder, key, **keywords).take(staging)
    remove_staging(staging)


def found(folder: Path, key: str = KEY) -> dict[str, bytes]:
    """Returns what the next process gets."""
    staging = make_staging(folder)
    names = ProgramStore(folder, key).fill(staging)
    programs = {path.name: path.read_bytes() for path in staging.iterdir()}
    assert sorted(names) == sorted(programs)
    remove_staging(staging)
    return programs


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("programs/*/*") if path.is_file())


def some(rng: np.random.Generator, *names: str, size: int = 1000) -> dict[str, bytes]:
    return {name: rng.bytes(size) for name in names}


def test_the_next_process_gets_what_was_compiled(folder: Path, rng: np.random.Generator) -> None:
    programs = some(rng, "a__1.pb", "a__2.pb")
    compiled(folder, {**programs, "a__3.pb.tmp": b"being written"})
    assert found(folder) == programs


def test_other_versions_and_machines_get_nothing(folder: Path, rng: np.random.Generator) -> None:
    compiled(folder, some(rng, "a.pb"))
    assert found(folder, "another-version") == {}


@pytest.mark.parametrize("damage", ["flip", "cut", "append", "empty", "another name", "no digest"])
def test_damaged_and_foreign_files_are_deleted(damage: str, folder: Path, rng: np.random.Generator) -> None:
    programs = some(rng, "a.pb", "b.pb", "c.pb")
    compiled(folder, programs)
    victim = files(folder)[1]
    data = bytearray(victim.read_bytes())
    if damage == "flip":
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    changed = {"cut": data[:-1], "append": data + b"x", "empty": b""}.get(damage, data)
    victim.write_bytes(bytes(changed))
    if damage == "another name":
        victim.rename(victim.with_name("b.pb." + "0" * 64))
    if damage == "no digest":
        victim.rename(victim.with_name("b.pb"))
    assert found(folder) == {"a.pb": programs["a.pb"], "c.pb": programs["c.pb"]}
    assert len(files(folder)) == 2


def test_links_are_not_followed(folder: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    compiled(folder, some(rng, "a.pb"))
    [path] = files(folder)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert found(folder) == {}
    assert (tmp_path / "elsewhere").exists()


def test_the_oldest_go_beyond_the_bound_whatever_their_key(folder: Path, rng: np.random.Generator) -> None:
    for number, key in enumerate(["old", KEY, KEY, "new"]):
        compiled(folder, some(rng, f"{number}.pb", size=1000), key, most_bytes=3500)
        for path in files(folder):
            if path.name.startswith(f"{number}."):
                os.utime(path, (number, number))
    compiled(folder, some(rng, "4.pb", size=1500), KEY, most_bytes=3500)
    assert [path.name[0] for path in sorted(files(folder), key=lambda path: path.name)] == ["2", "3", "4"]
    assert not (folder / "programs" / "old").exists()


def test_a_program_is_kept_once(folder: Path, rng: np.random.Generator) -> None:
    first, second = some(rng, "a.pb"), some(rng, "a.pb")
    compiled(folder, first)
    compiled(folder, second)
    assert found(folder) == first


def test_dropped_programs_are_gone(folder: Path, rng: np.random.Generator) -> None:
    programs = some(rng, "a.pb", "b.pb")
    compiled(folder, programs)
    ProgramStore(folder, KEY).drop(["a.pb"])
    assert found(folder) == {"b.pb": programs["b.pb"]}


def test_processes_write_and_read_at_once(folder: Path, rng: np.random.Generator) -> None:
    programs = some(rng, *(f"{number}.pb" for number in range(20)), size=100_000)
    threads = [threading.Thread(target=compiled, args=(folder, programs)) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = [found(folder) for _ in range(10)]
    for thread in threads:
        thread.join()
    assert all(data == programs[name] for some_of_them in seen for name, data in some_of_them.items())
    assert found(folder) == programs


def test_folders_are_the_users_own(folder: Path) -> None:
    compiled(folder, {})
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_that_others_can_write_into_is_refused(mode: int, folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(mode)
    for refused in (make_staging, lambda path: ProgramStore(path, KEY)):
        with pytest.raises(PermissionError, match="is writable by others, expected a folder of the user's own"):
            refused(folder)


def test_somebody_elses_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(folder, {})
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(PermissionError):
        ProgramStore(folder, KEY)


def test_a_link_in_place_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    folder.parent.mkdir()
    folder.symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(PermissionError):
        ProgramStore(folder, KEY)


def test_a_full_disk_is_tolerated(folder: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = make_staging(folder)
    (staging / "a.pb").write_bytes(rng.bytes(10))

    def full(path: Path, data: bytes) -> None:
        del path, data
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    ProgramStore(folder, KEY).take(staging)
    assert files(folder) == []


def test_what_killed_processes_left_is_deleted(folder: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    own = make_staging(folder)
    left = own.with_name(f"{ended.pid}-abc")
    left.mkdir()
    (left / "a.pb").write_bytes(b"half")
    assert make_staging(folder) != own
    assert own.is_dir()
    assert not left.exists()


@pytest.mark.parametrize("memory", ["/dev/shm", "/nowhere"])
def test_staging_can_move(memory: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_store, "_IN_MEMORY", memory)
    staging = make_staging(folder)
    (staging / "a.pb").write_bytes(b"program")
    move_staging(staging)
    elsewhere = staging.resolve()
    assert elsewhere != staging
    assert list(staging.iterdir()) == []
    move_staging(staging)
    remove_staging(staging)
    assert not staging.is_symlink()
    assert not elsewhere.exists()
