"""A driver whose environments are stepped by actors of Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.drivers import driver
from tf_agents.policies import tf_policy
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import array_nests, host_calls
from ppo_agent.common.checks import check_int, check_seed
from ppo_agent.common.seeds import draw_seed
from ppo_agent.common.types import Array, Nest

from ..environments.episode_infos import EpisodeInfos
from ..environments.gymnasium_environment import GymnasiumEnvironment
from ..faults.soundness import leaves_of
from ..observers import Observers
from ..rollout_driver import check_fit
from ..rollouts.rollout import Rollout, drop_abandoned, is_nothing_but_dropped
from . import cluster, policies
from .crew import Crew
from .worker import Plan, Rows


class RayDriver(driver.Driver):
    """Collects with actors of Ray, each of which has environments and a copy of the policy.

    Each run is an iteration: the present weights, running statistics included, are sent to all workers, and every
    worker steps its environments equally many times with them. A rollout from other weights is dropped and counted. The
    observers get one rollout, whose rows are in the order of the workers, whichever answers first. Equal seeds give
    equal rollouts: as long as no worker dies, environment i is seeded as that of a single process.

    A run waits for all workers. Ray restarts a worker that dies, and one that takes longer than a limit is killed and
    restarted; it begins new episodes and collects once more with the same weights. An error that an environment raises
    is raised here.

    Workers load TensorFlow only for policies that NumPy cannot carry out.

    Attributes:
        batch_size: Number of environments of all workers.
        worker_seconds: That each worker took for its rollout in the last run.

    Example:
        driver = RayDriver("CartPole-v1", agent.collect_policy, [buffer.add_batch], num_workers=2, num_steps=2048)
        driver.run()
        driver.close()
    """

    def __init__(
        self,
        env: Any,
        policy: tf_policy.TFPolicy,
        observers: Sequence[Callable] | None = None,
        transition_observers: Sequence[Callable] | None = None,
        num_steps: int = 1,
        *,
        num_workers: int = 1,
        num_environments: int | None = None,
        seed: int | None = None,
        ray_address: str | None = None,
        bootstrap_row: bool = False,
        max_restarts: int = 1000,
        worker_time_limit_s: float = 600.0,
        max_environment_restarts: int = 0,
        invalid_steps: str = "error",
    ) -> None:
        """Joins or starts Ray; the actors are made by the first run.

        Args:
            env: A gymnasium id, a callable that makes a `gymnasium.Env`, or a `factory.Vectorised`, which cloudpickle
                takes to the workers.
            policy: Policy that fits the environment.
            observers: Callables that take a `Trajectory` of rows.
            transition_observers: Callables that take (time_step, policy_step, next_time_step).
            num_steps: Rows per run, over all environments; as many more as make equally many for each. Rows between two
                episodes are among them.
            num_workers: Number of actors.
            num_environments: Of all workers, a multiple of their number; None for one each.
            seed: Of environments and actions, not negative; None for one that follows from TensorFlow's.
            ray_address: Of a cluster to join, for instance `auto`; None for the one that this process is connected to,
                or else for one that is started on this machine.
            bootstrap_row: Whether each run ends with a row for the time step after its last action.
            max_restarts: How often each worker may be restarted.
            worker_time_limit_s: Seconds that a worker may take for a run.
            max_environment_restarts: `max_restarts` of `GymnasiumEnvironment`, in the workers.
            invalid_steps: As there.

        Raises:
            ImportError: Ray is not installed; the message is one sentence that says what to install.
            TypeError: `env` or `policy` is of the wrong type.
            ValueError: Another argument has a wrong value, or there is no cluster at `ray_address`.
        """
        if not isinstance(policy, tf_policy.TFPolicy):
            raise TypeError(f"policy is {policy!r}, expected a tf_agents TFPolicy.")
        total = check_int("num_workers", num_workers)
        total = total if num_environments is None else check_int("num_environments", num_environments)
        if total % num_workers:
            raise ValueError(f"num_environments is {total}, expected a multiple of num_workers, {num_workers}.")
        self._num_rows = -(-check_int("num_steps", num_steps) // total)
        check_int("max_restarts", max_restarts, at_least=0)
        if not worker_time_limit_s > 0:
            raise ValueError(f"worker_time_limit_s is {worker_time_limit_s}, expected seconds, more than 0.")
        checked_seed = check_seed(seed)
        start_seed = draw_seed() if checked_seed is None else checked_seed
        with GymnasiumEnvironment(env, vectorization="sync", invalid_steps=invalid_steps) as single:
            check_fit(single, policy)
            super().__init__(single, policy, list(observers or ()), list(transition_observers or ()))
            leaves = leaves_of(single.observation_spec())
        self.batch_size, each = total, total // num_workers
        state = policies.initial_state(policy, each)
        self._plans = [
            Plan(env, each, leaves, state, number * each, start_seed, max_environment_restarts, invalid_steps)
            for number in range(num_workers)
        ]
        self._max_restarts, self._time_limit_s = max_restarts, worker_time_limit_s
        self._sinks = Observers(self.observers, self.transition_observers, bootstrap_row)
        self._shipped = policies.ship(policy, each)
        self._pack_steps = array_nests.packer(host_calls.plain(policy.time_step_spec))
        self._pack_taken = array_nests.packer(self._shipped.structure)
        step_spec = policy.policy_step_spec
        self._dtypes = [
            leaf.dtype.as_numpy_dtype for leaf in tf.nest.flatten(host_calls.plain((step_spec.action, step_spec.info)))
        ]
        self._iteration, self._infos = 0, EpisodeInfos()
        self.worker_seconds: list[float] = []
        self._crew: Crew | None = None
        self._restarts_before, self._stale_before = [0] * num_workers, 0
        self._ray, self._has_started_ray = cluster.connect(ray_address, num_workers)

    @property
    def restarts(self) -> list[int]:
        """How often each worker was restarted, the runs before `set_state` included."""
        now = [0] * len(self._plans) if self._crew is None else self._crew.restarts
        return [before + count for before, count in zip(self._restarts_before, now, strict=True)]

    @property
    def stale_rollouts(self) -> int:
        """How many rollouts were dropped, because they came from other weights than an iteration's."""
        return self._stale_before + (0 if self._crew is None else self._crew.stale)

    def run(
        self,
        time_step: ts.TimeStep | None = None,
        policy_state: Nest = None,
        maximum_iterations: int | None = None,
    ) -> tuple[ts.TimeStep, Nest]:
        """Collects an iteration and informs the observers.

        Args:
            time_step: Has no part in it: the workers know where their environments are.
            policy_state: The same.
            maximum_iterations: Most rows to take of each environment.

        Returns:
            (time step, policy state) after the last step of all environments, tensors.

        Raises:
            RuntimeError: A worker died or took too long too often.
            Exception: What an environment raised in a worker.
        """
        del time_step, policy_state
        num_rows = self._num_rows if maximum_iterations is None else min(self._num_rows, int(maximum_iterations))
        if num_rows < 1:
            raise ValueError(f"maximum_iterations is {maximum_iterations}, expected None or a positive int.")
        while True:
            iteration, self._iteration = self._iteration, self._iteration + 1
            parts = self._started().rollouts(iteration, self._shipped.values(), num_rows)
            self.worker_seconds = [part.seconds for part in parts]
            rollout = drop_abandoned(self._joined(parts))
            if not is_nothing_but_dropped(rollout):
                break
        self._sinks.observe(self._sinks.prepare(rollout))
        last = tf.nest.map_structure(lambda x: x[:, -1], (rollout.time_steps, rollout.policy_state))
        time_step, policy_state = host_calls.to_tensors(last)
        return time_step, policy_state

    def get_state(self) -> dict[str, Any]:
        """Returns the number of the next iteration and what was counted, for `set_state` of another driver.

        The environments' states are in the workers: after `set_state` they begin new episodes, whose seeds follow from
        that number.
        """
        return {"iteration": self._iteration, "restarts": self.restarts, "stale_rollouts": self.stale_rollouts}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues with the iteration at which `get_state` was called; counts of other workers are joined."""
        restarts = [int(count) for count in state["restarts"]]
        self._end_workers()
        self._iteration, self._stale_before = int(state["iteration"]), int(state["stale_rollouts"])
        self._restarts_before = (
            restarts if len(restarts) == len(self._plans) else [sum(restarts), *[0] * (len(self._plans) - 1)]
        )

    def restart(self) -> None:
        """Ends the workers: at the next run others begin new episodes."""
        self.set_state(self.get_state())

    def pop_episode_infos(self) -> dict[str, float]:
        """Means of the numbers in the infos of the episodes that ended since the last call, by name."""
        return self._infos.pop()

    def processes(self) -> list[dict[str, Any]]:
        """Returns `pid`, `memory` (bytes) and `has_tensorflow` of each worker's process."""
        return self._started().processes()

    def close(self) -> None:
        """Ends the workers, and Ray if it was started or joined here; may be called again."""
        self._end_workers()
        if self._has_started_ray:
            self._has_started_ray = False
            self._ray.shutdown()

    def __enter__(self) -> RayDriver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> Crew:
        if self._crew is None:
            self._crew = Crew(self._ray, self._plans, self._shipped.make, self._max_restarts, self._time_limit_s)
        return self._crew

    def _end_workers(self) -> None:
        if self._crew is not None and self._ray.is_initialized():
            self._crew.close()
        self._crew = None

    def _joined(self, parts: list[Rows]) -> Rollout:
        """One rollout [B, T, ...] of all workers', in their order."""
        for part in parts:
            self._infos.merge(part.infos)
        time_steps = self._pack_steps(_concatenated([part.time_steps for part in parts]))
        taken = list(_concatenated([part.taken for part in parts]))
        taken[: len(self._dtypes)] = [
            leaf.astype(dtype, copy=False) for leaf, dtype in zip(taken, self._dtypes, strict=False)
        ]
        return Rollout(time_steps, *self._pack_taken(iter(taken)))


def _concatenated(parts: list[list[Array]]) -> Iterator[Array]:
    """Each leaf of all workers, in memory that may be written to."""
    return map(np.concatenate, zip(*parts, strict=True))
