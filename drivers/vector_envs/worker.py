"""A process that steps a group of environments, and the other end of its pipe."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper, create_shared_memory, read_from_shared_memory

from ppo_agent.common import array_nests
from ppo_agent.common.types import Nest

from ..faults.faults import FAULTS, Fault, portable
from .parent_watch import end_with_parent
from .serial import RAISED, Restart, SerialVectorEnv

# A new process has at least so many seconds until its environments are made and reset.
_SHORTEST_START_S = 60.0
_GRACE_S = 2.0
# This process's ends of the pipes to all of its workers. A forked process inherits them, and closes them: as long as
# one of them was open, no worker would see the end of this process in its pipe.
_pipes: weakref.WeakSet[Any] = weakref.WeakSet()


class SharedArrays(NamedTuple):
    """What the processes of a vector environment of B environments share; each writes to its own rows.

    Attributes:
        space: Of a single observation.
        size: B.
        observations: Gymnasium's shared memory.
        numbers: Rewards, float64 [B].
        flags: Terminated and truncated, uint8 [2 B].
    """

    space: gym.Space
    size: int
    observations: Any
    numbers: Any
    flags: Any

    @staticmethod
    def create(space: gym.Space, size: int) -> SharedArrays:
        """Allocates them for B = `size` environments."""
        context: Any = multiprocessing.get_context()
        observations = create_shared_memory(space, n=size, ctx=context)
        return SharedArrays(space, size, observations, context.RawArray("d", size), context.RawArray("B", 2 * size))

    def arrays(self) -> tuple[Nest, np.ndarray, np.ndarray]:
        """Returns views: observations [B, ...], rewards [B], flags bool [2, B]."""
        observations = read_from_shared_memory(self.space, self.observations, n=self.size)
        flags = np.frombuffer(self.flags, bool).reshape(2, self.size)
        return observations, np.frombuffer(self.numbers, np.float64), flags


class LostWorkerError(Exception):
    """A process did not answer: the message says what became of it."""


class Worker:
    """A process with some of the environments of a vector environment.

    Attributes:
        process: The process.
        rows: Of its environments, a range.
    """

    def __init__(self, make: Callable[[], gym.Env], shared: SharedArrays, rows: range, limit: float | None) -> None:
        """Starts the process, which makes the environments of its rows; `wait_until_ready` comes next.

        A step or reset of all of them may take `limit` seconds; None for any time.
        """
        context: Any = multiprocessing.get_context()
        self.rows = rows
        self._limit, self._sent = limit, 0.0
        self._at = context.RawArray("q", 1)
        self._pipe, child = context.Pipe()
        _pipes.add(self._pipe)
        is_direct = context.get_start_method() != "forkserver"
        in_main_thread = threading.current_thread() is threading.main_thread()
        owner = os.getpid() if is_direct else None
        arguments = (owner, in_main_thread, child, CloudpickleWrapper(make), shared, rows, self._at)
        self.process: Any = context.Process(
            target=_work, args=arguments, name=f"environments {rows[0]} to {rows[-1]}", daemon=True
        )
        self.process.start()
        child.close()

    def wait_until_ready(self) -> BaseException | None:
        """Waits until the environments are made; returns what their constructors raised.

        Raises:
            LostWorkerError: The process has ended, or did not answer in time.
        """
        self._sent = time.monotonic()
        return self.receive(None if self._limit is None else max(self._limit, _SHORTEST_START_S))

    def send(self, command: str, argument: Any) -> None:
        """Sends a command; `receive` returns the answer, and raises if the process has ended."""
        self._sent = time.monotonic()
        with contextlib.suppress(OSError):
            self._pipe.send((command, argument))

    def receive(self, limit: float | None = None) -> Any:
        """Returns the answer to the last command, which may take `limit` seconds; None for the worker's own limit.

        Raises:
            LostWorkerError: It did not come in time, or the process has died; it has ended then.
        """
        limit = self._limit if limit is None else limit
        try:
            if limit is None or self._pipe.poll(max(0.0, self._sent + limit - time.monotonic())):
                return self._pipe.recv()
        except (EOFError, OSError):
            self.process.join(_GRACE_S)
            text = f"died with its process (exit code {self.process.exitcode})"
            self.kill()
            raise LostWorkerError(text) from None
        self.kill()
        raise LostWorkerError(f"did not answer for {limit:g} s (step_time_limit_s)")

    @property
    def culprit(self) -> int:
        """The row of the environment that was being stepped last."""
        return self.rows[self._at[0]]

    @property
    def is_alive(self) -> bool:
        """Whether the process can be sent commands."""
        return not self._pipe.closed

    def close(self, deadline: float) -> None:
        """Lets the process, which was sent 'close', end by itself until a time of `time.monotonic`, then kills it."""
        if self.is_alive:
            self.process.join(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """Ends the process, whatever it is doing."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self._pipe.close()


def close_all(workers: list[Worker], owner: int) -> None:
    """Ends processes, by force those that are busy; not in a process that was forked from their `owner`."""
    if os.getpid() != owner:
        return
    for worker in workers:
        if worker.is_alive:
            worker.send("close", None)
    deadline = time.monotonic() + _GRACE_S
    for worker in workers:
        worker.close(deadline)


def _work(
    owner: int | None, in_main_thread: bool, pipe: Any, make: Any, shared: SharedArrays, rows: range, at: Any
) -> None:
    """What the process does.

    `owner` is the id of the process that has started it, None where another one starts processes on its behalf.
    """
    # The parent decides when it ends, not the terminal, nor the handlers that the parent has set for itself.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    end_with_parent(os.getppid() if owner is None else owner, in_main_thread)
    for inherited in list(_pipes):
        inherited.close()
    env = None
    try:
        env = _WorkerGroup(make, shared, rows, np.frombuffer(at, np.int64))
        pipe.send(None)
    except RAISED as error:
        with contextlib.suppress(OSError):
            pipe.send(portable(Fault(f"{type(error).__name__}: {error}", error=error)).error)
        return
    with contextlib.suppress(EOFError, OSError):
        while (message := pipe.recv())[0] != "close":
            pipe.send(getattr(env, message[0])(message[1]))
    env.close(None)


class _WorkerGroup:
    """The commands that a process understands; each takes one argument and returns the answer.

    After a step or a reset these are infos as `SerialVectorEnv` has them, None for empty ones.
    """

    def __init__(self, make: Any, shared: SharedArrays, rows: range, at: np.ndarray) -> None:
        own = slice(rows.start, rows.stop)
        observations, self._rewards, self._flags = shared.arrays()
        self._rewards, self._flags = self._rewards[own], self._flags[:, own]
        observations = array_nests.map_structure(lambda x: x[own], observations)
        self._env = SerialVectorEnv([make] * len(rows), observations=observations, at=at)

    def step(self, actions: Nest) -> dict[str, Any] | None:
        _, self._rewards[:], self._flags[0], self._flags[1], infos = self._env.step(actions)
        return _portable(infos)

    def reset(self, seed: int | None) -> dict[str, Any] | None:
        return _portable(self._env.reset(seed=seed)[1])

    def restart(self, restarts: Mapping[int, Restart]) -> dict[str, Any] | None:
        return _portable({FAULTS: self._env.restart(restarts)})

    def render(self, _: None) -> Any:
        return self._env.render()

    def close(self, _: None) -> None:
        self._env.close()


def _portable(infos: dict[str, Any]) -> dict[str, Any] | None:
    """Returns infos fit to be sent to another process; None for empty ones."""
    if FAULTS in infos:
        infos[FAULTS] = {index: portable(fault) for index, fault in infos[FAULTS].items()}
    return infos or None
