"""Recorded episodes in files: what NumPy, TF-Agents and Minari write."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import Trajectory

from ppo_agent.common.types import Array

# What arrays are called, by this package and others.
NAMES = {
    "observations": ("observations", "observation", "obs"),
    "actions": ("actions", "action", "acts"),
    "rewards": ("rewards", "reward"),
    "starts": ("episode_starts", "is_first"),
    "ends": ("terminals", "dones", "done", "terminations", "terminated"),
    "timeouts": ("timeouts", "truncations", "truncated"),
}
_KNOWN = frozenset(name for names in NAMES.values() for name in names)


def read(path: Path) -> Any:
    """What a path leads to: arrays by name, a Trajectory, or a Minari data set.

    Raises:
        ValueError: nothing of these can be read there.
    """
    if path.suffix.lower() == ".npz" or (path.is_file() and zipfile.is_zipfile(path)):
        return _arrays_in(path)
    return _trajectory_in(path) if path.is_file() else _minari_dataset(path)


def _arrays_in(path: Path) -> dict[str, Array | None]:
    """The arrays that episodes are made of; None for others, which may be of any kind."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            return {name: archive[name] if name.partition("/")[0] in _KNOWN else None for name in archive.files}
    except Exception as error:  # A header is Python, and its tokenizer has errors of its own.
        raise _unreadable(path, error) from error


def _trajectory_in(path: Path) -> Trajectory:
    from tf_agents.utils import example_encoding_dataset

    try:
        spec = example_encoding_dataset.parse_encoded_spec_from_file(f"{path}.spec")
        dataset = example_encoding_dataset.load_tfrecord_dataset(
            [str(path)], spec=spec, as_trajectories=True, add_batch_dim=False
        )
        rows = list(dataset)
        return tf.nest.map_structure(lambda *steps: np.stack([np.asarray(s) for s in steps]), *rows)
    except Exception as error:  # Likewise.
        raise ValueError(
            f"episodes is {str(path)!r}, expected an .npz file, or TFRecords with a .spec beside them: "
            f"{type(error).__name__}."
        ) from error


def _minari_dataset(path: Path) -> Any:
    try:
        import minari
    except ImportError as error:
        raise ValueError(
            f"episodes is {str(path)!r}, expected an .npz or TFRecord file; a Minari data set needs minari, which is "
            "not installed: run `pip install minari`."
        ) from error
    try:
        if path.is_dir():
            return minari.MinariDataset(path / "data" if (path / "data").is_dir() else path)
        return minari.load_dataset(str(path))
    except Exception as error:  # Of HDF5 and what reads it.
        raise _unreadable(path, error) from error


def minari_episodes(dataset: Any) -> Iterator[Any]:
    """The episodes of a Minari data set, or the one that it is itself.

    Raises:
        ValueError: one cannot be read.
    """
    if not hasattr(dataset, "iterate_episodes"):
        yield dataset
        return
    episodes = iter(dataset.iterate_episodes())
    while True:
        try:
            episode = next(episodes)
        except StopIteration:
            return
        except Exception as error:  # Of HDF5 and what reads it.
            raise _unreadable(getattr(dataset, "id", type(dataset).__name__), error) from error
        yield episode


def _unreadable(path: Any, error: BaseException) -> ValueError:
    # The first of several sentences; a number may have a point and a space behind it.
    reason = re.split(r"(?<=[a-z)'])\. ", " ".join(str(error).split()))[0].rstrip(".") or type(error).__name__
    return ValueError(f"episodes is {str(path)!r}, which cannot be read: {reason}.")
