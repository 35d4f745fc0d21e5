"""The training loop: collect, train, report, evaluate, save."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
from tf_agents.agents import tf_agent

from ppo_agent.checkpoint import TrainingCheckpoint
from ppo_agent.training import evaluation
from ppo_agent.training.clock import seconds_since_process_start
from ppo_agent.training.environments import make_environment
from ppo_agent.training.events import Events
from ppo_agent.training.experiment import EVALUATION_SEED_OFFSET, Experiment
from ppo_agent.training.interrupts import InterruptGuard
from ppo_agent.training.metrics_table import MetricsTable
from ppo_agent.training.progress import ProgressBar
from ppo_agent.training.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """What a run does beside training.

    Attributes:
        env_name: a gymnasium id, to make environments for evaluation.
        seed: of the run.
        total_environment_steps: when to stop.
        eval_interval: iterations between evaluations; 0 for none before the end.
        num_eval_episodes: episodes of an evaluation.
        checkpoint_interval: iterations between checkpoints.
    """

    env_name: str
    seed: int
    total_environment_steps: int
    eval_interval: int
    num_eval_episodes: int
    checkpoint_interval: int


@dataclasses.dataclass
class Tally:
    """Counts and times of a run in seconds, those before a resume included.

    Attributes:
        iterations: updates so far.
        wall_time_s: from the start of the process to its end, added up over processes that are done.
        collect_time_s: in collection.
        train_time_s: in updates.
        timed_steps: environment steps after the first iteration.
        timed_s: wall time after the first iteration, without evaluation.
        start_up_time_s: from the start of this process to the end of its first iteration.
        evaluations: (environment steps, mean return, its standard deviation) each.
    """

    iterations: int = 0
    wall_time_s: float = 0.0
    collect_time_s: float = 0.0
    train_time_s: float = 0.0
    timed_steps: int = 0
    timed_s: float = 0.0
    start_up_time_s: float = 0.0
    evaluations: list[list[float]] = dataclasses.field(default_factory=list)


class TrainingLoop:
    """Runs iterations until the steps are used up, and keeps count.

    Attributes:
        tally: counts and times.
        table: metrics.csv.
        checkpoint: the training state on disk.
    """

    def __init__(
        self, experiment: Experiment, options: LoopOptions, directory: RunDirectory, guard: InterruptGuard
    ) -> None:
        """Prepares the loop; nothing is written yet.

        Args:
            experiment: environment, agent and so on.
            options: what to do beside training.
            directory: where to write.
            guard: holds signals back while the state changes.
        """
        self._experiment, self._options, self._guard = experiment, options, guard
        self.table = MetricsTable(directory.metrics)
        self.tally = Tally()
        self.checkpoint = TrainingCheckpoint(
            directory.checkpoints, experiment.agent, experiment.optimizer, self._get_state, self._set_state
        )
        self._events = Events(directory)
        self._wall_time_before = 0.0
        self._is_first, self._lap = True, time.perf_counter()

    @property
    def environment_steps(self) -> int:
        """Environment steps so far."""
        return self._experiment.statistics.num_environment_steps

    @property
    def agent(self) -> tf_agent.TFAgent:
        """The agent."""
        return self._experiment.agent

    @property
    def final_train_return_mean(self) -> float:
        """Mean return of the last 100 training episodes, NaN if there were none."""
        return self._experiment.statistics.mean_return()

    def close(self) -> None:
        """Writes out what is still in memory; goes on as before if more comes."""
        self._events.close()

    def resume(self) -> bool:
        """Goes on from the newest checkpoint; returns whether there is one."""
        found = self.checkpoint.restore()
        self.table.drop_after(self.environment_steps)
        return found

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

    def save(self) -> None:
        """Writes a checkpoint."""
        with self._guard.deferred():
            self.tally.wall_time_s = self.wall_time()
            self.checkpoint.save(self.environment_steps)

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
        with make_environment(self._options.env_name, num_environments=size, seed=seed) as env:
            act = evaluation.act_with(self._experiment.agent.policy, size)
            returns = evaluation.evaluate(env, act, num_episodes)
        self.tally.evaluations.append([self.environment_steps, returns.mean, returns.std])
        self._events.write_evaluation(returns.mean, self.environment_steps)
        self._lap += time.perf_counter() - start

    def _iterate(self) -> bool:
        """Collects and trains once; returns False if the steps are used up."""
        start, steps_before = time.perf_counter(), self.environment_steps
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
        if self._is_due(self._options.eval_interval):
            self.evaluate()
        if self._is_due(self._options.checkpoint_interval):
            self.save()
        return True

    def _train(self, experience: Any, share_done: float) -> None:
        experiment = self._experiment
        experiment.optimizer.learning_rate = experiment.learning_rate(share_done)
        for value in experiment.scheduled:
            value.update(share_done)
        with self._events.train_writer.as_default():
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

    def _get_state(self) -> dict[str, Any]:
        return {
            "tally": dataclasses.asdict(self.tally),
            "statistics": self._experiment.statistics.get_state(),
            "last_steps": self._experiment.collector.last_steps,
        }

    def _set_state(self, state: dict[str, Any]) -> None:
        self.tally = Tally(**state["tally"])
        self._wall_time_before = self.tally.wall_time_s
        self._experiment.statistics.set_state(state["statistics"])
        self._experiment.collector.last_steps = state["last_steps"]
