"""Files and folders that are complete or absent, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

# What bears this prefix was being written, or deleted, when its process ended.
UNFINISHED = ".unfinished-"


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file, in place of one that may be there, in one step; it survives a crash of the machine.

    Raises:
        OSError: it cannot be written; the old one stays as it is.
    """
    unfinished = path.with_name(f"{UNFINISHED}{path.name}.{os.getpid()}")
    try:
        _write(unfinished, data)
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Writes a new folder of files in one step.

    Args:
        path: of the folder, which must not exist yet; its parents are made.
        contents: by file name.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    unfinished = path.with_name(f"{UNFINISHED}{path.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        for name, data in contents.items():
            _write(unfinished / name, data)
        _sync_folder(unfinished)
        unfinished.rename(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Deletes a folder; one that is half deleted bears the name of an unfinished one."""
    unfinished = path.with_name(f"{UNFINISHED}{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.rename(unfinished)
    shutil.rmtree(unfinished, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Deletes what earlier processes did not finish writing or deleting in a folder."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def read_file(path: Path) -> bytes:
    """The contents of a file that is no symbolic link, which might lead out of its folder.

    Raises:
        OSError: it is one, or cannot be read.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        return file.read()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Sees to it that names in the folder survive a crash, where the file system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
