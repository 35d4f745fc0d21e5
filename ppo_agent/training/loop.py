"""The training loop: collect, train, report; an iteration at a time. It writes nothing."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from tf_agents.trajectories import Trajectory

from ppo_agent.agent import PPOAgent
from ppo_agent.drivers import EpisodeStatistics
from ppo_agent.training import report
from ppo_agent.training.collection import Collector
from ppo_agent.training.experiment import Learner
from ppo_agent.training.tally import Tally, seconds_since_process_start

if TYPE_CHECKING:
    from ppo_agent.training.running import Run


class TrainingLoop:
    """Runs iterations and keeps count.

    Attributes:
        learner: agent, optimiser and schedules.
        statistics: of the episodes.
        collector: of experience; None until environments are needed.
        tally: counts and times.
        experience: of the last iteration, [B, T, ...].
        row: the numbers of the last iteration, see `metrics_table.COLUMNS`.
    """

    def __init__(self, learner: Learner) -> None:
        """Starts with nothing done."""
        self.learner = learner
        self.statistics = EpisodeStatistics()
        self.collector: Collector | None = None
        self.tally = Tally()
        self.experience: Trajectory | None = None
        self.row: dict[str, float] = {}
        self._wall_time_before = 0.0
        self._is_first, self._lap = True, time.perf_counter()

    @property
    def agent(self) -> PPOAgent:
        """The agent."""
        return self.learner.agent

    @property
    def environment_steps(self) -> int:
        """Environment steps so far."""
        return self.statistics.num_environment_steps - self.tally.steps_not_counted

    def wall_time(self) -> float:
        """Seconds since the process started, those of processes before a resume included."""
        return self._wall_time_before + seconds_since_process_start()

    def leave_out(self, seconds: float) -> None:
        """Leaves time that was spent beside training out of the steps per second."""
        self._lap += seconds

    def reset_counter(self) -> None:
        """Counts environment steps from zero, and forgets the evaluations."""
        self.tally.steps_not_counted = self.statistics.num_environment_steps
        self.tally.evaluations.clear()

    def iterate(self, run: Run, target: int) -> bool:
        """Collects and trains once, up to `target` environment steps; returns False if they are used up.

        The callbacks of `run` are called, and the row of numbers is handed to it.
        """
        start, steps_before = time.perf_counter(), self.environment_steps
        run.call("on_rollout_start")
        experience = run.collector.collect(target - steps_before)
        if experience is None:
            return False
        self.experience = experience
        collected = time.perf_counter()
        with run.guard.deferred():
            run.call("on_rollout_end")
            train_start = time.perf_counter()
            self.learner.update_schedules(steps_before / target)
            metrics = self._train(experience, run)
            trained = time.perf_counter()
            self.tally.collect_time_s += collected - start
            self.tally.train_time_s += trained - train_start
            steps = self.environment_steps - steps_before
            self._count(steps, trained)
            infos = report.of_infos(run.collector.pop_episode_infos())
            self.row = {**metrics, **self._describe(experience, steps / (trained - start)), **infos}
            run.record(self.row)
        return True

    def _train(self, experience: Trajectory, run: Run) -> dict[str, float]:
        """Updates the agent; returns its metrics."""
        agent = self.agent
        if not getattr(agent, "_compute_value_and_advantage_in_train", True):
            experience = agent.preprocess_sequence(experience)
        with run.recording_agent():
            agent.train(experience)
        if not getattr(agent, "update_normalizers_in_train", True):
            agent.update_observation_normalizer(experience.observation)
            agent.update_reward_normalizer(experience.reward)
        # Waits for the update, which may still be running.
        return agent.train_metrics()

    def _count(self, steps: int, now: float) -> None:
        self.tally.iterations += 1
        if self._is_first:
            self._is_first = False
            self.tally.start_up_time_s = seconds_since_process_start()
        else:
            self.tally.timed_steps += steps
            self.tally.timed_s += now - self._lap
        self._lap = now

    def _describe(self, experience: Trajectory, steps_per_second: float) -> dict[str, float]:
        """The iteration's row."""
        agent = self.agent
        return {
            **report.of_episodes(*self.statistics.pop()),
            **report.of_experience(experience),
            **report.of_schedules(agent),
            "environment_steps": self.environment_steps,
            "train_step": int(agent.train_step_counter),
            "wall_time_s": self.wall_time(),
            "steps_per_second": steps_per_second,
        }

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint holds of the loop itself."""
        self.tally.wall_time_s = self.wall_time()
        return dataclasses.asdict(self.tally)

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over what `get_state` returned.

        Raises:
            ValueError: it is something else.
        """
        self.tally = Tally.checked(state)
        self._wall_time_before = self.tally.wall_time_s
