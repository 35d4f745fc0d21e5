"""Recorded episodes from arrays, files and other packages' data sets."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import StepType, Trajectory

from ppo_agent.common import host_calls
from ppo_agent.common.types import Array, Nest
from ppo_agent.training.action_encoding import ActionEncoding

# What arrays are called, by this package and others.
_NAMES = {
    "observations": ("observations", "observation", "obs"),
    "actions": ("actions", "action", "acts"),
    "rewards": ("rewards", "reward"),
    "starts": ("episode_starts", "is_first"),
    "ends": ("terminals", "dones", "done", "terminations", "terminated"),
    "timeouts": ("timeouts", "truncations", "truncated"),
}
# What each of Minari's episodes has.
_OF_MINARI = ("observations", "actions", "rewards")


class Episodes(NamedTuple):
    """N steps of episodes, one behind the other.

    Attributes:
        observations: nest of arrays [N, ...].
        actions: nest of arrays [N, ...].
        is_first: bool [N], where an episode starts.
        rewards: [N]; None if they were not recorded.
    """

    observations: Nest
    actions: Nest
    is_first: Array
    rewards: Array | None = None

    @property
    def num_steps(self) -> int:
        """N."""
        return len(self.is_first)

    def select(self, rows: Array) -> Episodes:
        """Some of the steps."""
        observations, actions = tf.nest.map_structure(lambda x: x[rows], (self.observations, self.actions))
        return Episodes(
            observations, actions, self.is_first[rows], None if self.rewards is None else self.rewards[rows]
        )


def read_episodes(
    source: Any, observation_spec: Nest, action_spec: Nest, encoding: ActionEncoding | None = None
) -> Episodes:
    """Recorded episodes.

    Args:
        source: a `Trajectory` [B, T, ...]; a mapping or an .npz file of arrays [N, ...] `observations` (nests as
            `observations/KEY`), `actions`, and perhaps `rewards`, `episode_starts` or `terminations` and
            `truncations`; a Minari data set, an episode of one, or the folder or name of one; a TFRecord file as
            TF-Agents' `TFRecordObserver` writes it; or a list of any of these.
        observation_spec: of the agent.
        action_spec: of the agent.
        encoding: how the environment's actions become the agent's: arrays and Minari's episodes hold the environment's,
            trajectories and TFRecords the agent's. None if they are the same.

    Raises:
        TypeError: `source` is of another kind.
        ValueError: it cannot be read, holds no step, or does not fit the specs.
    """
    found = _read(source, observation_spec, action_spec, encoding)
    episodes = Episodes(
        _fitted("observations", found.observations, observation_spec, found.num_steps),
        _fitted("actions", found.actions, action_spec, found.num_steps),
        np.array(found.is_first, bool),
        None if found.rewards is None else np.asarray(found.rewards, np.float32).reshape(-1),
    )
    if not episodes.num_steps:
        raise ValueError("episodes holds no step, expected at least one.")
    episodes.is_first[0] = True
    return episodes


def _read(source: Any, observation_spec: Nest, action_spec: Nest, encoding: ActionEncoding | None) -> Episodes:
    if isinstance(source, Episodes):
        return source
    if isinstance(source, Trajectory):
        return _from_trajectory(source)
    if isinstance(source, Mapping):
        return _decoded(_from_arrays(source, observation_spec, action_spec), encoding)
    if hasattr(source, "iterate_episodes") or all(hasattr(source, name) for name in _OF_MINARI):
        return _decoded(_from_minari(source), encoding)
    if isinstance(source, (list, tuple)) and source:
        return _joined([_read(part, observation_spec, action_spec, encoding) for part in source])
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source), observation_spec, action_spec, encoding)
    raise TypeError(
        f"episodes is {type(source).__name__}, expected a Trajectory, arrays by name, a Minari data set, a file, or a "
        "list of them."
    )


def _decoded(episodes: Episodes, encoding: ActionEncoding | None) -> Episodes:
    """Episodes of an environment, with the agent's actions."""
    if encoding is None:
        return episodes
    try:
        return episodes._replace(actions=encoding.decode(episodes.actions))
    except (ValueError, TypeError):  # They do not fit, as will be told.
        return episodes


def _from_path(path: Path, observation_spec: Nest, action_spec: Nest, encoding: ActionEncoding | None) -> Episodes:
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                return _read(dict(archive), observation_spec, action_spec, encoding)
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"episodes is {str(path)!r}, which cannot be read: {error}.") from error
    if path.is_file():
        return _from_tfrecords(path)
    return _read(_minari_dataset(path), observation_spec, action_spec, encoding)


def _from_arrays(arrays: Mapping[str, Any], observation_spec: Nest, action_spec: Nest) -> Episodes:
    observations = _nest(arrays, "observations", observation_spec)
    actions = _nest(arrays, "actions", action_spec)
    count = len(tf.nest.flatten(actions)[0])
    starts, rewards = _one(arrays, "starts"), _one(arrays, "rewards")
    if starts is None:
        is_first = np.zeros(count, bool)
        for name in ("ends", "timeouts"):
            ends = _one(arrays, name)
            if ends is not None:
                is_first[1:] |= np.asarray(ends, bool).reshape(-1)[:-1]
    else:
        is_first = np.asarray(starts, bool).reshape(-1)
    return Episodes(observations, actions, is_first, rewards)


def _one(arrays: Mapping[str, Any], kind: str) -> Any:
    return next((arrays[name] for name in _NAMES[kind] if name in arrays), None)


