"""A folder of checkpoints: writing, finding the newest sound one, dropping old ones."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_agent.checkpoint import array_files
from ppo_agent.checkpoint.manifest import (
    DamagedError,
    Manifest,
    NewerFormatError,
    package_versions,
    read_manifest,
    read_state,
    sha256,
)
from ppo_agent.common import atomic_files

Arrays = Mapping[str, np.ndarray]

_MANIFEST, _VARIABLES, _STATE = "manifest.json", "variables.npz", "state.json"
# Where a run keeps them.
_OF_A_RUN = "checkpoints"
_NAME = re.compile(r"checkpoint-(\d+)-(\d+)")
# Far above what a manifest or a state takes; arrays are measured by what the manifest says.
_LARGEST_MANIFEST, _LARGEST_STATE = 2**26, 2**28
# What tf.train.CheckpointManager leaves behind, which earlier versions of this package used.
_OLD_FORMAT = ("checkpoint", "ckpt-*.index")


class CheckpointError(OSError):
    """No checkpoint of a folder can be used, or one cannot be written."""


class Loaded(NamedTuple):
    """A checkpoint whose sums were right.

    Attributes:
        path: its folder.
        manifest: what it holds.
        arrays: variables and other arrays by name.
        state: everything else, what JSON knows.
    """

    path: Path
    manifest: Manifest
    arrays: Arrays
    state: Any


class CheckpointStore:
    """Checkpoints in a folder, of which the last few and the best by evaluation are kept."""

    def __init__(
        self, directory: str | os.PathLike[str], kept: int = 3, tell: Callable[[str], None] = warnings.warn
    ) -> None:
        """Names the folder; nothing is read or written yet.

        Args:
            directory: where the checkpoints lie; made by the first one.
            kept: how many of the last ones are kept.
            tell: takes a sentence for the user.

        Raises:
            ValueError: `kept` is less than 1.
        """
        if kept < 1:
            raise ValueError(f"kept is {kept!r}, expected a positive int.")
        self.directory, self._kept, self._tell = Path(directory), kept, tell
        self._damaged: set[Path] = set()
        # Of a later version of this package: they are left as they are.
        self._newer: set[Path] = set()
        self._evaluations: dict[Path, float | None] = {}
        self._is_clean = False

    def write(
        self,
        step: int,
        arrays: Arrays,
        state: Any,
        *,
        evaluation: float | None = None,
        specs: Mapping[str, Any] | None = None,
        hyper_parameters: Mapping[str, Any] | None = None,
    ) -> Path:
        """Writes a checkpoint, and then drops old ones.

        Args:
            step: how far training has come.
            arrays: by name; no objects.
            state: what JSON knows.
            evaluation: mean return of the policy, if it was evaluated.
            specs: see `Manifest`.
            hyper_parameters: see `Manifest`.

        Returns:
            Its folder.

        Raises:
            OSError: it cannot be written, and nothing is left of it; the others stay as they are.
            ValueError: an array is of objects.
        """
        self._clean()
        number = 1 + max((_number(path) for path in self._folders()), default=0)
        contents = {_VARIABLES: array_files.pack(arrays), _STATE: json.dumps(state).encode()}
        manifest = Manifest(
            number=number,
            step=step,
            evaluation=evaluation,
            specs=specs or {},
            hyper_parameters=hyper_parameters or {},
            variables=array_files.describe(arrays),
            packages=package_versions(),
            files={name: sha256(data) for name, data in contents.items()},
        )
        path = self.directory / f"checkpoint-{number}-{step}"
        atomic_files.write_folder(path, {**contents, _MANIFEST: manifest.to_bytes()})
        self._evaluations[path] = evaluation
        self._drop_old()
        return path

    def newest_sound(self, accept: Callable[[Loaded], None] | None = None) -> Loaded | None:
        """The newest checkpoint whose sums and forms are right, None if there are no checkpoints at all.

        Tells of every newer one that is passed over.

        Args:
            accept: called with a checkpoint before it is returned; raises DamagedError for one that is passed over too.

        Raises:
            CheckpointError: there are some, and none is sound, or all are of another format.
        """
        damaged: list[str] = []
        newer: list[str] = []
        for path in self._folders():
            try:
                loaded = load(path)
                if accept is not None:
                    accept(loaded)
            except NewerFormatError as error:
                newer.append(f"{path.name} {error}")
                self._newer.add(path)
                continue
            except DamagedError as error:
                damaged.append(f"{path.name} ({error})")
                self._damaged.add(path)
                continue
            if said := _passed_over(newer, damaged):
                self._tell(f"{said}; going on from the newest sound one, {path.name}.")
            return loaded
        if said := _passed_over(newer, damaged):
            raise CheckpointError(f"{self.directory} holds no sound checkpoint; {said}.")
        if any(any(self.directory.glob(pattern)) for pattern in _OLD_FORMAT):
            raise CheckpointError(
                f"{self.directory} holds checkpoints of an older format, which is no longer read: "
                "finish the run with the version that began it, or start another one."
            )
        self._check_place()
        return None

    def _check_place(self) -> None:
        """Raises CheckpointError where checkpoints lie elsewhere: a None would let the caller start from nothing."""
        expected: Path | str | None = None
        if _NAME.fullmatch(self.directory.name) or (self.directory / _MANIFEST).is_file():
            expected = self.directory.parent
        elif self.directory.is_file():
            expected = self.directory.parents[1] if _NAME.fullmatch(self.directory.parent.name) else ""
        elif CheckpointStore(self.directory / _OF_A_RUN)._folders():
            expected = self.directory / _OF_A_RUN
        if expected is not None:
            raise CheckpointError(
                f"directory is {self.directory}, expected the folder that holds the checkpoints{expected and ': '}"
                f"{expected}."
            )

    def best(self) -> Path | None:
        """The checkpoint with the highest evaluation, the earliest of equal ones; None if none was evaluated."""
        known = [
            (value, -_number(path), path) for path in self._folders() if (value := self._evaluation(path)) is not None
        ]
        return max(known)[2] if known else None

    def _folders(self) -> list[Path]:
        """The checkpoints, newest first."""
        if not self.directory.is_dir():
            return []
        found = [path for path in self.directory.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: (_number(path), path.name), reverse=True)

    def _evaluation(self, path: Path) -> float | None:
        if path not in self._evaluations:
            try:
                self._evaluations[path] = read_manifest(
                    atomic_files.read_file(path / _MANIFEST, _LARGEST_MANIFEST)
                ).evaluation
            except (OSError, DamagedError, NewerFormatError):
                self._evaluations[path] = None
        return self._evaluations[path]

    def _clean(self) -> None:
        """Deletes what was left unfinished, and puts aside what is damaged, so that it pushes no sound one out."""
        if not self._is_clean and self.directory.is_dir():
            atomic_files.remove_unfinished(self.directory)
        for path in self._damaged:
            target = path.with_name(f"damaged-{path.name}")
            if path.exists() and not target.exists():
                path.rename(target)
        self._damaged.clear()
        self._is_clean = True

    def _drop_old(self) -> None:
        best = self.best()
        for path in self._folders()[self._kept :]:
            if path != best and path not in self._newer:
                atomic_files.remove_folder(path)
                self._evaluations.pop(path, None)


def load(path: Path) -> Loaded:
    """Reads a checkpoint; sizes and forms are checked before anything of a file's contents is believed.

    Raises:
        DamagedError: it is not what was written.
        NewerFormatError: a later version of this package has written it.
    """
    if path.is_symlink():
        raise DamagedError("it is a symbolic link")
    manifest = read_manifest(_read(path, _MANIFEST, _LARGEST_MANIFEST))
    if path.name != f"checkpoint-{manifest.number}-{manifest.step}":
        raise DamagedError(f"manifest.json is that of checkpoint-{manifest.number}-{manifest.step}")
    contents = {}
    for name, largest in ((_VARIABLES, array_files.largest_size(manifest.variables)), (_STATE, _LARGEST_STATE)):
        contents[name] = _read(path, name, largest)
        if sha256(contents[name]) != manifest.files.get(name):
            raise DamagedError(f"{name} does not have the contents that were written")
    arrays = array_files.unpack(contents[_VARIABLES], manifest.variables)
    return Loaded(path, manifest, arrays, read_state(contents[_STATE]))


def _passed_over(newer: list[str], damaged: list[str]) -> str:
    """What was passed over and why, part of a sentence."""
    said = [f"written by a later version and left as they are: {', '.join(newer)}"] if newer else []
    return "; ".join([*said, *([f"damaged: {'; '.join(damaged)}"] if damaged else [])])


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def _read(folder: Path, name: str, most_bytes: int) -> bytes:
    try:
        return atomic_files.read_file(folder / name, most_bytes)
    except FileNotFoundError as error:
        raise DamagedError(f"{name} is missing") from error
    except OSError as error:
        raise DamagedError(f"{name} cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise DamagedError(f"{name} is larger than this machine's memory") from error
