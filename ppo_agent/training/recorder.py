"""The files of a run: settings, rows, events, checkpoints, result, policies, learning curve."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ppo_agent.checkpoint import CheckpointError, CheckpointStore
from ppo_agent.common import stderr_noise
from ppo_agent.common.atomic_files import write_json
from ppo_agent.export import export_policy, export_policy_saver
from ppo_agent.training.command_line import RunError, warn
from ppo_agent.training.evaluation import Evaluation
from ppo_agent.training.events import Events
from ppo_agent.training.metrics_table import EVALUATION_COLUMNS, MetricsTable
from ppo_agent.training.plotting import plot_learning_curve
from ppo_agent.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from ppo_agent.trainer import Trainer

# An iteration that takes longer may be one that a signal cannot wait for: each is followed by a checkpoint.
_LONG_ITERATION_SECONDS = 5.0


class RunRecorder:
    """Writes down what a trainer does.

    Attributes:
        directory: where.
        store: of the checkpoints.
    """

    def __init__(self, directory: RunDirectory, kept: int, *, is_resumed: bool = False) -> None:
        """Names the files; nothing is written yet.

        Args:
            directory: checked.
            kept: how many of the last checkpoints are kept.
            is_resumed: whether the folder's own run continues.
        """
        self.directory = directory
        self._is_resumed, self._has_started = is_resumed, False
        self.store = CheckpointStore(directory.checkpoints, kept, warn)
        self._table = MetricsTable(directory.metrics)
        self._evaluations = MetricsTable(directory.evaluations, EVALUATION_COLUMNS)
        self._events = Events(directory.train_events, directory.eval_events)
        self._saved: tuple[int, int] | None = None

    def resumed(self, trainer: Trainer) -> None:
        """Drops what was written behind the checkpoint that the trainer continues from."""
        for table in (self._table, self._evaluations):
            table.drop_after(trainer.environment_steps)
        self._events.drop_after(trainer.environment_steps)
        # At the beginning there may be no checkpoint yet.
        self._saved = _progress(trainer) if trainer.environment_steps else None

    def start(self, trainer: Trainer) -> None:
        """Makes the folder, unless it is in use by this run already, and writes what is known before training, once.

        Raises:
            ValueError: the system does not let it, or another run was faster.
        """
        if self._has_started:
            return
        self.directory.create(self._is_resumed)
        write_json(self.directory.settings, trainer.describe())
        if not self._is_resumed:
            self._events.write_settings(dataclasses.asdict(trainer.settings))
        self.save(trainer)
        self._has_started = True

    def record(self, row: Mapping[str, float]) -> None:
        """Writes the row and the events of an iteration."""
        self._table.append(row)
        self._events.write_iteration(row)

    def recording_agent(self) -> contextlib.AbstractContextManager[None]:
        """What an agent writes to tf.summary in the block goes to the run's events."""
        return self._events.recording()

    def record_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        """Writes the result of an evaluation."""
        steps = trainer.environment_steps
        row = {
            "environment_steps": steps,
            "wall_time_s": trainer.loop.wall_time(),
            "return_mean": evaluation.mean,
            "return_std": evaluation.std,
            "num_episodes": len(evaluation.returns),
        }
        self._evaluations.append(row)
        self._events.write_evaluation(evaluation.mean, steps)

    def after_iteration(self, trainer: Trainer, seconds: float) -> None:
        """Makes sure that the folder is there, and that a long iteration cannot be lost."""
        if self.directory.is_lost:
            warn(f"{self.directory.path} was deleted or moved in the middle of the run: it is created again.")
            self.directory.release()
            self._saved = None
            self._events.close()
            self._is_resumed = self._has_started = False
            self.start(trainer)
        if seconds > _LONG_ITERATION_SECONDS:
            self.save(trainer)

    def save(self, trainer: Trainer) -> bool:
        """Writes a checkpoint, unless nothing has changed since the last one, and result.json.

        Returns:
            False if they could not be written, as on a full disk, which the user is told; the run can continue.
        """
        with trainer.guard.deferred():
            try:
                if self._saved != _progress(trainer):
                    self._table.sync()
                    self._evaluations.sync()
                    trainer.write_checkpoint(self.store)
                write_json(self.directory.result, self.result(trainer, finished=False))
            except OSError as error:
                steps = trainer.environment_steps
                warn(f"no checkpoint could be written at {steps} environment steps ({error}); the run goes on.")
                return False
            self._saved = _progress(trainer)
            self._events.retry()
            return True

    def finish(self, trainer: Trainer, *, interrupted: bool, finished: bool) -> dict[str, Any]:
        """Saves, exports and reports; the most precious comes first.

        Returns:
            What result.json says.

        Raises:
            CheckpointError: the last checkpoint could not be written.
            RunError: a policy could not be written.
        """
        guard = trainer.guard
        with guard.deferred(patient=True):
            is_saved = self.save(trainer)
            self._events.close()
            policy = trainer.agent.policy
            with self._told("policy"):
                told = self.result(trainer, finished=finished)
                evaluation = {name: told[name] for name in told if name.startswith("eval_")}
                steps = {"environment_steps": told["environment_steps"]}
                export_policy(
                    policy, self.directory.policy, environment=trainer.env_name, evaluation={**evaluation, **steps}
                )

            def write_result() -> dict[str, Any]:
                stopped = interrupted or guard.pending is not None
                result = {**self.result(trainer, finished=finished), "interrupted": stopped}
                write_json(self.directory.result, result)
                return result

            with self._told("result.json"):
                write_result()
            if guard.pending is None:
                # Names and types in TF-Agents' own format are as they have to be.
                with stderr_noise.without_warnings(), self._told("policy_saver"):
                    export_policy_saver(policy, self.directory.policy_saver)
                self._plot(trainer)
            with self._told("result.json"):
                # Known also where a signal that waited is raised at the end of this block.
                result = trainer.result = write_result()
            if not is_saved:
                raise CheckpointError(f"{self.directory.checkpoints}: the last checkpoint could not be written.")
            return result

    def result(self, trainer: Trainer, *, finished: bool) -> dict[str, Any]:
        """What result.json says, at the end of the run (`finished`) or before."""
        loop = trainer.loop
        tally, steps = loop.tally, trainer.environment_steps
        mean, std = tally.evaluation_at(steps) or (None, None)
        final = loop.statistics.mean_return()
        best = self.store.best()
        return {
            "env_name": trainer.env_name,
            "seed": trainer.seed,
            "environment_steps": steps,
            "iterations": tally.iterations,
            "train_steps": int(trainer.agent.train_step_counter),
            "wall_time_s": round(loop.wall_time(), 3),
            "start_up_time_s": round(tally.start_up_time_s, 3),
            "steps_per_second": round(tally.steps_per_second(steps), 1),
            "collect_time_s": round(tally.collect_time_s, 3),
            "train_time_s": round(tally.train_time_s, 3),
            # JSON knows no NaN.
            "final_train_return_mean": None if math.isnan(final) else final,
            "eval_return_mean": mean,
            "eval_return_std": std,
            "num_eval_episodes": 0 if mean is None else trainer.settings.num_eval_episodes,
            "finished": finished,
            "best_checkpoint": None if best is None else best.name,
            **({} if loop.collector is None else loop.collector.reported()),
        }

    def close(self) -> None:
        """Closes the events and gives the folder back."""
        self._events.close()
        self.directory.release()

    def _plot(self, trainer: Trainer) -> None:
        """Draws the learning curve; a run does not fail because of it."""
        title = f"PPO on {trainer.env_name or 'an environment of its own'}, seed {trainer.seed}"
        try:
            evaluations = trainer.loop.tally.evaluations
            plot_learning_curve(self.directory.learning_curve, title, self._table.read(), evaluations)
        except Exception as error:
            warn(f"{self.directory.learning_curve} could not be drawn: {type(error).__name__}: {error}")

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Tells what could not be written, with the folder, instead of how TensorFlow puts it."""
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise RunError(f"{Path(self.directory.path, name)} could not be written: {reason}.") from error


def _progress(trainer: Trainer) -> tuple[int, int]:
    """Changes whenever there is something new to save."""
    return trainer.environment_steps, len(trainer.loop.tally.evaluations)
