"""The training loop: collect, train, report, evaluate, save."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tf_agents.agents import tf_agent

from ppo_agent.checkpoint import CheckpointStore, TrainingCheckpoint
from ppo_agent.checkpoint.store import Loaded
from ppo_agent.training import evaluation, named_environments
from ppo_agent.training.clock import seconds_since_process_start
from ppo_agent.training.command_line import warn
from ppo_agent.training.events import Events
from ppo_agent.training.experiment import EVALUATION_SEED_OFFSET, Experiment
from ppo_agent.training.interrupts import InterruptGuard
from ppo_agent.training.metrics_table import MetricsTable
from ppo_agent.training.progress import ProgressBar
from ppo_agent.training.random_state import GlobalGenerators
from ppo_agent.training.run_directory import RunDirectory, write_json
from ppo_agent.training.tally import Tally

# An iteration that takes longer may be the one that a signal cannot wait for.
_LONG_ITERATION_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """What a run does beside training.

    Attributes:
        env_name: see `environments.make_training_environment`, to make environments for evaluation.
        seed: of the run.
        total_environment_steps: when to stop.
        eval_interval: iterations between evaluations; 0 for none before the end.
        num_eval_episodes: episodes of an evaluation.
        checkpoint_interval: iterations between checkpoints; 0 for none but the first and the last.
        limits: what is put up with from the environments in an evaluation, see `Settings.limits`.
        hyper_parameters: that a checkpoint tells of beside the agent's own.
    """

    env_name: str
    seed: int
    total_environment_steps: int
    eval_interval: int
    num_eval_episodes: int
    checkpoint_interval: int
    limits: Mapping[str, Any]
    hyper_parameters: Mapping[str, Any]


class TrainingLoop:
    """Runs iterations until the steps are used up, and keeps count.

    Attributes:
        tally: counts and times.
        table: metrics.csv.
        checkpoint: the training state on disk.
    """

    def __init__(
        self,
        experiment: Experiment,
        options: LoopOptions,
        directory: RunDirectory,
        guard: InterruptGuard,
        store: CheckpointStore,
    ) -> None:
        """Prepares the loop; nothing is written yet.

        Args:
            experiment: environment, agent and so on.
            options: what to do beside training.
            directory: where to write.
            guard: holds signals back while the state changes.
            store: of checkpoints.
        """
        self._experiment, self._options, self._guard, self._directory = experiment, options, guard, directory
        self.table = MetricsTable(directory.metrics)
        self.tally = Tally()
        # An environment whose state is saved must be where the agent is.
        self._saves_env = named_environments.has_variables(experiment.env)
        experiment.agent.create_training_variables(experiment.env.batch_size)
        self.checkpoint = TrainingCheckpoint(
            store,
            agent=experiment.agent,
            hyper_parameters=options.hyper_parameters,
            loop=self,
            collector=experiment.collector,
            statistics=experiment.statistics,
            generators=GlobalGenerators(),
            **({"environment": experiment.env} if self._saves_env else {}),
        )
        self._events = Events(directory)
        self._wall_time_before = 0.0
        self._is_first, self._lap = True, time.perf_counter()
        self._saved: tuple[int, int] | None = None
        self._iteration_s = 0.0
        self._snapshot: tuple[int, Any, Any] | None = None
        guard.on_overdue = self._write_snapshot

    @property
    def environment_steps(self) -> int:
        """Environment steps so far."""
        return self._experiment.statistics.num_environment_steps

    @property
    def agent(self) -> tf_agent.TFAgent:
        """The agent."""
        return self._experiment.agent

    def close(self) -> None:
        """Writes out what is still in memory; goes on as before if more comes."""
        self._events.close()

    def resume(self, loaded: Loaded) -> None:
        """Goes on from a checkpoint.

        Raises:
            CheckpointMismatchError: it does not fit; nothing was changed.
        """
        self.checkpoint.take_over(loaded)
        self.table.drop_after(self.environment_steps)
        self._saved = self._progress()

    def run(self, progress: ProgressBar) -> None:
        """Runs iterations until the steps are used up, and evaluates.

        Args:
            progress: is told after every iteration.

        Raises:
            Interrupted: a signal came; the state is that after the last iteration.
        """
        while self._iterate():
            progress.update(self.environment_steps, self._experiment.statistics.mean_return())
        self.evaluate()

    def save(self) -> bool:
        """Writes a checkpoint, unless nothing has changed since the last one, and result.json.

        Returns:
            False if they could not be written, as on a full disk, which the user is told; the run can go on.
        """
        with self._guard.deferred():
            is_new = self._saved != self._progress()
            self.tally.wall_time_s = self.wall_time()
            try:
                if is_new:
                    self.table.sync()
                    self.checkpoint.save(self.environment_steps, self._evaluation())
                write_json(self._directory.result, self.result(finished=False))
            except OSError as error:
                steps = self.environment_steps
                warn(f"no checkpoint could be written at {steps} environment steps ({error}); the run goes on.")
                return False
            self._saved, self._snapshot = self._progress(), None
            self._events.retry()
            return True

    def result(self, *, finished: bool) -> dict[str, Any]:
        """What result.json says.

        Args:
            finished: whether this is the end of the run.
        """
        tally = self.tally
        mean, std = tally.evaluation_at(self.environment_steps) or (None, None)
        final = self._experiment.statistics.mean_return()
        return {
            "env_name": self._options.env_name,
            "seed": self._options.seed,
            "environment_steps": self.environment_steps,
            "iterations": tally.iterations,
            "train_steps": int(self.agent.train_step_counter),
            "wall_time_s": round(self.wall_time(), 3),
            "start_up_time_s": round(tally.start_up_time_s, 3),
            "steps_per_second": round(tally.steps_per_second(self.environment_steps), 1),
            "collect_time_s": round(tally.collect_time_s, 3),
            "train_time_s": round(tally.train_time_s, 3),
            # JSON knows no NaN.
            "final_train_return_mean": None if math.isnan(final) else final,
            "eval_return_mean": mean,
            "eval_return_std": std,
            "num_eval_episodes": 0 if mean is None else self._options.num_eval_episodes,
            "finished": finished,
            "best_checkpoint": _name(self.checkpoint.store.best()),
        }

    def wall_time(self) -> float:
        """Seconds since the process started, those of processes before a resume included."""
        return self._wall_time_before + seconds_since_process_start()

    def evaluate(self) -> None:
        """Evaluates the policy, unless it has not changed since the last time."""
        if self.tally.evaluations and self.tally.evaluations[-1][0] == self.environment_steps:
            return
        start = time.perf_counter()
        num_episodes = self._options.num_eval_episodes
        size = evaluation.num_environments(num_episodes)
        seed = self._options.seed + EVALUATION_SEED_OFFSET
        name = named_environments.gymnasium_name(self._options.env_name)
        with named_environments.make_environment(name, num_environments=size, seed=seed, **self._options.limits) as env:
            act = evaluation.act_with(self._experiment.agent.policy, size)
            returns = evaluation.evaluate(env, act, num_episodes)
        self.tally.evaluations.append([self.environment_steps, returns.mean, returns.std])
        self._events.write_evaluation(returns.mean, self.environment_steps)
        self._lap += time.perf_counter() - start
        if self.tally.last_is_best():
            self.save()

    def _iterate(self) -> bool:
        """Collects and trains once; returns False if the steps are used up."""
        if self._iteration_s > _LONG_ITERATION_SECONDS and self._saved != self._progress():
            self.tally.wall_time_s = self.wall_time()
            self._snapshot = (self.environment_steps, *self.checkpoint.snapshot())
        start = time.perf_counter()
        with contextlib.ExitStack() as stack:
            if self._saves_env:
                stack.enter_context(self._guard.deferred())
            if not self._learn(start, self.environment_steps):
                return False
        self._iteration_s = time.perf_counter() - start
        if self._is_due(self._options.eval_interval):
            self.evaluate()
        if self._is_due(self._options.checkpoint_interval):
            self.save()
        return True

    def _learn(self, start: float, steps_before: int) -> bool:
        experience = self._experiment.collector.collect(self._options.total_environment_steps - steps_before)
        if experience is None:
            return False
        collected = time.perf_counter()
        with self._guard.deferred():
            self._train(experience, steps_before / self._options.total_environment_steps)
            trained = time.perf_counter()
            self.tally.collect_time_s += collected - start
            self.tally.train_time_s += trained - collected
            self._count(self.environment_steps - steps_before, trained)
            self._report((self.environment_steps - steps_before) / (trained - start))
        return True

    def _train(self, experience: Any, share_done: float) -> None:
        experiment = self._experiment
        experiment.optimizer.learning_rate = experiment.learning_rate(share_done)
        for value in experiment.scheduled:
            value.update(share_done)
        with self._events.training():
            experiment.agent.train(experience)
            experiment.agent.train_metrics()  # Waits for the update, which may still be running.

    def _count(self, steps: int, now: float) -> None:
        self.tally.iterations += 1
        if self._is_first:
            self._is_first = False
            self.tally.start_up_time_s = seconds_since_process_start()
        else:
            self.tally.timed_steps += steps
            self.tally.timed_s += now - self._lap
        self._lap = now

    def _report(self, steps_per_second: float) -> None:
        """Writes the iteration's row and events."""
        returns, lengths = self._experiment.statistics.pop()
        row = {
            **self._experiment.agent.train_metrics(),
            "environment_steps": self.environment_steps,
            "wall_time_s": self.wall_time(),
            "episode_return_mean": float(np.mean(returns)) if returns else float("nan"),
            "episode_length_mean": float(np.mean(lengths)) if lengths else float("nan"),
            "steps_per_second": steps_per_second,
        }
        self.table.append(row)
        self._events.write_iteration(row)

    def _is_due(self, interval: int) -> bool:
        return interval > 0 and self.tally.iterations % interval == 0

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint holds of the loop itself."""
        return dataclasses.asdict(self.tally)

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over what `get_state` returned."""
        self.tally = Tally(**state)
        self._wall_time_before = self.tally.wall_time_s

    def _progress(self) -> tuple[int, int]:
        """What is another number whenever a checkpoint would be another one."""
        return self.environment_steps, len(self.tally.evaluations)

    def _evaluation(self) -> float | None:
        found = self.tally.evaluation_at(self.environment_steps)
        return None if found is None else found[0]

    def _write_snapshot(self) -> None:
        """Saves what was before the iteration under way; called in another thread."""
        if self._snapshot is not None:
            self.checkpoint.write(*self._snapshot)


def _name(path: Path | None) -> str | None:
    return None if path is None else path.name
