"""Recorded episodes from arrays, files and other packages' data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import StepType, Trajectory

from ppo_agent.common import host_calls
from ppo_agent.common.types import Array, Nest
from ppo_agent.training import episode_files, given_arrays
from ppo_agent.training.action_encoding import ActionEncoding
from ppo_agent.training.episode_files import NAMES

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
    parts = _read(source, observation_spec, action_spec, encoding)
    episodes = _joined([_fitted(part, observation_spec, action_spec) for part in parts])
    if not episodes.num_steps:
        raise ValueError("episodes holds no step, expected at least one.")
    return episodes


def _read(
    source: Any, observation_spec: Nest, action_spec: Nest, encoding: ActionEncoding | None
) -> Iterator[Episodes]:
    """The parts of a source, not yet compared with the specs."""
    if isinstance(source, Episodes):
        yield source
    elif isinstance(source, Trajectory):
        yield _from_trajectory(source)
    elif isinstance(source, Mapping):
        yield _decoded(_from_arrays(source, observation_spec, action_spec), encoding)
    elif hasattr(source, "iterate_episodes") or all(hasattr(source, name) for name in _OF_MINARI):
        for episode in _from_minari(source):
            yield _decoded(episode, encoding)
    elif isinstance(source, (list, tuple)) and source:
        for part in source:
            yield from _read(part, observation_spec, action_spec, encoding)
    elif isinstance(source, (str, os.PathLike)):
        yield from _read(episode_files.read(Path(source)), observation_spec, action_spec, encoding)
    else:
        found = f"an empty {type(source).__name__}" if isinstance(source, (list, tuple)) else type(source).__name__
        raise TypeError(
            f"episodes is {found}, expected a Trajectory, arrays by name, a Minari data set, a file, or a list of them."
        )


def _decoded(episodes: Episodes, encoding: ActionEncoding | None) -> Episodes:
    """Episodes of an environment, with the agent's actions."""
    return episodes if encoding is None else episodes._replace(actions=encoding.decode(episodes.actions))


def _from_arrays(arrays: Mapping[str, Any], observation_spec: Nest, action_spec: Nest) -> Episodes:
    observations = _nest(arrays, "observations", observation_spec)
    actions = _nest(arrays, "actions", action_spec)
    count = _num_steps(actions, action_spec)
    starts, rewards = _one(arrays, "starts"), _one(arrays, "rewards")
    if starts is not None:
        return Episodes(observations, actions, _flags("episode_starts", starts, count), rewards)
    is_first = np.zeros(count, bool)
    for kind, name in (("ends", "terminations"), ("timeouts", "truncations")):
        if (ends := _one(arrays, kind)) is not None:
            is_first[1:] |= _flags(name, ends, count)[:-1]
    return Episodes(observations, actions, is_first, rewards)


def _num_steps(actions: Nest, action_spec: Nest) -> int:
    first = given_arrays.leaves_of("actions", actions, action_spec)[0].array
    if not first.ndim:
        raise ValueError(f"actions of the episodes is {first!r}, expected an array with a row for each step.")
    return len(first)


def _one(arrays: Mapping[str, Any], kind: str) -> Any:
    return next((arrays[name] for name in NAMES[kind] if name in arrays), None)


def _nest(arrays: Mapping[str, Any], kind: str, spec: Nest) -> Nest:
    """An array or a nest of arrays, whose leaves may be called `kind/KEY`."""
    if (found := _one(arrays, kind)) is not None:
        return found
    for name in NAMES[kind]:
        leaves = {key.partition("/")[2]: value for key, value in arrays.items() if str(key).startswith(f"{name}/")}
        if leaves and isinstance(spec, Mapping):
            return leaves
    raise ValueError(f"episodes holds {sorted(arrays, key=str)}, expected {kind}.")


def _from_trajectory(trajectory: Trajectory) -> Episodes:
    """The steps of rows [B, T, ...], one row behind the other, without those between two episodes."""
    arrays = host_calls.to_arrays(
        (trajectory.observation, trajectory.action, trajectory.step_type, trajectory.next_step_type, trajectory.reward)
    )
    arrays = tf.nest.map_structure(np.asarray, arrays)
    if np.ndim(arrays[2]) == 1:
        arrays = tf.nest.map_structure(lambda x: x[np.newaxis], arrays)
    for array in tf.nest.flatten(arrays):
        if np.ndim(arrays[2]) != 2 or array.shape[:2] != arrays[2].shape:
            raise ValueError(
                f"episodes is a Trajectory with step_type of shape {arrays[2].shape} and an array of shape "
                f"{array.shape}, expected [B, T] in front of each."
            )
    _, _, step_type, next_step_type, _ = arrays
    is_step = ((step_type != StepType.LAST) & (next_step_type != StepType.FIRST)).reshape(-1)
    starts = step_type == StepType.FIRST
    starts[:, 0] = True
    flat = tf.nest.map_structure(lambda x: x.reshape(-1, *x.shape[2:])[is_step], (*arrays[:2], arrays[4]))
    return Episodes(flat[0], flat[1], starts.reshape(-1)[is_step], flat[2])


