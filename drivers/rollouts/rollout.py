"""Rollouts: policy and environment stepped together, as stacks over time.

Three loops make them: `python_loop`, `graph_loop` and `compiled_loop`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from ppo_agent.common.types import Nest

_FIRST, _LAST = int(ts.StepType.FIRST), int(ts.StepType.LAST)


class NumpyEnvironment(Protocol):
    """An environment that can be stepped with NumPy arrays."""

    @property
    def batch_size(self) -> int:
        """The number of environments B."""

    def step_numpy(self, action: Nest) -> ts.TimeStep:
        """Returns the next `TimeStep` of fresh arrays [B, ...]."""


class EnvironmentGroup(Protocol):
    """Environments that are stepped together, while the policy acts for other groups.

    Attributes:
        num_environments: b.
    """

    num_environments: int

    def send(self, action: Nest) -> None:
        """Begins to step, with actions [b, ...]."""

    def receive(self) -> ts.TimeStep:
        """Waits for the step that was begun and returns fresh arrays [b, ...]."""


class Rollout(NamedTuple):
    """T steps of B environments, arrays or tensors.

    Attributes:
        time_steps: `TimeStep` [B, T + 1, ...], the last one that after the last step.
        action: Nest [B, T, ...]; None in a NumPy rollout of no steps.
        policy_info: Nest [B, T, ...].
        policy_state: Nest [B, T, ...], the policy's state after each action; () in a NumPy rollout of no steps.
    """

    time_steps: ts.TimeStep
    action: Nest
    policy_info: Nest
    policy_state: Nest


class StopRule(NamedTuple):
    """When a rollout ends.

    Attributes:
        target: It ends when this many rows were counted, over the whole batch,
        maximum_iterations: or when this many vector steps were taken. Both are numbers or scalar tensors.
        counts_boundaries: Rows that go from an episode's last step to the next one's first are counted if true, all
            other rows if false.
    """

    target: Any
    maximum_iterations: Any
    counts_boundaries: bool

    def count(self, step_type: np.ndarray) -> int:
        """Returns how many of the rows [B] that start at these steps are counted."""
        boundaries = int(np.count_nonzero(step_type == _LAST))
        return boundaries if self.counts_boundaries else len(step_type) - boundaries


def drop_abandoned(rollout: Rollout) -> Rollout:
    """Marks the rows of episodes that were given up, so that nobody learns from them or counts them.

    An episode was given up where a first step follows on one that is not the last: its environment was restarted. A
    rollout is a rectangle, so the rows stay; they look like padding (step type and next step type FIRST, reward 0,
    discount 1), which learners mask and `EpisodeStatistics` does not count. Rows of the same episode in earlier
    rollouts have been given away already.

    Args:
        rollout: T >= 1 steps of B environments, arrays, whose step types, rewards and discounts may be written to.

    Returns:
        The same rollout.
    """
    step_type = rollout.time_steps.step_type
    given_up = (step_type[:, 1:] == _FIRST) & (step_type[:, :-1] != _LAST)
    if not given_up.any():
        return rollout
    dropped = np.zeros(given_up.shape, bool)
    for row, end in zip(*np.nonzero(given_up), strict=True):
        starts = np.flatnonzero(step_type[row, : end + 1] == _FIRST)
        dropped[row, starts[-1] if len(starts) else 0 : end + 1] = True
    step_type[:, :-1][dropped] = _FIRST
    for values, number in ((rollout.time_steps.reward, 0.0), (rollout.time_steps.discount, 1.0)):
        values[:, 1:][dropped] = number
    return rollout


def is_nothing_but_dropped(rollout: Rollout) -> bool:
    """Whether `drop_abandoned` left no step: all rows were dropped, or lead from an episode's end to the next one."""
    before, after = rollout.time_steps.step_type[:, :-1], rollout.time_steps.step_type[:, 1:]
    return bool(np.any((before == _FIRST) & (after == _FIRST)) and not np.any((before != _LAST) & (after != _FIRST)))


def to_trajectory(rollout: Rollout, bootstrap_row: bool) -> trajectory.Trajectory:
    """Returns the rollout as rows.

    Args:
        rollout: T >= 1 steps, arrays or tensors.
        bootstrap_row: Whether to add a row that holds the time step after the last action. Its next step type is
            FIRST, its reward 0, its discount 1; action and policy info are those of the row before. No learner takes
            it for a transition.

    Returns:
        `Trajectory` [B, T, ...], or [B, T + 1, ...] with the bootstrap row.
    """
    steps, action, info = rollout.time_steps, rollout.action, rollout.policy_info
    observation, step_type = steps.observation, steps.step_type
    next_step_type, reward, discount = tf.nest.map_structure(
        lambda x: x[:, 1:], (steps.step_type, steps.reward, steps.discount)
    )
    if bootstrap_row:
        next_step_type, discount = _append_like(next_step_type, _FIRST), _append_like(discount, 1.0)
        reward = tf.nest.map_structure(lambda x: _append_like(x, 0.0), reward)
        action, info = tf.nest.map_structure(lambda x: _concat([x, x[:, -1:]]), (action, info))
    else:
        observation, step_type = tf.nest.map_structure(lambda x: x[:, :-1], (observation, step_type))
    return trajectory.Trajectory(step_type, observation, action, info, next_step_type, reward, discount)


def _append_like(values: Any, number: float) -> Any:
    """Returns [B, T + 1, ...] with `number` in the last row."""
    last = values[:, -1:]
    if isinstance(last, np.ndarray):
        return _concat([values, np.full_like(last, number)])
    return _concat([values, tf.zeros_like(last) + tf.cast(number, last.dtype)])


def _concat(parts: list[Any]) -> Any:
    return np.concatenate(parts, axis=1) if isinstance(parts[0], np.ndarray) else tf.concat(parts, axis=1)
