"""Environments in processes, each of which steps a few of them.

A message to a process and its answer cost up to 0.4 ms of processor time on a busy machine. As long as environments
compute, as many processes as cores therefore beat one for every environment: for 1,600 steps of 1 ms on 2 cores, 16, 4
and 2 processes took 2.43, 1.95 and 1.86 s of processor time, a single process without messages 1.73 s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from ppo_agent.common import array_nests
from ppo_agent.common.types import Nest

from ..faults.faults import EPISODES, FAULTS, Fault
from .autoreset import StepResult, take_spaces
from .serial import Restart, close_quietly
from .worker import LostWorkerError, SharedArrays, Worker, close_all

# Fewer environments, or an odd number of them, get a process each and are not halved.
_FEWEST_IN_HALVES = 4


def make_process_env(
    make: Callable[[], gym.Env], num_environments: int, step_time_limit_s: float | None = None
) -> VectorEnv:
    """Starts the processes; one that needs longer than the limit for a step or a reset is killed, None for never.

    Returns:
        A vector environment with next-step autoreset whose observations are views of shared memory. From four on, an
        even number, its attribute `halves` holds the two vector environments that it consists of.
    """
    if num_environments < _FEWEST_IN_HALVES or num_environments % 2:
        return GroupedVectorEnv(make, num_environments, 1, step_time_limit_s)
    half = num_environments // 2
    num_groups = group_count(half, (num_cores() + 1) // 2)
    return HalvedVectorEnv(
        tuple(GroupedVectorEnv(make, num_groups, half // num_groups, step_time_limit_s) for _ in range(2))
    )


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def group_count(num_environments: int, most: int) -> int:
    """The number of groups of equal size, at most `most`."""
    return next(count for count in range(min(num_environments, most), 0, -1) if num_environments % count == 0)


class GroupedVectorEnv(VectorEnv):
    """`num_groups` processes with `group_size` environments each, with next-step autoreset.

    Faults are reported as by `SerialVectorEnv`. A process that does not answer in time, or has died, is a fault of
    the environment that it was stepping and of those that are lost with it; `restart` starts another one.

    Attributes:
        observations: The memory that observations are written to, a nest of arrays [B, ...].
    """

    def __init__(
        self, make: Callable[[], gym.Env], num_groups: int, group_size: int, step_time_limit_s: float | None = None
    ) -> None:
        """Starts the processes."""
        self._workers: list[Worker] = []
        self._owner = os.getpid()
        self._make, self._group_size, self._limit = make, group_size, step_time_limit_s
        self._take_over_spaces(make(), num_groups * group_size)
        self._shared = SharedArrays.create(self.single_observation_space, self.num_envs)
        self.observations, self._rewards, self._flags = self._shared.arrays()
        self._workers = [self._start(first) for first in range(0, self.num_envs, group_size)]
        for worker in self._workers:
            error = worker.wait_until_ready()
            if error is not None:
                self.close()
                raise error

    def _take_over_spaces(self, env: gym.Env, size: int) -> None:
        if not isinstance(env, gym.Env):
            raise TypeError(f"the callable given as env_name returned {env!r}, expected a gymnasium.Env.")
        take_spaces(self, size, env.observation_space, env.action_space, env)
        close_quietly(env)

    def _start(self, first: int) -> Worker:
        return Worker(self._make, self._shared, range(first, first + self._group_size), self._limit)

    @property
    def processes(self) -> list[Any]:
        """The processes."""
        return [worker.process for worker in self._workers]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Nest, dict[str, Any]]:
        """Resets all environments; environment i is given the seed `seed + i`; there are no options."""
        del options
        for worker in self._workers:
            worker.send("reset", None if seed is None else seed + worker.rows[0])
        return self.observations, self._receive()

    def step(self, actions: Nest) -> StepResult:
        """Steps all environments."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Nest) -> None:
        """Begins to step all environments."""
        for worker in self._workers:
            rows = slice(worker.rows.start, worker.rows.stop)
            worker.send("step", array_nests.map_structure(lambda x, rows=rows: np.asarray(x)[rows], actions))

    def step_wait(self) -> StepResult:
        """Waits for the result of the step."""
        infos = self._receive()
        return self.observations, self._rewards.copy(), self._flags[0].copy(), self._flags[1].copy(), infos

    def restart(self, restarts: Mapping[int, Restart]) -> dict[int, Fault]:
        """As `SerialVectorEnv.restart`; starts processes in place of those that have ended."""
        concerned = [i for i, worker in enumerate(self._workers) if any(row in restarts for row in worker.rows)]
        faults: dict[int, Fault] = {}
        for index in concerned:
            worker = self._workers[index]
            if not worker.is_alive:
                worker = self._workers[index] = self._start(worker.rows[0])
                if (error := self._error_at_start(worker)) is not None:
                    faults |= error
                    continue
            own = {row - worker.rows[0]: restarts[row] for row in worker.rows if row in restarts}
            worker.send("restart", own)
            faults |= self._infos(worker).get(FAULTS, {})
        return faults

    def _error_at_start(self, worker: Worker) -> dict[int, Fault] | None:
        try:
            error = worker.wait_until_ready()
        except LostWorkerError as lost:
            return _all_lost(worker, str(lost))
        if error is None:
            return None
        worker.kill()
        return _all_lost(worker, f"raised {type(error).__name__}: {error}", error)

    def _receive(self) -> dict[str, Any]:
        found = [infos for worker in self._workers if (infos := self._infos(worker))]
        joined = {key: {r: x for infos in found for r, x in infos.get(key, {}).items()} for key in (FAULTS, EPISODES)}
        return {key: by_row for key, by_row in joined.items() if by_row}

    def _infos(self, worker: Worker) -> dict[str, dict[int, Any]]:
        """Waits for an answer; returns what it reports, by row."""
        try:
            infos = worker.receive()
        except LostWorkerError as lost:
            rows = slice(worker.rows.start, worker.rows.stop)
            self._rewards[rows], self._flags[:, rows] = 0.0, False
            return {FAULTS: _all_lost(worker, str(lost))}
        if not infos:
            return {}
        return {key: {worker.rows[index]: x for index, x in by_row.items()} for key, by_row in infos.items()}

    def render(self) -> tuple[Any, ...]:
        """The frames of all environments."""
        for worker in self._workers:
            worker.send("render", None)
        return tuple(frame for worker in self._workers for frame in worker.receive() or ())

    def close_extras(self, **_: Any) -> None:
        """Ends the processes, whatever they are doing."""
        close_all(self._workers, self._owner)


def _all_lost(worker: Worker, text: str, error: BaseException | None = None) -> dict[int, Fault]:
    """Returns the faults of all environments of a lost process; only one environment is to blame."""
    culprit, lost = worker.culprit, Fault("was lost with the process of another one", is_bystander=True)
    return {row: Fault(text, error=error) if row == culprit else lost for row in worker.rows}


class HalvedVectorEnv(VectorEnv):
    """Two vector environments of one kind and size as one; each half can be stepped while the other one waits.

    Attributes:
        halves: The two, in the order of the rows.
    """

    def __init__(self, halves: tuple[GroupedVectorEnv, ...]) -> None:
        """Takes the two; they are closed with this object."""
        self.halves = halves
        first, size = halves[0], sum(half.num_envs for half in halves)
        take_spaces(self, size, first.single_observation_space, first.single_action_space, first)

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
