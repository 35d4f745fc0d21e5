"""The workers of a driver: Ray places and restarts them and carries their data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cloudpickle

from ppo_agent.common.types import Array

from .worker import Plan, Rows, Worker

# A worker that hangs so often in one iteration will always.
_MOST_HANGS = 3


class Crew:
    """Actors that collect together.

    An iteration waits for all of its workers. Ray restarts one that dies, and lets it collect again with the same
    weights. One that takes too long is killed, and then it has died.

    Attributes:
        restarts: How often each worker was restarted.
        stale: How many rollouts were dropped, because they came from the weights of an earlier iteration.
    """

    def __init__(self, ray: Any, plans: Sequence[Plan], maker: Any, max_restarts: int, time_limit_s: float) -> None:
        """Starts the actors; `maker` makes the policy in each, and a rollout may take `time_limit_s` seconds."""
        self._ray, self._time_limit_s, self._max_restarts = ray, time_limit_s, max_restarts
        actor = ray.remote(num_cpus=1, max_restarts=max_restarts, max_task_retries=-1)(Worker)
        # As bytes, because arrays that Ray hands over cannot be written to.
        data = cloudpickle.dumps(maker)
        self._actors = [actor.remote(plan, data) for plan in plans]
        self._incarnations: list[str | None] = [None] * len(plans)
        self._pending: list[Any] = []
        self.restarts, self.stale = [0] * len(plans), 0

    def rollouts(self, iteration: int, values: Sequence[Array], num_rows: int) -> list[Rows]:
        """Returns a rollout of each worker, in their order, from the weights of this iteration.

        Raises:
            RuntimeError: A worker died or hung too often.
            Exception: What an environment or the policy raised in a worker.
        """
        # An iteration that was interrupted left them behind.
        self.stale += len(self._pending)
        weights = self._ray.put(list(values))
        self._pending = [actor.rollout.remote(iteration, weights, num_rows) for actor in self._actors]
        self._stop_those_that_hang()
        found = [self._get(number, ref) for number, ref in enumerate(self._pending)]
        self._pending = []
        for number, rows in enumerate(found):
            if self._incarnations[number] not in (None, rows.incarnation):
                self.restarts[number] += 1
            self._incarnations[number] = rows.incarnation
        return found

    def processes(self) -> list[dict[str, Any]]:
        """Returns process id, memory in bytes and whether TensorFlow is loaded, of each worker."""
        found: list[dict[str, Any]] = self._ray.get([actor.process.remote() for actor in self._actors])
        return found

    def close(self) -> None:
        """Ends the actors."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []

    def _stop_those_that_hang(self) -> None:
        for _ in range(_MOST_HANGS):
            _, late = self._ray.wait(
                self._pending, num_returns=len(self._pending), timeout=self._time_limit_s, fetch_local=False
            )
            if not late:
                return
            for number, ref in enumerate(self._pending):
                if ref in late:
                    self._ray.kill(self._actors[number], no_restart=False)
        number = next(number for number, ref in enumerate(self._pending) if ref in late)
        raise RuntimeError(
            f"worker {number} took more than {self._time_limit_s} s for a rollout {_MOST_HANGS} times in a row, "
            "expected less (see worker_time_limit_s)."
        )

    def _get(self, number: int, ref: Any) -> Rows:
        exceptions = self._ray.exceptions
        try:
            rows: Rows = self._ray.get(ref)
        except exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except exceptions.RayActorError as error:
            raise RuntimeError(
                f"worker {number} died more than {self._max_restarts} times, expected fewer: {_last_line(error)}"
            ) from error
        return rows


def _last_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
