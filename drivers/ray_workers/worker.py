"""What an actor does: it steps its environments with a policy, without TensorFlow where the policy allows it."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import cloudpickle
import numpy as np

from ppo_agent.common import array_nests
from ppo_agent.common.types import Array, Nest

from ..environments import spaces
from ..environments.episode_infos import EpisodeInfos
from ..environments.gymnasium_group import GymnasiumGroup
from ..faults.recovery import Recovery
from ..faults.soundness import SoundnessCheck
from ..rollouts.columns import Columns
from ..vector_envs import autoreset, factory

# Seeds of environments, which gymnasium adds their number to.
_LARGEST_SEED = 2**31 - 2**16


class TimeStep(NamedTuple):
    """The fields of TF-Agents' `TimeStep`, arrays [B, ...]."""

    step_type: Array
    reward: Array
    discount: Array
    observation: Nest


class Plan(NamedTuple):
    """What a worker is made of.

    Attributes:
        env: A gymnasium id or a callable that makes a `gymnasium.Env`.
        num_environments: B of this worker.
        leaves: Of a single observation, see `soundness.leaves_of`.
        initial_state: The policy's state before an episode, a nest of arrays [B, ...]; () for none.
        first_index: Number of its first environment among those of all workers.
        seed: Of all workers.
        max_restarts: Of each environment, see `GymnasiumEnvironment`.
        invalid_steps: See there.
    """

    env: Any
    num_environments: int
    leaves: Nest
    initial_state: Nest
    first_index: int
    seed: int
    max_restarts: int
    invalid_steps: str


class WorkerPolicy(Protocol):
    """Acts in a worker."""

    def put(self, values: Sequence[Array]) -> None:
        """Takes the weights of an iteration."""

    def act(self, time_step: TimeStep, state: Nest) -> tuple[Nest, Nest, Nest] | None:
        """Returns arrays (action, policy info, next policy state); None if the policy refuses the observations."""


class Rows(NamedTuple):
    """A rollout of a worker, flat lists of arrays.

    Attributes:
        iteration: Whose weights it was collected with.
        incarnation: Of the worker's process, another one after a restart.
        time_steps: [B, T + 1, ...].
        taken: [B, T, ...], leaves of (action, policy info, policy state).
        seconds: That it took.
        infos: Sums and counts of the numbers in the infos of the episodes that ended.
    """

    iteration: int
    incarnation: str
    time_steps: list[Array]
    taken: list[Array]
    seconds: float
    infos: dict[str, tuple[float, int]]


class Worker:
    """Environments and policy of one actor."""

    def __init__(self, plan: Plan, make_policy: bytes) -> None:
        """Makes environments and policy; the environments are reset at the first rollout.

        `make_policy` makes the policy, given the seed of its random numbers, as cloudpickle wrote it.
        """
        self._plan = plan
        self._make_policy: Callable[[np.random.SeedSequence], WorkerPolicy] = cloudpickle.loads(make_policy)
        self._incarnation = uuid.uuid4().hex
        self._infos = EpisodeInfos()
        self._group = self._make_group()
        self._policy: WorkerPolicy | None = None
        self._state = plan.initial_state

    def rollout(self, iteration: int, values: Sequence[Array], num_rows: int) -> Rows:
        """Takes T = `num_rows` steps of every environment with an iteration's weights, from where it stopped last.

        A worker that was restarted starts new episodes, whose seeds follow from the iteration: what it returns does not
        depend on how often it failed in it.
        """
        start = time.perf_counter()
        if self._policy is None:
            self._start(iteration)
        policy, group = cast("WorkerPolicy", self._policy), self._group
        policy.put(values)
        time_steps, taken = Columns(), Columns()
        time_steps.append(group.time_step)
        for _ in range(num_rows):
            step = policy.act(cast("TimeStep", group.time_step), self._state)
            if step is None:
                raise ValueError("the policy refuses an observation, expected one that its assertions hold for.")
            time_steps.append(group.step(step[0]))
            taken.append(step)
            self._state = step[2]
        steps, rows = array_nests.flatten(time_steps.stack()), array_nests.flatten(tuple(taken.stack()))
        seconds = time.perf_counter() - start
        return Rows(iteration, self._incarnation, steps, rows, seconds, self._infos.totals())

    def process(self) -> dict[str, Any]:
        """Returns its process' id, memory in bytes, and whether TensorFlow is loaded."""
        statm = Path("/proc/self/statm")
        pages = int(statm.read_text(encoding="ascii").split()[1]) if statm.exists() else 0
        memory = pages * os.sysconf("SC_PAGE_SIZE")
        return {"pid": os.getpid(), "memory": memory, "has_tensorflow": "tensorflow" in sys.modules}

    def _start(self, iteration: int) -> None:
        plan = self._plan
        self._policy = self._make_policy(np.random.SeedSequence([plan.seed, plan.first_index, iteration]))
        self._group.reset(self._environment_seed(iteration))

    def _environment_seed(self, iteration: int) -> int:
        """The seed of the first environment: in the first iteration as if all were in one process."""
        if iteration == 0:
            return self._plan.seed + self._plan.first_index
        words = np.random.SeedSequence([self._plan.seed, iteration]).generate_state(1)
        return int(words[0]) % _LARGEST_SEED + self._plan.first_index

    def _make_group(self) -> GymnasiumGroup:
        plan = self._plan
        drops, size = plan.invalid_steps == "drop", plan.num_environments
        env = factory.make_vector_env(plan.env, size, "sync", None, None, one_by_one=drops, seed=plan.seed)
        return GymnasiumGroup(
            autoreset.next_step_autoreset(env),
            size,
            spaces.observation_decoder(env.single_observation_space, size),
            spaces.action_encoder(env.single_action_space),
            lambda _: None,
            SoundnessCheck(plan.leaves, size),
            Recovery(size, plan.max_restarts, drops, plan.seed + plan.first_index),
            self._infos,
            TimeStep,
            0,
        )