def _from_minari(dataset: Any) -> Iterator[Episodes]:
    found = False
    for episode in episode_files.minari_episodes(dataset):
        found = True
        yield _from_minari_episode(episode)
    if not found:
        raise ValueError("episodes is a data set without episodes, expected at least one.")


def _from_minari_episode(episode: Any) -> Episodes:
    """Minari's episodes hold one observation more than actions."""
    rewards = np.asarray(episode.rewards)
    lengths = [np.shape(x)[:1] for x in tf.nest.flatten((episode.observations, episode.actions))]
    if rewards.ndim != 1 or not all(lengths):
        raise TypeError(f"episodes is {type(episode).__name__}, whose rewards are {rewards!r:.80}, expected arrays.")
    observations, actions = episode.observations, episode.actions
    for name, nest, count in (("observations", observations, len(rewards) + 1), ("actions", actions, len(rewards))):
        for leaf in tf.nest.flatten(nest):
            if len(leaf) != count:
                raise ValueError(
                    f"episodes is an episode of {len(rewards)} rewards and {len(leaf)} {name}, expected {count}."
                )
    observations = tf.nest.map_structure(lambda x: np.asarray(x)[:-1], observations)
    return Episodes(observations, actions, np.arange(len(rewards)) == 0, rewards)


def _joined(parts: list[Episodes]) -> Episodes:
    observations, actions, starts = tf.nest.map_structure(
        lambda *arrays: np.concatenate(arrays),
        *((part.observations, part.actions, part.is_first) for part in parts),
    )
    rewards = [part.rewards for part in parts if part.rewards is not None]
    return Episodes(observations, actions, starts, np.concatenate(rewards) if len(rewards) == len(parts) else None)


def _fitted(part: Episodes, observation_spec: Nest, action_spec: Nest) -> Episodes:
    """A part with arrays of the specs' dtypes, whose first step begins an episode.

    Raises:
        ValueError: it does not fit the specs.
    """
    count = _num_steps(part.actions, action_spec)
    is_first, rewards = _flags("episode_starts", part.is_first, count), None
    is_first[:1] = True
    if part.rewards is not None:
        rewards = _column("rewards", part.rewards, count, tf.TensorSpec([], tf.float32))
    observations = _fitted_nest("observations", part.observations, observation_spec, count)
    return Episodes(observations, _fitted_nest("actions", part.actions, action_spec, count), is_first, rewards)


def _fitted_nest(name: str, values: Nest, spec: Nest, count: int) -> Nest:
    arrays = []
    for leaf in given_arrays.leaves_of(name, values, spec):
        array, path = leaf.array, leaf.name.partition("/")[2]
        called = f"{path} in {name} of the episodes" if path else f"{name} of the episodes"
        if array.ndim == 1 + leaf.spec.shape.rank + 1 and array.shape[-1] == 1:
            array = array[..., 0]
        if array.shape != (count, *leaf.spec.shape) or array.dtype.kind not in "biuf":
            raise ValueError(
                f"{called} has shape {array.shape} and dtype {array.dtype}, expected "
                f"{(count, *leaf.spec.shape)} and {leaf.spec.dtype.name}."
            )
        arrays.append(given_arrays.fitted(leaf._replace(array=array), called=called))
    return tf.nest.pack_sequence_as(spec, arrays)


def _flags(name: str, values: Any, count: int) -> Array:
    """An array [N] of bools of one's own."""
    return np.array(_column(name, values, count, tf.TensorSpec([], tf.bool)))


def _column(name: str, values: Any, count: int, spec: tf.TensorSpec) -> Array:
    """Values [N] or [N, 1] as [N] in the dtype of a spec."""
    called = f"{name} of the episodes"
    leaf = given_arrays.leaves_of(called, values, spec)[0]
    if leaf.array.shape not in ((count,), (count, 1)):
        raise ValueError(f"{called} has shape {leaf.array.shape}, expected {(count,)}.")
    return given_arrays.fitted(leaf._replace(array=leaf.array.reshape(-1)))
