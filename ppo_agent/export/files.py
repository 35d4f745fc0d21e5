"""Exports appear in one step: what fails leaves nothing, and what was there before stays until then."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ppo_agent.common import atomic_files

# A folder is taken for an earlier export, and replaced, if it holds one of these.
_MARKS = ("saved_model.pb", "policy.npz")


def check_folder(directory: str | os.PathLike[str], argument: str = "directory") -> Path:
    """The absolute path of a folder that can be written; `argument` is what an error calls it.

    Raises:
        ValueError: it is or lies in a file, or holds something else than an export.
    """
    target = _check_parents(directory, argument)
    is_export = any((target / mark).exists() for mark in _MARKS)
    if target.is_dir() and any(target.iterdir()) and not is_export:
        raise ValueError(
            f"{argument} is {str(target)!r}, which holds other files than an export's, expected an empty folder."
        )
    return target


def check_file(path: str | os.PathLike[str], argument: str = "file") -> Path:
    """The absolute path of a file that can be written; `argument` is what an error calls it.

    Raises:
        ValueError: it is a folder, or lies in a file.
    """
    target = Path(path).absolute()
    if target.is_dir():
        raise ValueError(f"{argument} is {str(target)!r}, which is a folder, expected the name of a file.")
    _check_parents(target.parent, argument)
    return target


def write_folder(target: Path, write: Callable[[str], Any]) -> None:
    """Writes beside the target and renames, so that a reader sees the old export or the new one, but no half."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(target.parent, target.name) as scratch:
        new, old = scratch / "new", scratch / "old"
        write(str(new))
        if target.exists():
            target.rename(old)
        new.rename(target)


def write_file(target: Path, data: bytes) -> None:
    """Writes a file in one step, and the folders above it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.replace_file(target, data)


@contextmanager
def scratch_folder(parent: Path | None = None, name: str = "export") -> Iterator[Path]:
    """A folder that is gone afterwards; beside the target, where renaming costs nothing, or among temporary files."""
    path = Path(tempfile.mkdtemp(prefix=f"{atomic_files.UNFINISHED}{name}-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _check_parents(path: str | os.PathLike[str], argument: str) -> Path:
    target = Path(path).absolute()
    existing = next(path for path in (target, *target.parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"{argument} is {str(target)!r}, but {existing} is a file, expected a folder or a new path.")
    return target
