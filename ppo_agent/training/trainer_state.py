"""What a trainer consists of, and what it says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ppo_agent.agent import PPOAgent
from ppo_agent.checkpoint import CheckpointStore, TrainingCheckpoint
from ppo_agent.checkpoint.store import Loaded
from ppo_agent.training import named_environments, run_environments
from ppo_agent.training.acting import Actor
from ppo_agent.training.action_encoding import ActionEncoding
from ppo_agent.training.collection import Collector
from ppo_agent.training.evaluation import Evaluation
from ppo_agent.training.experiment import Learner
from ppo_agent.training.global_state import GlobalGenerators
from ppo_agent.training.interrupts import InterruptGuard, active_guard
from ppo_agent.training.loop import TrainingLoop
from ppo_agent.training.named_environments import EnvLike
from ppo_agent.training.recorder import RunRecorder
from ppo_agent.training.saved_run import SavedRun
from ppo_agent.training.settings import Settings


class TrainerState:
    """Environments, agent, counters, and what a checkpoint holds of them: all of a `Trainer` but what it does.

    Attributes:
        settings: of the run, see `Settings`.
        seed: of everything that is random.
        env_name: the name of the environment; None if it was given otherwise.
        source: in words, where the settings come from.
        recorder: writes the files of the run; None without a folder.
        result: what result.json says after a call of `train`; None without a folder.
        target_steps: environment steps that `train` goes up to.
        evaluations: those that `train` has made, (environment steps, `Evaluation`) each.
        loop: runs iterations and keeps count.
    """

    recorder: RunRecorder | None
    loop: TrainingLoop

    def _start(self, env: EnvLike, seed: int, settings: Settings, source: str, callbacks: list[Any]) -> None:
        """Takes what is known before there are environments and an agent."""
        self.settings, self.seed, self.source = settings, int(seed), source
        self.env_name = env if isinstance(env, str) else None
        self.recorder = None
        self.result: dict[str, Any] | None = None
        self.evaluations: list[tuple[int, Evaluation]] = []
        self.target_steps = settings.total_environment_steps
        self._callbacks = callbacks
        self._env_like: EnvLike = env
        self._env: tf_environment.TFEnvironment | None = None
        self._steps_before = 0
        self._pending: Loaded | None = None
        self._saved_encoding: ActionEncoding | None = None
        self._is_closed = self._own_agent = self._is_training = False
        self._idle_guard = InterruptGuard(())

    def _use(self, learner: Learner) -> None:
        """Takes the agent, whose loop starts with nothing done."""
        self.loop = TrainingLoop(learner)
        self._actor: Actor | None = None

    @property
    def agent(self) -> PPOAgent:
        """The agent."""
        return self.loop.agent

    @property
    def env(self) -> tf_environment.TFEnvironment:
        """The environments that the agent is trained in.

        Raises:
            ValueError: the trainer was loaded without one and its name is not known, or it does not fit.
        """
        if self._env is None:
            if self._env_like is None:
                raise ValueError("env is None, expected an environment: Trainer.load(path, env=...).")
            env = run_environments.for_training(self._env_like, self.settings, self.seed + self._steps_before)
            if (loop := getattr(self, "loop", None)) is not None:
                run_environments.check_fit(env, loop.agent)
            self._env = env
        return self._env

    @property
    def environment_steps(self) -> int:
        """Environment steps so far."""
        return self.loop.environment_steps

    @property
    def num_episodes(self) -> int:
        """Episodes that have ended so far."""
        return self.loop.statistics.num_episodes

    @property
    def mean_return(self) -> float:
        """The mean return of the last 100 training episodes; NaN before the first one has ended."""
        return self.loop.statistics.mean_return()

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers of the last iteration: the columns of metrics.csv, and `agent.train_metrics()`."""
        return dict(self.loop.row)

    @property
    def experience(self) -> Any:
        """The experience of the last iteration, a `Trajectory` [B, T, ...]; None before the first."""
        return self.loop.experience

    @property
    def time_step(self) -> ts.TimeStep:
        """The environments' current time step, arrays [B, ...]."""
        current = getattr(self.env, "current_numpy", None)
        return current() if current else tf.nest.map_structure(np.asarray, self.env.current_time_step())

    @property
    def guard(self) -> InterruptGuard:
        """Holds signals back while the state changes."""
        return active_guard() or self._idle_guard

    def __repr__(self) -> str:
        name = self.env_name or type(self._env_like).__name__
        return f"Trainer({name!r}, seed={self.seed}, environment_steps={self.environment_steps}, {self.settings})"

    def describe(self) -> dict[str, Any]:
        """What settings.json says."""
        agent = self.agent
        run = SavedRun(
            self.env_name,
            self.seed,
            self.settings,
            self._own_agent,
            tensor_spec.from_spec(agent.time_step_spec.observation),
            agent.action_spec,
            self._encoding(),
        )
        return run.to_json()

    def checkpoint(self, store: CheckpointStore) -> TrainingCheckpoint:
        """Everything that a checkpoint holds, as far as it has been made."""
        parts: dict[str, Any] = {
            "loop": self.loop,
            "statistics": self.loop.statistics,
            "generators": GlobalGenerators(),
        }
        if self.loop.collector is not None:
            parts["collector"] = self.loop.collector
            self.agent.create_training_variables(self.env.batch_size)
        if self._env is not None and named_environments.has_variables(self._env):
            parts["environment"] = self._env
        return TrainingCheckpoint(store, agent=self.agent, hyper_parameters={"run": self.describe()}, **parts)

    def write_checkpoint(self, store: CheckpointStore) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: it cannot be written.
        """
        found = self.loop.tally.evaluation_at(self.environment_steps)
        self.checkpoint(store).save(self.environment_steps, None if found is None else found[0])

    def _get_collector(self) -> Collector:
        """The collector, made with the environments when it is first needed."""
        if self.loop.collector is None:
            self.loop.collector = Collector(self.env, self.agent, self.settings, self.loop.statistics, self.seed)
            if self._pending is not None:
                loaded, self._pending = self._pending, None
                store = CheckpointStore(loaded.path.parent)
                self.checkpoint(store).take_over_parts(loaded, ("collector", "environment", "generators"))
        return self.loop.collector

    def _get_actor(self) -> Actor:
        """What predicts, made when it is first needed."""
        if self._actor is None:
            self._actor = Actor(self.agent, self._encoding())
        return self._actor

    def _encoding(self) -> ActionEncoding:
        """How actions become the environment's; without one, as the folder that was loaded says."""
        if self._env is None and self._saved_encoding is not None:
            return self._saved_encoding
        return ActionEncoding.of_environment(self._env, self.agent.action_spec)
