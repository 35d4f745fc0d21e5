"""Finds what may not reach a learner: numbers that are not finite, and categories outside their space."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_agent.common import array_nests
from ppo_agent.common.types import Nest

from .faults import EnvironmentFaultError, Fault

if TYPE_CHECKING:
    from tf_agents.trajectories import time_step as ts

# Times any finite float32, and summed up, it stays finite.
_SMALL = 1e-10


@dataclasses.dataclass(frozen=True)
class Leaf:
    """What is known of a leaf of an observation, without TensorFlow.

    Attributes:
        dtype: Of the array.
        shape: Of a single environment's.
        minimum: Least value.
        maximum: Greatest value.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    minimum: np.ndarray
    maximum: np.ndarray


def leaves_of(observation_spec: Nest) -> Nest:
    """Returns what `SoundnessCheck` takes, for a nest of bounded specs."""

    def leaf(spec: Any) -> Leaf:
        low, high = np.asarray(spec.minimum), np.asarray(spec.maximum)
        return Leaf(np.dtype(spec.dtype.as_numpy_dtype), tuple(spec.shape.as_list()), low, high)

    return array_nests.map_structure(leaf, observation_spec)


class SoundnessCheck:
    """Checks the time steps of B environments; what is sound costs a microsecond or so."""

    def __init__(self, observation: Nest, num_environments: int) -> None:
        """Takes the leaves of a single observation, see `leaves_of`."""
        leaves = array_nests.with_paths({"observation": observation})
        self._names = [name for name, _ in leaves]
        self._specs = [spec for _, spec in leaves]
        self._flatten = array_nests.flattener(observation)
        tests = [_quick_test(spec, num_environments) for spec in self._specs]
        self._tests = [(index, test) for index, test in enumerate(tests) if test]
        self._reward_test = _finite_test(num_environments)
        self._only_test = tests[0] if self._names == ["observation"] else None

    def __call__(self, time_step: ts.TimeStep) -> bool:
        """Returns whether all is sound; False may be a false alarm."""
        if not self._reward_test(time_step.reward):
            return False
        if self._only_test is not None:
            return self._only_test(time_step.observation)
        leaves = self._flatten(time_step.observation) if self._tests else ()
        return all(test(leaves[index]) for index, test in self._tests)

    def faults(self, time_step: ts.TimeStep) -> dict[int, Fault]:
        """Returns the faults of the environments whose reward or observation is not sound, by row."""
        found: dict[int, Fault] = {}
        leaves = [time_step.reward, *self._flatten(time_step.observation)]
        for name, spec, leaf in zip(["reward", *self._names], [None, *self._specs], leaves, strict=True):
            for row in np.flatnonzero(_bad_rows(spec, leaf)):
                found.setdefault(int(row), Fault(f"gave an invalid {name}, {_bad_value(spec, leaf[row])}", leaf=name))
        return found


def _finite_test(size: int) -> Callable[[np.ndarray], bool]:
    small, isfinite = np.full(size, _SMALL, np.float32), math.isfinite
    return lambda leaf: isfinite(leaf.reshape(-1).dot(small))


def _quick_test(spec: Leaf, num_environments: int) -> Callable[[np.ndarray], bool] | None:
    """Returns a test of a whole batch; None for a leaf that cannot be unsound."""
    if spec.dtype.kind == "f":
        return _finite_test(num_environments * int(np.prod(spec.shape)))
    low, high = spec.minimum, spec.maximum
    if not np.prod(spec.shape) or _is_whole_range(spec, low, high):
        return None
    if low.ndim == high.ndim == 0:
        least, most = low.item(), high.item()
        return lambda leaf: leaf.min() >= least and leaf.max() <= most
    return lambda leaf: bool(((leaf >= low) & (leaf <= high)).all())


def _is_whole_range(spec: Leaf, low: np.ndarray, high: np.ndarray) -> bool:
    limits = np.iinfo(spec.dtype)
    return bool((low == limits.min).all() and (high == limits.max).all())


def _bad_rows(spec: Leaf, leaf: np.ndarray) -> np.ndarray:
    """Returns a bool for each of the rows [B, ...]."""
    if leaf.dtype.kind == "f":
        bad = ~np.isfinite(leaf)
    else:
        low, high = spec.minimum, spec.maximum
        bad = (leaf < low) | (leaf > high)
    return bad.reshape(len(leaf), -1).any(axis=1)


def _bad_value(spec: Leaf, value: np.ndarray) -> str:
    """Names one of the values of a single environment's leaf that are not sound."""
    if value.dtype.kind == "f":
        return f"{value[~np.isfinite(value)].flat[0]}, expected finite numbers"
    low, high = spec.minimum, spec.maximum
    wrong = value[(value < low) | (value > high)].flat[0]
    return f"{wrong}, expected whole numbers from {low.min()} to {high.max()}"


def check_rollout(rows: Any) -> None:
    """Checks the rewards and observations of a `Trajectory` [B, T, ...], arrays or eager tensors; () has none.

    Raises:
        EnvironmentFaultError: A number is not finite; the step is that of the rollout.
    """
    if not rows:
        return
    for name, leaf in array_nests.with_paths({"observation": rows.observation, "reward": rows.reward}):
        array = np.asarray(leaf)
        if array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        environment, step = (int(index) for index in np.argwhere(~np.isfinite(array))[0][:2])
        value = array[environment, step][~np.isfinite(array[environment, step])].flat[0]
        raise EnvironmentFaultError(
            f"environment {environment} gave an invalid {name}, {value}, expected finite numbers, in step {step} of "
            "the rollout.", environment, step, name,
        )  # fmt: skip
