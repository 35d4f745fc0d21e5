"""Environments in processes, each of which steps a few of them: gymnasium's AsyncVectorEnv over groups.

A message to a process and its answer cost up to 0.4 ms of processor time on a busy machine. As long as environments
compute, as many processes as cores therefore beat one for every environment: for 1,600 steps of 1 ms on 2 cores, 16, 4
and 2 processes took 2.43, 1.95 and 1.86 s of processor time, a single process without messages 1.73 s.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import tensorflow as tf
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ppo_agent.drivers.autoreset import StepResult
from ppo_agent.drivers.serial_env import SerialVectorEnv

Nest = Any

# Fewer environments, or an odd number of them, get a process each and are not halved.
_FEWEST_IN_HALVES = 4


def make_process_env(make: Callable[[], gym.Env], num_environments: int) -> VectorEnv:
    """Starts the processes.

    Args:
        make: Makes one environment.
        num_environments: How many.

    Returns:
        A vector environment with next-step autoreset whose observations are views of shared memory. From four on, an
        even number, its attribute `halves` holds the two vector environments that it consists of.
    """
    if num_environments < _FEWEST_IN_HALVES or num_environments % 2:
        return AsyncVectorEnv([make] * num_environments, shared_memory=True, copy=False)
    half = num_environments // 2
    num_groups = group_count(half, (num_cores() + 1) // 2)
    return HalvedVectorEnv(tuple(GroupedVectorEnv(make, num_groups, half // num_groups) for _ in range(2)))


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def group_count(num_environments: int, most: int) -> int:
    """The number of groups of equal size, at most `most`."""
    return next(count for count in range(min(num_environments, most), 0, -1) if num_environments % count == 0)


class EnvGroup(gym.Env):
    """Several environments that look like a single one with batched spaces; rewards and flags are arrays [k]."""

    def __init__(self, make: Callable[[], gym.Env], size: int) -> None:
        """Makes `size` environments."""
        self._env = SerialVectorEnv([make] * size)
        self.observation_space, self.action_space = self._env.observation_space, self._env.action_space
        self.metadata, self.render_mode = self._env.metadata, self._env.render_mode
        # Of a single environment, for the process that has none of its own.
        self.single_spaces = (self._env.single_observation_space, self._env.single_action_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Nest, dict[str, Any]]:
        """Resets all of them; what they tell beside the observation is dropped, nobody reads it."""
        return self._env.reset(seed=seed, options=options)[0], {}

    def step(self, action: Nest) -> Any:
        """Steps all of them."""
        return (*self._env.step(action)[:4], {})

    def render(self) -> Any:
        """The frames of all of them."""
        return self._env.render()

    def close(self) -> None:
        """Closes all of them."""
        self._env.close()


class GroupedVectorEnv(VectorEnv):
    """`num_groups` processes with `group_size` environments each."""

    def __init__(self, make: Callable[[], gym.Env], num_groups: int, group_size: int) -> None:
        """Starts the processes."""
        # A group resets its environments itself.
        self._env = AsyncVectorEnv(
            [functools.partial(EnvGroup, make, group_size)] * num_groups,
            shared_memory=True,
            copy=False,
            autoreset_mode=AutoresetMode.DISABLED,
        )
        self._num_groups, self._group_size = num_groups, group_size
        self.num_envs = num_groups * group_size
        self.single_observation_space, self.single_action_space = self._env.get_attr("single_spaces")[0]
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = {**self._env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.render_mode, self.autoreset_mode = self._env.render_mode, AutoresetMode.NEXT_STEP

    @property
    def processes(self) -> list[Any]:
        """The processes."""
        return self._env.processes

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Nest, dict[str, Any]]:
        """Resets all environments; environment i is given the seed `seed + i`."""
        starts = range(0, self.num_envs, self._group_size)
        seeds: list[int | None] | None = None if seed is None else [seed + start for start in starts]
        observation, _ = self._env.reset(seed=seeds, options=options)
        return self._ungroup(observation), {}

    def step(self, actions: Nest) -> StepResult:
        """Steps all environments."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Nest) -> None:
        """Begins to step all environments."""
        shape = (self._num_groups, self._group_size)
        self._env.step_async(tf.nest.map_structure(lambda x: np.reshape(x, (*shape, *np.shape(x)[1:])), actions))

    def step_wait(self) -> StepResult:
        """Waits for the result of the step."""
        observation, *others, _ = self._env.step_wait()
        reward, terminated, truncated = (value.reshape(-1) for value in others)
        return self._ungroup(observation), reward, terminated, truncated, {}

    def render(self) -> tuple[Any, ...]:
        """The frames of all environments."""
        return tuple(frame for frames in self._env.render() or () for frame in frames)

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the processes, whatever they are doing."""
        try:
            self._env.close(**kwargs)
        except Exception:  # It waits for a step that was begun, which may fail as the one before did.
            self._env.close(terminate=True)

    def _ungroup(self, nest: Nest) -> Nest:
        """[groups, size, ...] -> [B, ...]."""
        return tf.nest.map_structure(lambda x: x.reshape(self.num_envs, *x.shape[2:]), nest)


class HalvedVectorEnv(VectorEnv):
    """Two vector environments of one kind and size as one; each half can be stepped while the other one waits.

    Attributes:
        halves: The two, in the order of the rows.
    """

    def __init__(self, halves: tuple[GroupedVectorEnv, ...]) -> None:
        """Takes the two; they are closed with this object."""
        self.halves = halves
        first = halves[0]
        self.num_envs = sum(half.num_envs for half in halves)
        self.single_observation_space = first.single_observation_space
        self.single_action_space = first.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata, self.render_mode, self.autoreset_mode = first.metadata, first.render_mode, first.autoreset_mode

    @property
    def processes(self) -> list[Any]:
        """The processes of both halves."""
        return [process for half in self.halves for process in half.processes]

    def render(self) -> tuple[Any, ...]:
        """The frames of all environments."""
        return tuple(frame for half in self.halves for frame in half.render())

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the processes."""
        for half in self.halves:
            half.close(**kwargs)
