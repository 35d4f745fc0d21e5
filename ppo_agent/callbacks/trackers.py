"""Callbacks for other programs: hyper-parameter searches and trackers of experiments."""

from __future__ import annotations

import dataclasses
import importlib
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_agent.callbacks.base import Callback
from ppo_agent.export import export_policy
from ppo_agent.training import plotting

if TYPE_CHECKING:
    from ppo_agent.trainer import Trainer


class OptunaPruning(Callback):
    """Reports evaluations to an Optuna trial, and ends the training when the trial is to be pruned.

    `Trainer.train` raises `optuna.TrialPruned` then. Evaluations are made every `eval_interval` iterations; with
    `on_episodes`, the mean return of the last 100 training episodes is reported after every iteration instead.

    Pruners compare trials at equal steps alone, and environment steps differ a little from trial to trial. So a report
    counts for the nearest of equal shares of the training: with four evaluations, a quarter of its environment steps,
    half, three quarters and all.

    Args:
        trial: an `optuna.Trial`.
        on_episodes: report training episodes.
    """

    def __init__(self, trial: Any, *, on_episodes: bool = False) -> None:
        self._pruned = _needed("optuna", "OptunaPruning").TrialPruned
        self.passes = (self._pruned,)
        self._trial, self._on_episodes, self._last_step = trial, on_episodes, 0

    def on_update_end(self, trainer: Trainer) -> None:
        """Reports the training episodes."""
        if self._on_episodes and not math.isnan(trainer.mean_return):
            self._report(trainer, trainer.mean_return, trainer.environment_steps)

    def on_evaluation(self, trainer: Trainer) -> None:
        """Reports the evaluation."""
        if not self._on_episodes:
            steps, found = trainer.evaluations[-1]
            self._report(trainer, found.mean, steps)

    def _report(self, trainer: Trainer, value: float, steps: int) -> None:
        step = self._nominal(trainer, steps)
        if step <= self._last_step:
            return
        self._last_step = step
        self._trial.report(value, step)
        if self._trial.should_prune():
            raise self._pruned(f"mean return {value:.4g} after {steps} environment steps")

    def _nominal(self, trainer: Trainer, steps: int) -> int:
        """The environment steps that a report counts for, the same in trials with other iterations."""
        settings, target = trainer.settings, trainer.target_steps
        of_an_iteration = settings.steps_per_iteration or steps / trainer.loop.tally.iterations
        of_a_report = of_an_iteration * (1 if self._on_episodes else max(1, settings.eval_interval))
        unit = target / max(1, round(target / of_a_report))
        return round(round(steps / unit) * unit)


class _Tracker(Callback):
    """Hands on settings, the numbers of each iteration, evaluations, and at the end what they have led to."""

    def __init__(self, has_results: bool) -> None:
        self._has_results, self._owns_run = has_results, False
        self._steps: list[float] = []
        self._returns: list[float] = []

    def on_training_start(self, trainer: Trainer) -> None:
        """Hands on the settings."""
        settings = {"env_name": trainer.env_name, "seed": trainer.seed, **dataclasses.asdict(trainer.settings)}
        self._begin(settings)

    def on_update_end(self, trainer: Trainer) -> None:
        """Hands on the numbers that are known."""
        numbers = trainer.metrics
        self._steps.append(trainer.environment_steps)
        self._returns.append(numbers.get("episode_return_mean", math.nan))
        self._log({name: value for name, value in numbers.items() if not math.isnan(value)}, trainer.environment_steps)

    def on_evaluation(self, trainer: Trainer) -> None:
        """Hands on the evaluation."""
        steps, found = trainer.evaluations[-1]
        self._log({"eval_return_mean": found.mean, "eval_return_std": found.std}, steps)

    def on_training_end(self, trainer: Trainer) -> None:
        """Hands on the policy and the learning curve, and ends the run that was begun here."""
        try:
            if self._has_results and self._steps:
                with tempfile.TemporaryDirectory() as folder:
                    self._hand_on_results(trainer, Path(folder))
        finally:
            if self._owns_run:
                self._owns_run = False
                self._finish()

    def _hand_on_results(self, trainer: Trainer, folder: Path) -> None:
        columns = {"environment_steps": self._steps, "episode_return_mean": self._returns}
        evaluations = [(steps, found.mean, found.std) for steps, found in trainer.evaluations]
        picture, policy = folder / "learning_curve.png", folder / "policy"
        title = f"PPO on {trainer.env_name or 'an environment of its own'}, seed {trainer.seed}"
        plotting.plot_learning_curve(picture, title, columns, evaluations)
        export_policy(trainer.agent.policy, policy, environment=trainer.env_name)
        self._log_results(picture, policy)

    def _begin(self, settings: dict[str, Any]) -> None:
        raise NotImplementedError

    def _log(self, numbers: dict[str, float], step: int) -> None:
        raise NotImplementedError

    def _log_results(self, picture: Path, policy: Path) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError


class WandbCallback(_Tracker):
    """Writes settings, numbers, evaluations, policy and learning curve to Weights & Biases.

    Into the run under way, or a new one. `mode="offline"` writes into a folder alone, from which `wandb sync` uploads.

    Args:
        results: whether the policy (an artifact of the type `model`) and the learning curve are handed on at the end.
        **options: of `wandb.init`, such as `project`, where there is no run yet.
    """

    def __init__(self, *, results: bool = True, **options: Any) -> None:
        super().__init__(results)
        self._wandb, self._options = _needed("wandb", "WandbCallback"), options

    def _begin(self, settings: dict[str, Any]) -> None:
        if self._wandb.run is None:
            self._wandb.init(config=settings, **self._options)
            self._owns_run = True
        else:
            self._wandb.config.update(settings, allow_val_change=True)

    def _log(self, numbers: dict[str, float], step: int) -> None:
        self._wandb.log(numbers, step=step)

    def _log_results(self, picture: Path, policy: Path) -> None:
        self._wandb.log({"learning_curve": self._wandb.Image(str(picture))})
        artifact = self._wandb.Artifact(f"policy-{self._wandb.run.id}", type="model")
        artifact.add_dir(str(policy))
        self._wandb.log_artifact(artifact)

    def _finish(self) -> None:
        self._wandb.finish()


class MLflowCallback(_Tracker):
    """Writes settings, numbers, evaluations, policy and learning curve to MLflow.

    Into the run under way, or a new one. `MLFLOW_TRACKING_URI` tells MLflow where to.

    Args:
        results: whether the policy (artifacts in `policy/`) and the learning curve are handed on at the end.
        **options: of `mlflow.start_run`, such as `run_name`, where there is no run yet.
    """

    def __init__(self, *, results: bool = True, **options: Any) -> None:
        super().__init__(results)
        self._mlflow, self._options = _needed("mlflow", "MLflowCallback"), options

    def _begin(self, settings: dict[str, Any]) -> None:
        if self._mlflow.active_run() is None:
            self._mlflow.start_run(**self._options)
            self._owns_run = True
        self._mlflow.log_params(settings)

    def _log(self, numbers: dict[str, float], step: int) -> None:
        self._mlflow.log_metrics({name.replace("/", "."): value for name, value in numbers.items()}, step=step)

    def _log_results(self, picture: Path, policy: Path) -> None:
        self._mlflow.log_artifact(str(picture))
        self._mlflow.log_artifacts(str(policy), "policy")

    def _finish(self) -> None:
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
