"""Rollouts that never leave all environments waiting: one half of them steps while the policy acts for the other.

The idea is PufferLib's (https://arxiv.org/abs/2406.12905). The rows are those that a rollout of all environments
together gives for the same actions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from ppo_agent.common.types import Nest

from ..environments.lanes import Lane
from .columns import Columns
from .rollout import NumpyPolicy, Rollout, StopRule


class _Recorder:
    """What happens in one lane, row by row."""

    def __init__(self, lane: Lane, policy: NumpyPolicy, time_step: ts.TimeStep, policy_state: Nest) -> None:
        self._lane, self._policy = lane, policy
        self.time_step, self.policy_state = time_step, policy_state
        self._time_steps, self._taken = Columns(), Columns()
        self._time_steps.append(time_step)
        self._is_stepping = False

    def send(self) -> None:
        """Acts and lets the environments begin to step."""
        action, info, self.policy_state = self._policy.act(self.time_step, self.policy_state)
        self._lane.send(action)
        self._is_stepping = True
        self._taken.append((action, info, self.policy_state))

    def receive(self) -> None:
        """Waits for the step, if one was begun."""
        if self._is_stepping:
            self._is_stepping = False
            self.time_step = self._lane.receive()
            self._time_steps.append(self.time_step)

    def rollout(self) -> Rollout:
        """Rows of this lane, [b, T, ...]."""
        return Rollout(self._time_steps.stack(), *self._taken.stack())


def collect_in_lanes(
    lanes: Sequence[Lane], policy: NumpyPolicy, time_step: ts.TimeStep, policy_state: Nest, stop: StopRule
) -> tuple[Rollout, ts.TimeStep, Nest]:
    """As `rollout.collect_numpy`, for an environment of several lanes.

    Args:
        lanes: Of the environment, in the order of its rows.
        policy: Policy; not refreshed here.
        time_step: The environment's current one, arrays [B, ...].
        policy_state: The policy's state there, arrays [B, ...].
        stop: When to stop, after a whole row of all lanes.

    Returns:
        The rollout of T >= 0 steps, the time step after it, and the policy state after it.
    """
    if min(stop.target, stop.maximum_iterations) < 1:
        start = tf.nest.map_structure(lambda x: x[:, np.newaxis], time_step)
        return Rollout(start, None, None, ()), time_step, policy_state
    recorders = _recorders(lanes, policy, time_step, policy_state)
    rows = counted = 0
    while counted < stop.target and rows < stop.maximum_iterations:
        for recorder in recorders:
            recorder.receive()
            counted += stop.count(recorder.time_step.step_type)
            recorder.send()
        rows += 1
    for recorder in recorders:
        recorder.receive()
    rollout = join([recorder.rollout() for recorder in recorders])
    return (
        rollout,
        join([recorder.time_step for recorder in recorders]),
        join([recorder.policy_state for recorder in recorders]),
    )


def join(nests: list[Nest]) -> Nest:
    """Puts nests of arrays [b, ...] together, one under the other."""
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *nests)


def _recorders(
    lanes: Sequence[Lane], policy: NumpyPolicy, time_step: ts.TimeStep, policy_state: Nest
) -> list[_Recorder]:
    recorders, start = [], 0
    for lane in lanes:
        rows = slice(start, start + lane.num_environments)
        own = tf.nest.map_structure(lambda x, rows=rows: x[rows], (time_step, policy_state))
        recorders.append(_Recorder(lane, policy, *own))
        start = rows.stop
    return recorders
