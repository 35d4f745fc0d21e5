"""Environments stepped one after the other in this process: gymnasium's SyncVectorEnv without what nobody reads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from ppo_agent.common.types import Nest

from ..faults.faults import FAULTS, Fault, raised
from ..faults.soundness import InvalidObservationError, write_row
from .autoreset import StepResult

_logger = logging.getLogger(__name__)


class Restart(NamedTuple):
    """How an environment is put right.

    Attributes:
        makes_anew: closes it and makes another one; else it is only reset.
        seed: of the reset.
    """

    makes_anew: bool
    seed: int | None


class SerialVectorEnv(SyncVectorEnv):
    """`SyncVectorEnv` with next-step autoreset that drops the environments' infos.

    2,048 steps of a HalfCheetah under a policy took 174 and 180 ms instead of 194 and 199 ms, in turns. Observations
    are written to the same memory in every step.

    An environment that raises an error, or whose observation has a wrong shape or dtype, does not stop the others: the
    infos tell of it (`failures.FAULTS`), its row means nothing, and it has to be restarted before the next step.

    Attributes:
        observations: the memory that observations are written to, a nest of arrays [B, ...].
    """

    def __init__(
        self,
        makes: Sequence[Callable[[], gym.Env]],
        first: gym.Env | None = None,
        *,
        observations: Nest = None,
        at: np.ndarray | None = None,
    ) -> None:
        """Makes the environments; their spaces must be equal.

        Args:
            makes: Make one each.
            first: Stands in for what the first of `makes` would make.
            observations: Memory for the observations.
            at: Where to write which environment is being stepped or reset, int64 [1]; None for nowhere.
        """
        super().__init__(makes if first is None else [lambda: first, *makes[1:]], copy=False)
        self._makes, self._at = makes, at
        self._ended = np.zeros(self.num_envs, bool)
        if observations is None:
            observations = create_empty_array(self.single_observation_space, n=self.num_envs)
        self.observations = observations
        # Views, of numbers too.
        is_leaf = _is_leaf(self.single_observation_space)
        self._rows = [self.observations[i, ...] for i in range(self.num_envs)] if is_leaf else None
        self._acts_in_rows = _is_leaf(self.single_action_space)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Nest, dict[str, Any]]:
        """Starts a new episode in all of them; environment i is given the seed `seed + i`."""
        seeds = seed if isinstance(seed, list) else [None if seed is None else seed + i for i in range(self.num_envs)]
        self._ended = np.zeros(self.num_envs, bool)
        observations, faults = [], {}
        for i, (env, s) in enumerate(zip(self.envs, seeds, strict=True)):
            if self._at is not None:
                self._at[0] = i
            try:
                observation, _ = env.reset(seed=s, options=options)
            except Exception as error:
                observation, faults[i] = None, _fault_of(error)
            observations.append(observation)
        return self._gather(observations, faults), _infos(faults)

    def step(self, actions: Nest) -> StepResult:
        """Steps all of them; those whose episode has ended are reset and ignore their action."""
        size, at = self.num_envs, self._at
        rewards, terminated, truncated = np.zeros(size), np.zeros(size, bool), np.zeros(size, bool)
        observations: list[Nest] = []
        faults: dict[int, Fault] = {}
        rows = actions if self._acts_in_rows else iterate(self.action_space, actions)
        for i, (env, ended, action) in enumerate(zip(self.envs, self._ended.tolist(), rows, strict=True)):
            if at is not None:
                at[0] = i
            try:
                if ended:
                    observation, _ = env.reset()
                else:
                    observation, rewards[i], terminated[i], truncated[i], _ = env.step(action)
            except Exception as error:
                observation, faults[i] = None, _fault_of(error)
            observations.append(observation)
        self._ended = terminated | truncated
        return self._gather(observations, faults), rewards, terminated, truncated, _infos(faults)

    def restart(self, restarts: Mapping[int, Restart]) -> dict[int, Fault]:
        """Starts a new episode in some of them, whose observations are then in `observations`.

        Args:
            restarts: What to do, by index.

        Returns:
            The faults of those that failed again.
        """
        found = {index: self._restart(index, *restart) for index, restart in restarts.items()}
        return {index: fault for index, fault in found.items() if fault}

    def close_extras(self, **_: Any) -> None:
        """Closes all of them, whatever one of them raises."""
        for index in range(self.num_envs):
            close_quietly(self.envs[index])

    def _restart(self, index: int, makes_anew: bool, seed: int | None) -> Fault | None:
        self._ended[index] = False
        if self._at is not None:
            self._at[0] = index
        try:
            if makes_anew:
                close_quietly(self.envs[index])
                self.envs[index] = self._makes[index]()
            observation, _ = self.envs[index].reset(seed=seed)
        except Exception as error:
            return _fault_of(error)
        return self._write(index, observation)

    def _gather(self, observations: list[Nest], faults: dict[int, Fault]) -> Nest:
        """Returns the observations of all environments in one nest of arrays [B, ...]; may add to the faults."""
        if not faults and self._gather_sound(observations):
            return self.observations
        for index, observation in enumerate(observations):
            if index not in faults and (fault := self._write(index, observation)):
                faults[index] = fault
        return self.observations

    def _gather_sound(self, observations: list[Nest]) -> bool:
        """Writes all observations at once; False if that fails: one by one, they tell which one it is."""
        try:
            if self._rows is None:
                concatenate(self.single_observation_space, observations, self.observations)
            elif self._shape_differs(observations):
                return False
            else:
                for row, observation in zip(self._rows, observations, strict=True):
                    np.copyto(row, observation, casting="same_kind")
        except Exception:
            return False
        return True

    def _write(self, index: int, observation: Nest) -> Fault | None:
        try:
            write_row(self.single_observation_space, self.observations, index, observation)
        except InvalidObservationError as error:
            return error.fault
        return None

    def _shape_differs(self, observations: list[np.ndarray]) -> bool:
        """Whether copying would broadcast."""
        shape = self.single_observation_space.shape
        return any(np.shape(observation) != shape for observation in observations)


def close_quietly(env: gym.Env) -> None:
    """Closes an environment that nobody needs any more, whatever it raises."""
    try:
        env.close()
    except Exception as error:
        _logger.warning("an environment raised %r when it was closed.", error)


def _fault_of(error: Exception) -> Fault:
    """What an environment raised, or, if this file raised it, that the environment returned something strange."""
    trace = error.__traceback__
    if trace is None or trace.tb_next is not None:
        return raised(error)
    return Fault(f"returned something of a wrong form ({error})", leaf="", error=error)


def _infos(faults: dict[int, Fault]) -> dict[str, Any]:
    return {FAULTS: faults} if faults else {}


def _is_leaf(space: gym.Space) -> bool:
    """Whether a batch of the space is an array with a row for each environment."""
    return isinstance(space, (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary))
