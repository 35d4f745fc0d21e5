"""Groups of gymnasium environments that are stepped together, with their time steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from tf_agents.trajectories import time_step as ts

from ppo_agent.drivers.autoreset import StepResult

Nest = Any

_FIRST, _MID, _LAST = (np.int32(x) for x in (ts.StepType.FIRST, ts.StepType.MID, ts.StepType.LAST))


class Lane:
    """Turns what a vector environment returns into `TimeStep`s of arrays [B, ...].

    Where there are several lanes, each in processes of its own, one is stepped (`send`, `receive`) while the policy
    acts for another.

    Attributes:
        num_environments: B.
        time_step: The latest one; None before the first reset.
    """

    def __init__(
        self,
        env: Any,
        num_environments: int,
        decode_observation: Callable[[Any], Nest],
        encode_action: Callable[[Nest], Any],
        check: Callable[[ts.TimeStep], None],
    ) -> None:
        """Takes a vector environment with next-step autoreset; nothing is reset yet.

        Args:
            env: The `VectorEnv` or `SameStepAdapter`.
            num_environments: Its size B.
            decode_observation: From gymnasium's observations to a nest of fresh arrays.
            encode_action: From a nest of actions to gymnasium's.
            check: Is called with every time step, and raises an error if it is of no use.
        """
        self._env = env
        self.num_environments = num_environments
        self._decode_observation, self._encode_action = decode_observation, encode_action
        self._check = check
        self.time_step: ts.TimeStep | None = None
        self._any_ended = False
        self._all_mid, self._all_one = np.full(num_environments, _MID), np.ones(num_environments, np.float32)
        for shared in (self._all_mid, self._all_one):
            shared.setflags(write=False)

    def reset(self, seed: int | None) -> ts.TimeStep:
        """Starts a new episode in every environment."""
        observation, _ = self._env.reset(seed=seed)
        size = self.num_environments
        self._any_ended = False
        self.time_step = ts.TimeStep(
            np.full(size, _FIRST), np.zeros(size, np.float32), np.ones(size, np.float32),
            self._decode_observation(observation),
        )  # fmt: skip
        self._check(self.time_step)
        return self.time_step

    def step(self, action: Nest) -> ts.TimeStep:
        """Steps every environment; actions are ignored where the current step is an episode's last."""
        return self._next(self._env.step(self._encode_action(action)))

    def send(self, action: Nest) -> None:
        """Begins to step, which only an `AsyncVectorEnv` can."""
        self._env.step_async(self._encode_action(action))

    def receive(self) -> ts.TimeStep:
        """Waits for the step that was begun and returns its result."""
        return self._next(self._env.step_wait())

    def _next(self, result: StepResult) -> ts.TimeStep:
        observation, reward, terminated, truncated, _ = result
        ended, reward = np.logical_or(terminated, truncated), np.array(reward, np.float32)
        any_ends = bool(np.count_nonzero(ended))
        if any_ends or self._any_ended:
            step_type = np.where(ended, _LAST, _MID)
            discount = np.subtract(1.0, terminated, dtype=np.float32)
            first = cast("ts.TimeStep", self.time_step).step_type == _LAST
            step_type[first], discount[first], reward[first] = _FIRST, 1.0, 0.0
        else:  # The usual step costs little: it shares these arrays.
            step_type, discount = self._all_mid, self._all_one
        self._any_ended = any_ends
        self.time_step = ts.TimeStep(step_type, reward, discount, self._decode_observation(observation))
        self._check(self.time_step)
        return self.time_step
