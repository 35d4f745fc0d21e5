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

_LAST = int(ts.StepType.LAST)


class NumpyPolicy(Protocol):
    """A policy that takes and returns NumPy arrays."""

    def refresh(self) -> None:
        """Takes over the current variables of the TensorFlow policy."""

    def initial_state(self, batch_size: int) -> Nest:
        """Returns the policy state before the first step, a nest of arrays [batch_size, ...]; () for none."""

    def act(self, time_step: ts.TimeStep, state: Nest) -> tuple[Nest, Nest, Nest]:
        """Returns fresh arrays (action, policy info, next policy state).

        Args:
            time_step: Arrays [B, ...]; at FIRST the policy forgets what came before.
            state: The policy state before the step.
        """


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
        next_step_type, discount = _append_like(next_step_type, int(ts.StepType.FIRST)), _append_like(discount, 1.0)
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
