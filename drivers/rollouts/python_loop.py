"""Rollouts stepped in Python: while one group of environments steps, the policy acts for another.

Overlapping two groups is PufferLib's idea (https://arxiv.org/abs/2406.12905). An environment without groups is one
group. The rows do not depend on the number of groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import array_nests
from ppo_agent.common.types import Nest

from ..array_policies.array_policy import ArrayPolicy
from .columns import Columns
from .rollout import EnvironmentGroup, NumpyEnvironment, Rollout, StopRule


def groups_of(env: NumpyEnvironment) -> Sequence[EnvironmentGroup]:
    """Returns the groups of an environment that has several; any other one is a single group."""
    groups = getattr(env, "groups", ())
    return groups if len(groups) > 1 else (_WholeEnvironment(env),)


def collect_in_python(
    groups: Sequence[EnvironmentGroup], policy: ArrayPolicy, time_step: ts.TimeStep, policy_state: Nest, stop: StopRule
) -> tuple[Rollout, ts.TimeStep, Nest]:
    """Steps groups of environments in Python, each from its current state.

    Args:
        groups: The groups, in the order of their rows.
        policy: Policy; not refreshed here.
        time_step: Current time step of all groups, arrays [B, ...].
        policy_state: The policy's state there, arrays [B, ...].
        stop: When to stop, after a whole row of all groups.

    Returns:
        The rollout of T >= 0 steps, the time step after it, and the policy state after it.
    """
    if min(stop.target, stop.maximum_iterations) < 1:
        start = tf.nest.map_structure(lambda x: x[:, np.newaxis], time_step)
        return Rollout(start, None, None, ()), time_step, policy_state
    recorders = _recorders(groups, policy, time_step, policy_state, stop)
    rows = counted = 0
    while counted < stop.target and rows < stop.maximum_iterations:
        for recorder in recorders:
            counted += recorder.step()
        rows += 1
    for recorder in recorders:
        recorder.receive()
    parts = [(recorder.rollout(), recorder.time_step, recorder.policy_state) for recorder in recorders]
    return array_nests.concatenate(parts)


class _Recorder:
    """The rollout of one group, row by row."""

    def __init__(
        self, group: EnvironmentGroup, policy: ArrayPolicy, time_step: ts.TimeStep, policy_state: Nest, stop: StopRule
    ) -> None:
        self._group, self._policy, self._stop = group, policy, stop
        self.time_step, self.policy_state = time_step, policy_state
        self._step_type, self._count = time_step.step_type, stop.count(time_step.step_type)
        self._time_steps, self._taken = Columns(), Columns()
        self._time_steps.append(time_step)
        self._is_stepping = False

    def step(self) -> int:
        """Waits for the step before, acts and begins the next step; returns how many rows the stop rule counts."""
        self.receive()
        action, info, self.policy_state = self._policy.act(self.time_step, self.policy_state)
        self._group.send(action)
        self._is_stepping = True
        self._taken.append((action, info, self.policy_state))
        if self.time_step.step_type is not self._step_type:  # Usual steps share one array.
            self._step_type = self.time_step.step_type
            self._count = self._stop.count(self._step_type)
        return self._count

    def receive(self) -> None:
        """Waits for the step, if one was begun."""
        if self._is_stepping:
            self._is_stepping = False
            self.time_step = self._group.receive()
            self._time_steps.append(self.time_step)

    def rollout(self) -> Rollout:
        """Returns the rows of this group, [b, T, ...]."""
        return Rollout(self._time_steps.stack(), *self._taken.stack())


def _recorders(
    groups: Sequence[EnvironmentGroup], policy: ArrayPolicy, time_step: ts.TimeStep, policy_state: Nest, stop: StopRule
) -> list[_Recorder]:
    recorders, start = [], 0
    for group in groups:
        rows = slice(start, start + group.num_environments)
        step, state = tf.nest.map_structure(lambda x, rows=rows: x[rows], (time_step, policy_state))
        recorders.append(_Recorder(group, policy, step, state, stop))
        start = rows.stop
    return recorders


class _WholeEnvironment:
    """An environment as a single group, which is stepped when its step is waited for."""

    def __init__(self, env: NumpyEnvironment) -> None:
        self._env, self._action = env, None
        self.num_environments = env.batch_size

    def send(self, action: Nest) -> None:
        self._action = action

    def receive(self) -> ts.TimeStep:
        return self._env.step_numpy(self._action)
