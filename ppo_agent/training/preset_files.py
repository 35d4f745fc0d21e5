"""Presets from files: `--preset=FILE`, as a search writes them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppo_agent import presets
from ppo_agent.common import atomic_files
from ppo_agent.presets import Preset
from ppo_agent.training.settings import COLLECTION, FIELDS, Settings

SUFFIX = ".json"


def is_file(preset: str) -> bool:
    """Whether a preset is meant to be a file, by the end of its name."""
    return preset.endswith(SUFFIX)


def check(preset: str) -> None:
    """Raises TypeError or ValueError unless it is a preset's name, or a file with settings that can be used."""
    if not isinstance(preset, str):
        raise TypeError(f"preset is {preset!r}, expected a name or the path of a JSON file.")
    if is_file(preset):
        read(preset)
    else:
        presets.check_name(preset)


def read(path: str | os.PathLike[str]) -> Preset:
    """Reads a preset file: `{"source": TEXT, "settings": {NAME: VALUE}}`.

    A run's settings.json is one, too: what else is in the file does not matter.

    Raises:
        ValueError: it cannot be read, or a setting in it is unknown or out of range.
    """
    try:
        document = atomic_files.read_json(Path(path))
    except OSError as error:
        raise ValueError(
            f"preset is {str(path)!r}, expected a file that can be read: {error.strerror or error}."
        ) from error
    except ValueError as error:
        raise ValueError(f"preset is {str(path)!r}, expected JSON: {error}.") from error
    if not isinstance(document, dict) or not isinstance(settings := document.get("settings"), dict):
        raise ValueError(f"preset is {str(path)!r}, expected an object with `settings`, values by name.")
    _check(path, settings)
    source = document.get("source")
    return Preset(source if isinstance(source, str) else str(path), settings)


def write(path: str | os.PathLike[str], settings: Mapping[str, Any], source: str) -> None:
    """Writes a preset file, whose name ends with `.json`, complete or not at all; `source` is for those who read it.

    Raises:
        ValueError: a setting is unknown or out of range, or the name ends otherwise.
    """
    if not is_file(str(path)):
        raise ValueError(f"path is {str(path)!r}, expected a name that ends with {SUFFIX}.")
    _check(path, settings)
    atomic_files.write_json(Path(path), {"source": source, "settings": dict(settings)})


def _check(path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
    if unknown := sorted(set(settings) - set(FIELDS)):
        raise ValueError(f"preset is {str(path)!r}, in which {unknown[0]} is no setting, expected names of flags.")
    if all(settings.get(name) is not None for name in COLLECTION):
        raise ValueError(f"preset is {str(path)!r}, in which {' and '.join(COLLECTION)} are set, expected one of them.")
    try:
        Settings(**settings)
    except ValueError as error:
        raise ValueError(f"preset is {str(path)!r}, in which {error}") from error
