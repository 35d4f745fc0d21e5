"""Finds what may not reach a learner: numbers that are not finite, and categories outside their space."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import nest_utils

from ppo_agent.common import array_nests
from ppo_agent.common.types import Nest

from .faults import EnvironmentFaultError, Fault

# Times any finite float32, and summed up, it stays finite.
_SMALL = 1e-10


class SoundnessCheck:
    """Checks the time steps of B environments; what is sound costs a microsecond or so."""

    def __init__(self, observation_spec: Nest, num_environments: int) -> None:
        """Takes the spec of a single observation."""
        leaves = nest_utils.flatten_with_joined_paths({"observation": observation_spec})
        self._names = [name for name, _ in leaves]
        self._specs = [spec for _, spec in leaves]
        self._flatten = array_nests.flattener(observation_spec)
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


def _quick_test(spec: Any, num_environments: int) -> Callable[[np.ndarray], bool] | None:
    """Returns a test of a whole batch; None for a leaf that cannot be unsound."""
    if spec.dtype.is_floating:
        return _finite_test(num_environments * int(np.prod(spec.shape)))
    low, high = _bounds(spec)
    if not spec.shape.num_elements() or _is_whole_range(spec, low, high):
        return None
    if low.ndim == high.ndim == 0:
        least, most = low.item(), high.item()
        return lambda leaf: leaf.min() >= least and leaf.max() <= most
    return lambda leaf: bool(((leaf >= low) & (leaf <= high)).all())


def _bounds(spec: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(spec.minimum), np.asarray(spec.maximum)


def _is_whole_range(spec: Any, low: np.ndarray, high: np.ndarray) -> bool:
    limits = np.iinfo(spec.dtype.as_numpy_dtype)
    return bool((low == limits.min).all() and (high == limits.max).all())


def _bad_rows(spec: Any, leaf: np.ndarray) -> np.ndarray:
    """Returns a bool for each of the rows [B, ...]."""
    if leaf.dtype.kind == "f":
        bad = ~np.isfinite(leaf)
    else:
        low, high = _bounds(spec)
        bad = (leaf < low) | (leaf > high)
    return bad.reshape(len(leaf), -1).any(axis=1)


def _bad_value(spec: Any, value: np.ndarray) -> str:
    """Names one of the values of a single environment's leaf that are not sound."""
    if value.dtype.kind == "f":
        return f"{value[~np.isfinite(value)].flat[0]}, expected finite numbers"
    low, high = _bounds(spec)
    wrong = value[(value < low) | (value > high)].flat[0]
    return f"{wrong}, expected whole numbers from {low.min()} to {high.max()}"


def check_rollout(rows: Any) -> None:
    """Checks the rewards and observations of a `Trajectory` [B, T, ...], arrays or eager tensors; () has none.

    Raises:
        EnvironmentFaultError: A number is not finite; the step is that of the rollout.
    """
    if not rows:
        return
    for name, leaf in nest_utils.flatten_with_joined_paths({"observation": rows.observation, "reward": rows.reward}):
        array = np.asarray(leaf)
        if array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        environment, step = (int(index) for index in np.argwhere(~np.isfinite(array))[0][:2])
        value = array[environment, step][~np.isfinite(array[environment, step])].flat[0]
        raise EnvironmentFaultError(
            f"environment {environment} gave an invalid {name}, {value}, expected finite numbers, in step {step} of "
            "the rollout.", environment, step, name,
        )  # fmt: skip