def _nest(arrays: Mapping[str, Any], kind: str, spec: Nest) -> Nest:
    """An array or a nest of arrays, whose leaves may be called `kind/KEY`."""
    if (found := _one(arrays, kind)) is not None:
        return found
    for name in _NAMES[kind]:
        leaves = {key.partition("/")[2]: value for key, value in arrays.items() if key.startswith(f"{name}/")}
        if leaves and isinstance(spec, Mapping):
            return leaves
    raise ValueError(f"episodes holds {sorted(arrays)}, expected {kind}.")


def _from_trajectory(trajectory: Trajectory) -> Episodes:
    """The steps of rows [B, T, ...], one row behind the other, without those between two episodes."""
    arrays = host_calls.to_arrays(
        (trajectory.observation, trajectory.action, trajectory.step_type, trajectory.next_step_type, trajectory.reward)
    )
    if np.ndim(arrays[2]) == 1:
        arrays = tf.nest.map_structure(lambda x: x[np.newaxis], arrays)
    _, _, step_type, next_step_type, _ = arrays
    is_step = ((step_type != StepType.LAST) & (next_step_type != StepType.FIRST)).reshape(-1)
    starts = step_type == StepType.FIRST
    starts[:, 0] = True
    flat = tf.nest.map_structure(lambda x: x.reshape(-1, *x.shape[2:])[is_step], (*arrays[:2], arrays[4]))
    return Episodes(flat[0], flat[1], starts.reshape(-1)[is_step], flat[2])


def _from_minari(dataset: Any) -> Episodes:
    episodes = dataset.iterate_episodes() if hasattr(dataset, "iterate_episodes") else [dataset]
    parts = [_from_minari_episode(episode) for episode in episodes]
    if not parts:
        raise ValueError("episodes is a data set without episodes, expected at least one.")
    return _joined(parts)


def _from_minari_episode(episode: Any) -> Episodes:
    """Minari's episodes hold one observation more than actions."""
    rewards = np.asarray(episode.rewards)
    observations = tf.nest.map_structure(lambda x: np.asarray(x)[: len(rewards)], episode.observations)
    return Episodes(observations, episode.actions, np.arange(len(rewards)) == 0, rewards)


def _minari_dataset(path: Path) -> Any:
    try:
        import minari
    except ImportError as error:
        raise ValueError(
            f"episodes is {str(path)!r}, expected an .npz or TFRecord file; a Minari data set needs minari, which is "
            "not installed: run `pip install minari`."
        ) from error
    try:
        return (
            minari.MinariDataset(path / "data" if (path / "data").is_dir() else path)
            if path.is_dir()
            else (minari.load_dataset(str(path)))
        )
    except (OSError, ValueError, KeyError, FileNotFoundError) as error:
        raise ValueError(f"episodes is {str(path)!r}, which cannot be read: {error}") from error


def _from_tfrecords(path: Path) -> Episodes:
    from tf_agents.utils import example_encoding_dataset

    try:
        spec = example_encoding_dataset.parse_encoded_spec_from_file(f"{path}.spec")
        dataset = example_encoding_dataset.load_tfrecord_dataset(
            [str(path)], spec=spec, as_trajectories=True, add_batch_dim=False
        )
        rows = list(dataset)
    except (OSError, ValueError, TypeError, tf.errors.OpError) as error:
        raise ValueError(
            f"episodes is {str(path)!r}, expected TFRecords with a .spec beside them: {type(error).__name__}."
        ) from error
    return _from_trajectory(tf.nest.map_structure(lambda *steps: np.stack([np.asarray(s) for s in steps]), *rows))


def _joined(parts: list[Episodes]) -> Episodes:
    observations, actions, starts = tf.nest.map_structure(
        lambda *arrays: np.concatenate([np.asarray(x) for x in arrays]),
        *((part.observations, part.actions, part.is_first) for part in parts),
    )
    rewards = [part.rewards for part in parts if part.rewards is not None]
    return Episodes(observations, actions, starts, np.concatenate(rewards) if len(rewards) == len(parts) else None)


def _fitted(name: str, values: Nest, spec: Nest, count: int) -> Nest:
    """Values as arrays of the specs' dtypes.

    Raises:
        ValueError: they do not fit the specs.
    """
    try:
        tf.nest.assert_same_structure(spec, values, check_types=False)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} of the episodes has another structure than the agent's {name}.") from error
    arrays = []
    for value, leaf in zip(tf.nest.flatten(values), tf.nest.flatten(spec), strict=True):
        array = np.asarray(value)
        if array.ndim == 1 + leaf.shape.rank + 1 and array.shape[-1] == 1:
            array = array[..., 0]
        if array.shape != (count, *leaf.shape) or array.dtype.kind not in "biuf":
            raise ValueError(
                f"{name} of the episodes has shape {array.shape} and dtype {array.dtype}, expected "
                f"{(count, *leaf.shape)} and {leaf.dtype.name}."
            )
        if leaf.dtype.is_integer and (np.any(array < leaf.minimum) or np.any(array > leaf.maximum)):
            raise ValueError(
                f"{name} of the episodes goes from {array.min()} to {array.max()}, expected {_text(leaf.minimum)} to "
                f"{_text(leaf.maximum)}."
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name} of the episodes holds NaN or infinity, expected finite numbers.")
        arrays.append(array.astype(leaf.dtype.as_numpy_dtype))
    return tf.nest.pack_sequence_as(spec, arrays)


def _text(bound: Any) -> str:
    """A bound as one number, if all components have the same."""
    found = np.unique(bound)
    return str(found[0]) if len(found) == 1 else str(np.asarray(bound).tolist())
