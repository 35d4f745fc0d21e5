"""Callbacks for other programs: hyper-parameter searches and trackers of experiments."""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import TYPE_CHECKING, Any

from ppo_agent.callbacks.base import Callback

if TYPE_CHECKING:
    from ppo_agent.trainer import Trainer


class OptunaPruning(Callback):
    """Reports evaluations to an Optuna trial, and ends the training when the trial is to be pruned.

    `Trainer.train` raises `optuna.TrialPruned` then. Evaluations are made every `eval_interval` iterations; with
    `on_episodes`, the mean return of the last 100 training episodes is reported after every iteration instead.

    Args:
        trial: an `optuna.Trial`.
        on_episodes: report training episodes.
    """

    def __init__(self, trial: Any, *, on_episodes: bool = False) -> None:
        self._pruned = _needed("optuna", "OptunaPruning").TrialPruned
        self.passes = (self._pruned,)
        self._trial, self._on_episodes = trial, on_episodes

    def on_update_end(self, trainer: Trainer) -> None:
        """Reports the training episodes."""
        if self._on_episodes and not math.isnan(trainer.mean_return):
            self._report(trainer.mean_return, trainer.environment_steps)

    def on_evaluation(self, trainer: Trainer) -> None:
        """Reports the evaluation."""
        if not self._on_episodes:
            steps, found = trainer.evaluations[-1]
            self._report(found.mean, steps)

    def _report(self, value: float, step: int) -> None:
        self._trial.report(value, step)
        if self._trial.should_prune():
            raise self._pruned(f"mean return {value:.4g} after {step} environment steps")


class _Tracker(Callback):
    """Hands on settings, the numbers of each iteration, and evaluations."""

    def on_training_start(self, trainer: Trainer) -> None:
        """Hands on the settings."""
        settings = {"env_name": trainer.env_name, "seed": trainer.seed, **dataclasses.asdict(trainer.settings)}
        self._begin(settings)

    def on_update_end(self, trainer: Trainer) -> None:
        """Hands on the numbers that are known."""
        known = {name: value for name, value in trainer.metrics.items() if not math.isnan(value)}
        self._log(known, trainer.environment_steps)

    def on_evaluation(self, trainer: Trainer) -> None:
        """Hands on the evaluation."""
        steps, found = trainer.evaluations[-1]
        self._log({"eval_return_mean": found.mean, "eval_return_std": found.std}, steps)

    def on_training_end(self, _: Trainer) -> None:
        """Ends the run that was begun here."""
        self._finish()

    def _begin(self, settings: dict[str, Any]) -> None:
        raise NotImplementedError

    def _log(self, numbers: dict[str, float], step: int) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError


class WandbCallback(_Tracker):
    """Writes settings, numbers and evaluations to Weights & Biases, into the run under way or a new one.

    Args:
        **options: of `wandb.init`, such as `project`, where there is no run yet.
    """

    def __init__(self, **options: Any) -> None:
        self._wandb, self._options = _needed("wandb", "WandbCallback"), options
        self._owns_run = False

    def _begin(self, settings: dict[str, Any]) -> None:
        if self._wandb.run is None:
            self._wandb.init(config=settings, **self._options)
            self._owns_run = True
        else:
            self._wandb.config.update(settings, allow_val_change=True)

    def _log(self, numbers: dict[str, float], step: int) -> None:
        self._wandb.log(numbers, step=step)

    def _finish(self) -> None:
        if self._owns_run:
            self._owns_run = False
            self._wandb.finish()


class MLflowCallback(_Tracker):
    """Writes settings, numbers and evaluations to MLflow, into the run under way or a new one.

    Args:
        **options: of `mlflow.start_run`, such as `run_name`, where there is no run yet.
    """

    def __init__(self, **options: Any) -> None:
        self._mlflow, self._options = _needed("mlflow", "MLflowCallback"), options
        self._owns_run = False

    def _begin(self, settings: dict[str, Any]) -> None:
        if self._mlflow.active_run() is None:
            self._mlflow.start_run(**self._options)
            self._owns_run = True
        self._mlflow.log_params(settings)

    def _log(self, numbers: dict[str, float], step: int) -> None:
        self._mlflow.log_metrics({name.replace("/", "."): value for name, value in numbers.items()}, step=step)

    def _finish(self) -> None:
        if self._owns_run:
            self._owns_run = False
            self._mlflow.end_run()


def _needed(module: str, name: str) -> Any:
    """The module, imported.

    Raises:
        ImportError: it is not installed; the sentence says what to do.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{name} needs {module}, which is not installed: run `pip install {module}`.") from error
