"""Groups of gymnasium environments that are stepped together, with their time steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ppo_agent.common.types import Array, Nest

from ..faults.faults import FAULTS, EnvironmentFaultError, Fault
from ..faults.leaf_checks import InvalidLeafError
from ..faults.recovery import Recovery
from ..faults.soundness import SoundnessCheck
from ..vector_envs.autoreset import LOST, StepResult
from ..vector_envs.serial import Restart
from .episode_infos import EpisodeInfos
from .vector_results import check_result

if TYPE_CHECKING:
    from tf_agents.trajectories import time_step as ts

# TF-Agents' step types.
_FIRST, _MID, _LAST = (np.int32(x) for x in (0, 1, 2))


class GymnasiumGroup:
    """Turns what a vector environment returns into `TimeStep`s of arrays [B, ...]; an `EnvironmentGroup`.

    Environments that fail are restarted, as far as the `Recovery` tolerates it: the time step after that is a new
    episode's first, whatever the one before it was, so that the episode that was given up shows in the step types.

    Where there are several groups, each in processes of its own, one is stepped (`send`, `receive`) while the policy
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
        is_sound: SoundnessCheck,
        recovery: Recovery,
        episode_infos: EpisodeInfos,
        make_time_step: Callable[..., ts.TimeStep],
        first_index: int = 0,
    ) -> None:
        """Takes a vector environment with next-step autoreset; nothing is reset yet.

        Args:
            env: The `VectorEnv` or `SameStepAdapter`.
            num_environments: Its size B.
            decode_observation: From gymnasium's observations to a nest of fresh arrays; raises `InvalidLeafError`.
            encode_action: From a nest of actions to gymnasium's.
            check: Is called with every time step, and raises an error if the policy cannot act on it.
            is_sound: Tells whether a time step may reach a learner.
            recovery: Decides about those that may not, and about environments that fail.
            episode_infos: Takes in what the environments say at an episode's end.
            make_time_step: TF-Agents' `TimeStep`, or another tuple of its fields in a process without TensorFlow.
            first_index: Number of the first environment, for errors.
        """
        self._env = env
        self.num_environments = num_environments
        self._decode_observation, self._encode_action = decode_observation, encode_action
        self._check, self._make_time_step = check, make_time_step
        self._is_sound, self._recovery, self._first_index = is_sound, recovery, first_index
        self._episode_infos = episode_infos
        self._reports_faults = hasattr(env, "restart")
        self._count, self._starts = 0, np.zeros(num_environments, int)
        self.time_step: ts.TimeStep | None = None
        self._any_ended = False
        self._all_mid, self._all_one = np.full(num_environments, _MID), np.ones(num_environments, np.float32)
        for shared in (self._all_mid, self._all_one):
            shared.setflags(write=False)

    def reset(self, seed: int | None) -> ts.TimeStep:
        """Starts a new episode in every environment.

        Raises:
            EnvironmentFaultError: One of them failed, and is not or cannot be restarted.
        """
        self._starts[:] = self._count
        try:
            observation, infos = self._env.reset(seed=seed)
        except (Exception, SystemExit) as error:
            raise self._without_culprit(error) from error
        size = self.num_environments
        self._any_ended = False
        time_step = self._make_time_step(
            np.full(size, _FIRST), np.zeros(size, np.float32), np.ones(size, np.float32), self._decode(observation)
        )
        return self._keep(time_step, infos)

    def step(self, action: Nest) -> ts.TimeStep:
        """Steps every environment; actions are ignored where the current step is an episode's last.

        Raises:
            ValueError: The actions are not of the space's kind.
            EnvironmentFaultError: An environment failed, and is not or cannot be restarted.
        """
        encoded = self._encode_action(action)
        self._count += 1
        try:
            result = self._env.step(encoded)
        except (Exception, SystemExit) as error:
            raise self._without_culprit(error) from error
        return self._next(result)

    def send(self, action: Nest) -> None:
        """Begins to step, which only environments in processes can."""
        encoded = self._encode_action(action)
        self._count += 1
        self._env.step_async(encoded)

    def receive(self) -> ts.TimeStep:
        """Waits for the step that was begun and returns its result; raises as `step` does."""
        return self._next(self._env.step_wait())

    def _without_culprit(self, error: BaseException) -> BaseException:
        """Returns the error of a vector environment; of one that reports no faults, without saying whose it is."""
        if self._reports_faults:
            return error
        return EnvironmentFaultError(
            f"the vector environment raised {type(error).__name__}: {error}, in its step {self._count}.", None, None
        )

    def _decode(self, observation: Any) -> Nest:
        try:
            return self._decode_observation(observation)
        except InvalidLeafError as error:
            text = f"the vector environment {error.fault.text}, in its step {self._count}."
            raise EnvironmentFaultError(text, None, self._count, error.fault.leaf) from error

    def _next(self, result: StepResult) -> ts.TimeStep:
        observation, reward, terminated, truncated, infos = result
        if not self._reports_faults:
            check_result(reward, terminated, truncated, self.num_environments, self._count)
        ended, reward = np.logical_or(terminated, truncated), np.array(reward, np.float32)
        any_ends = bool(np.count_nonzero(ended))
        if any_ends or self._any_ended:
            step_type = np.where(ended, _LAST, _MID)
            discount = np.subtract(1.0, terminated, dtype=np.float32)
            first = cast("ts.TimeStep", self.time_step).step_type == _LAST
            if infos and LOST in infos:
                first |= infos[LOST]
            step_type[first], discount[first], reward[first] = _FIRST, 1.0, 0.0
            self._starts[first] = self._count
            if any_ends and (infos or self._recovery.has_dropped):
                self._note_ends(np.flatnonzero(ended & ~first), infos)
        else:  # The usual step costs little: it shares these arrays.
            step_type, discount = self._all_mid, self._all_one
        self._any_ended = any_ends
        return self._keep(self._make_time_step(step_type, reward, discount, self._decode(observation)), infos)

    def _note_ends(self, rows: Array, infos: Mapping[str, Any]) -> None:
        """Takes note of episodes that ended as they should, by row."""
        if len(rows):
            self._recovery.ended(self._first_index + rows)
            self._episode_infos.add(infos, rows)

    def _keep(self, time_step: ts.TimeStep, infos: Mapping[str, Any]) -> ts.TimeStep:
        """Restarts what has failed, and keeps the time step."""
        faults = infos.get(FAULTS) if infos else None
        if faults or not self._is_sound(time_step):
            time_step = self._mend(time_step, faults or {})
        self.time_step = time_step
        self._check(time_step)
        return time_step

    def _mend(self, time_step: ts.TimeStep, faults: Mapping[int, Fault]) -> ts.TimeStep:
        """Restarts the environments that have failed until none fails any more."""
        step_type, reward, discount = (x.copy() for x in time_step[:3])
        # Where the environment has failed, what it observed means nothing.
        faults = {**self._is_sound.faults(time_step), **faults}
        while faults:
            restarts = {row: self._judge(row, fault) for row, fault in faults.items()}
            failed = self._env.restart(restarts)
            given_up = list(restarts)
            step_type[given_up], reward[given_up], discount[given_up] = _FIRST, 0.0, 1.0
            self._starts[given_up] = self._count
            time_step = self._make_time_step(step_type, reward, discount, self._decode(self._env.observations))
            faults = {**self._is_sound.faults(time_step), **failed}
        return time_step

    def _judge(self, row: int, fault: Fault) -> Restart:
        number = self._first_index + row
        recreates = self._recovery.judge(number, int(self._count - self._starts[row]), fault)
        return Restart(recreates, self._recovery.new_seed(number))
