"""Compiled programs on disk: checked before use, bounded, shared by processes.

    FOLDER/programs/KEY/NAME.DIGEST   a program; DIGEST is the SHA-256 of its contents
    FOLDER/staging/PID-RANDOM/NAME    what one process hands to, and gets from, its compiler

A program of which a byte differs from what was written no longer fits its name, and is deleted instead of used. Files
appear under their names when they are complete, and are never changed: processes need no locks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from ppo_agent.common.atomic_files import UNFINISHED, read_file

MOST_BYTES = 128 * 2**20
_PROGRAMS, _STAGING = "programs", "staging"
_IN_MEMORY = "/dev/shm"  # noqa: S108 - What is made there has a name that nobody can know in advance.
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class ProgramStore:
    """The programs in a folder that are of use to this process."""

    def __init__(self, folder: Path, key: str, most_bytes: int = MOST_BYTES) -> None:
        """Creates the folder, readable for its owner only.

        Args:
            folder: of all programs.
            key: of those that may be used here, see `compilation_cache`; a name of a folder.
            most_bytes: size of all programs, those with other keys included; the oldest are deleted beyond it.

        Raises:
            OSError: the folder cannot be written, or others than the user own it or may write into it.
        """
        self._folder, self._programs, self._most_bytes = folder, folder / _PROGRAMS / key, most_bytes
        for path in (folder, folder / _PROGRAMS, self._programs):
            _make_private(path)

    def fill(self, staging: Path) -> list[str]:
        """Copies the programs that are as they were written into `staging`, and deletes the others.

        Returns:
            Their names.
        """
        return [name for path in _files(self._programs) if (name := _copy_sound(path, staging))]

    def take(self, staging: Path) -> None:
        """Keeps the programs in `staging` that are not kept yet, as far as they can be written."""
        kept = {path.name.rpartition(".")[0] for path in _files(self._programs)}
        new = [path for path in _files(staging) if path.suffix == ".pb" and path.name not in kept]
        with contextlib.suppress(OSError):
            for path in new:
                self._write(path.name, path.read_bytes())
        if new:
            self._trim()

    def drop(self, names: list[str]) -> None:
        """Deletes programs."""
        for path in _files(self._programs):
            if path.name.rpartition(".")[0] in names:
                _delete(path)

    def _write(self, name: str, data: bytes) -> None:
        unfinished = self._programs / f"{UNFINISHED}{name}.{os.getpid()}"
        try:
            unfinished.write_bytes(data)
            unfinished.replace(self._programs / f"{name}.{hashlib.sha256(data).hexdigest()}")
        finally:
            _delete(unfinished)

    def _trim(self) -> None:
        """Deletes the oldest programs of all keys until what is left is small enough, and empty folders."""
        sizes = []
        for path in self._folder.glob(f"{_PROGRAMS}/*/*"):
            with contextlib.suppress(OSError):
                status = path.lstat()
                sizes.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in sizes)
        for _, size, path in sorted(sizes):
            if total <= self._most_bytes:
                break
            _delete(path)
            total -= size
        for path in (self._folder / _PROGRAMS).iterdir():
            with contextlib.suppress(OSError):
                if path != self._programs:
                    path.rmdir()


def make_staging(folder: Path) -> Path:
    """Returns a new empty folder for this process, and deletes those of processes that have ended.

    Raises:
        OSError: as of `ProgramStore`.
    """
    for path in (folder, folder / _STAGING):
        _make_private(path)
    for path in (folder / _STAGING).iterdir():
        if not _is_alive(path.name.partition("-")[0]):
            remove_staging(path)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=folder / _STAGING))


def move_staging(staging: Path) -> None:
    """Puts an empty folder in place of a process's, in memory where there is such a place: a disk may be full.

    Raises:
        OSError: that cannot be done.
    """
    remove_staging(staging)
    elsewhere = tempfile.mkdtemp(prefix="ppo_agent-", dir=_IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None)
    staging.symlink_to(elsewhere, target_is_directory=True)


def remove_staging(staging: Path) -> None:
    """Deletes a folder that `make_staging` returned, wherever it is now."""
    if staging.is_symlink():
        shutil.rmtree(staging.resolve(), ignore_errors=True)
    if staging.is_symlink() or staging.is_file():
        _delete(staging)
    shutil.rmtree(staging, ignore_errors=True)


def _copy_sound(path: Path, staging: Path) -> str | None:
    """Copies a program if its contents fit its name, else deletes it; returns its name if it was copied."""
    name, _, digest = path.name.rpartition(".")
    with contextlib.suppress(OSError):
        data = read_file(path)
        if name and hashlib.sha256(data).hexdigest() == digest:
            (staging / name).write_bytes(data)
            return name
    _delete(path)
    return None


def _files(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if not path.name.startswith(UNFINISHED))
    return []


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _make_private(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & _WRITABLE_BY_OTHERS:
        raise PermissionError(f"{path} is writable by others, expected a folder of the user's own.")


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ValueError, OSError):
        return False
    return True
