"""Files and folders that are complete or absent, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What bears this prefix was being written, or deleted, when its process ended.
UNFINISHED = ".unfinished-"
_LARGEST_JSON = 2**24


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
    """Writes a new folder of files, contents by name, in one step; its parents are made.

    Raises:
        OSError: it exists or cannot be written; nothing is left of it.
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


def read_file(path: Path, most_bytes: int | None = None) -> bytes:
    """The contents of a regular file, which no symbolic link is: that might lead out of its folder.

    Raises:
        OSError: it is no such file, larger than `most_bytes`, or cannot be read.
    """
    with open(path, "rb", opener=_open_regular) as file:
        size = os.fstat(file.fileno()).st_size
        if most_bytes is not None and size > most_bytes:
            raise OSError(errno.EFBIG, f"it has {size} bytes, expected at most {most_bytes}", str(path))
        return file.read()


def read_json(path: Path) -> Any:
    """What a JSON file of at most 16 MB holds.

    Raises:
        OSError: as `read_file`.
        ValueError: it is no JSON.
    """
    try:
        return json.loads(read_file(path, _LARGEST_JSON))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply, expected plain JSON") from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file, complete or not at all; raises OSError as `replace_file`."""
    replace_file(path, (json.dumps(values, indent=2) + "\n").encode())


def open_to_append(path: Path) -> io.FileIO:
    """Opens a regular file, created if there is none, for unbuffered writing at its end.

    Raises:
        OSError: it is a symbolic link, a pipe or a folder, or cannot be written.
    """
    return io.FileIO(path, "ab", opener=_open_regular)


def _open_regular(name: str, flags: int) -> int:
    """Opens a file that is neither a symbolic link nor a pipe, at which the opening could wait for ever."""
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", name)
    return descriptor


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Makes sure that names in the folder survive a crash, where the file system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
