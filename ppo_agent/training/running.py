"""A call of `Trainer.train`: its iterations, what follows each of them, and how it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ppo_agent.callbacks.base import Callbacks
from ppo_agent.drivers import EnvironmentFaultError
from ppo_agent.learner.nonfinite import NonFiniteUpdateError
from ppo_agent.training.collection import Collector
from ppo_agent.training.command_line import RunError, warn
from ppo_agent.training.interrupts import InterruptGuard
from ppo_agent.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from ppo_agent.trainer import Trainer

# What ends a run at a point where its state is sound and can be saved.
FAILURES = (EnvironmentFaultError, NonFiniteUpdateError)


class Run:
    """Runs iterations; whatever ends them, what was trained is written and told."""

    def __init__(self, trainer: Trainer, collector: Collector, callbacks: Callbacks, *, finishes: bool) -> None:
        """Takes the parts; `finishes`: a signal waits for the end of an iteration."""
        self.collector = collector
        self._trainer, self._calls, self._finishes = trainer, callbacks, finishes

    @property
    def guard(self) -> InterruptGuard:
        """Holds signals back while the state changes."""
        return self._trainer.guard

    def call(self, hook: str) -> None:
        """Calls the callbacks that listen to a hook."""
        self._calls.call(hook, self._trainer)

    def to(self, target: int) -> None:
        """Trains up to a number of environment steps, or until a callback ends it.

        Raises:
            KeyboardInterrupt: a signal came.
            CallbackError: a callback raised an error.
            RunError: environments or numbers failed, with a folder; without, their own errors.
        """
        interrupt: KeyboardInterrupt | None = None
        try:
            self._train(target)
        except KeyboardInterrupt as error:
            interrupt = error
        except FAILURES as error:
            self._fail(error)
        self._end()
        trainer = self._trainer
        if trainer.recorder is not None:
            stopped = interrupt is not None
            finished = not stopped and not self._calls.has_error
            trainer.result = trainer.recorder.finish(trainer, interrupted=stopped, finished=finished)
        if interrupt is not None:
            raise interrupt
        self._calls.raise_error()

    def _train(self, target: int) -> None:
        recorder = self._trainer.recorder
        if recorder is not None:
            recorder.start(self._trainer)
        try:
            if self._calls.has("on_step") and not self.collector.watch_steps(lambda: self.call("on_step")):
                warn("on_step is not called: these environments are stepped inside TensorFlow.")
            self.call("on_training_start")
            while not self._calls.stop and self._iterate(target):
                pass
        finally:
            self.collector.watch_steps(None)
        if recorder is not None:
            self._evaluate_once()

    def _iterate(self, target: int) -> bool:
        """An iteration and what follows it; returns False if the steps are used up."""
        trainer, start = self._trainer, time.perf_counter()
        with self.guard.deferred() if self._finishes else contextlib.nullcontext():
            if not trainer.loop.iterate(self, target):
                return False
        seconds = time.perf_counter() - start
        self.call("on_update_end")
        if self._is_due(trainer.settings.eval_interval):
            self._evaluate_once()
        if trainer.recorder is not None:
            trainer.recorder.after_iteration(trainer, seconds)
            if self._is_due(trainer.settings.checkpoint_interval):
                trainer.recorder.save(trainer)
        return True

    def _is_due(self, interval: int) -> bool:
        return interval > 0 and self._trainer.loop.tally.iterations % interval == 0

    def _evaluate_once(self) -> None:
        """Evaluates the policy and writes it down, unless it has not changed since the last time."""
        trainer = self._trainer
        steps, tally = trainer.environment_steps, trainer.loop.tally
        if tally.evaluations and tally.evaluations[-1][0] == steps:
            return
        found = trainer.evaluate(trainer.settings.num_eval_episodes)
        with self.guard.deferred():
            tally.evaluations.append([steps, found.mean, found.std])
            trainer.evaluations.append((steps, found))
            if trainer.recorder is not None:
                trainer.recorder.record_evaluation(trainer, found)
                if tally.last_is_best():
                    trainer.recorder.save(trainer)
        self.call("on_evaluation")

    def record(self, row: Mapping[str, float]) -> None:
        """Writes down the numbers of an iteration, if there is a folder."""
        if self._trainer.recorder is not None:
            self._trainer.recorder.record(row)

    def recording_agent(self) -> contextlib.AbstractContextManager[Any]:
        """Around the agent's update: its debug summaries go to the run's events."""
        recorder, settings = self._trainer.recorder, self._trainer.settings
        if recorder is None:
            return contextlib.nullcontext()
        if settings.debug_summaries or settings.summarize_grads_and_vars:
            return recorder.recording_agent()
        return tf.summary.record_if(False)

    def _end(self) -> None:
        """Tells the callbacks that training has ended; a signal does not disturb that again."""
        with self.guard.deferred(patient=True):
            self.call("on_training_end")

    def _fail(self, error: Exception) -> None:
        """Saves what there is, and raises what the user is told."""
        self._end()
        recorder = self._trainer.recorder
        if recorder is None:
            raise error
        is_saved = recorder.save(self._trainer)
        recorder.close()
        raise _told(error, recorder.directory, is_saved) from error


def _told(error: Exception, directory: RunDirectory, is_saved: bool) -> RunError:
    """Writes down what can be examined later; returns the error for the command line, in one sentence."""
    text = str(error).rstrip(".")
    if isinstance(error, NonFiniteUpdateError):
        path = directory.path / "nonfinite_minibatch.npz"
        error.save(path)
        text += f"; it and the metrics of the last good step are in {path}"
    state = "a checkpoint was saved" if is_saved else "the last checkpoint could not be written"
    return RunError(f"{text}; {state}, --resume goes on with what there is.")
