"""Callbacks that write something down every so many environment steps."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import tensorflow as tf

from ppo_agent.callbacks.base import Callback
from ppo_agent.common.checks import check_int
from ppo_agent.export import export_policy

if TYPE_CHECKING:
    from ppo_agent.trainer import Trainer
    from ppo_agent.training.evaluation import Evaluation

PathLike = str | os.PathLike[str]


class Periodic(Callback):
    """Acts when so many environment steps have passed; after the iteration in which they did.

    Args:
        every: environment steps.
    """

    def __init__(self, every: int) -> None:
        self._every, self._next = check_int("every", every), 0

    def on_training_start(self, trainer: Trainer) -> bool | None:
        """Begins to count."""
        self._next = trainer.environment_steps + self._every
        return None

    def on_update_end(self, trainer: Trainer) -> bool | None:
        """Acts if it is due."""
        if trainer.environment_steps < self._next:
            return None
        self._next = trainer.environment_steps + self._every
        return self.act(trainer)

    def act(self, trainer: Trainer) -> bool | None:
        """What is done; False ends the training."""
        raise NotImplementedError


class EvalCallback(Periodic):
    """Evaluates in an environment of its own, and keeps the best policy.

    Args:
        env: as `Trainer` takes it; None for the trainer's.
        every: environment steps between evaluations.
        num_episodes: of an evaluation.
        best_dir: folder for the best policy, as `export_policy` writes it; None keeps its parameters only.

    Attributes:
        evaluations: (environment steps, `Evaluation`) each.
        best_mean: the best mean return; None before the first evaluation.
        best_parameters: what `Trainer.get_parameters` returned then.
    """

    def __init__(
        self, env: Any = None, every: int = 10_000, num_episodes: int = 20, best_dir: PathLike | None = None
    ) -> None:
        super().__init__(every)
        self._env, self._num_episodes = env, check_int("num_episodes", num_episodes)
        self._best_dir = best_dir
        self.evaluations: list[tuple[int, Evaluation]] = []
        self.best_mean: float | None = None
        self.best_parameters: dict[str, Any] | None = None

    def act(self, trainer: Trainer) -> None:
        """Evaluates."""
        found = trainer.evaluate(self._num_episodes, env=self._env)
        self.evaluations.append((trainer.environment_steps, found))
        if self.best_mean is None or found.mean > self.best_mean:
            self.best_mean, self.best_parameters = found.mean, trainer.get_parameters()
            if self._best_dir is not None:
                export_policy(trainer.agent.policy, self._best_dir)


class CheckpointCallback(Periodic):
    """Writes checkpoints into a folder, from which `Trainer.load_parameters` and `Trainer.load` read.

    Args:
        path: the folder; the checkpoints lie in `checkpoints/` in it.
        every: environment steps between checkpoints.
        kept: how many of the last ones are kept.
    """

    def __init__(self, path: PathLike, every: int = 10_000, kept: int = 3) -> None:
        super().__init__(every)
        self._path, self._kept = Path(path), check_int("kept", kept)

    def act(self, trainer: Trainer) -> None:
        """Writes a checkpoint."""
        trainer.save(self._path, kept=self._kept)


class VideoCallback(Periodic):
    """Records an episode with the present policy, an MP4 file each; needs moviepy.

    Args:
        path: folder for the files.
        every: environment steps between them.
        env: callable that makes an environment with `render_mode="rgb_array"`; None makes the trainer's by its name.
    """

    def __init__(self, path: PathLike, every: int = 50_000, env: Any = None) -> None:
        super().__init__(every)
        self._path, self._env = Path(path), env

    def act(self, trainer: Trainer) -> None:
        """Records an episode."""
        make = self._env
        if make is None:
            if trainer.env_name is None:
                raise ValueError("env is None, expected a callable: the trainer's environment has no name.")
            make = functools.partial(gymnasium.make, trainer.env_name, render_mode="rgb_array")
        prefix = f"steps-{trainer.environment_steps}"
        trainer.evaluate(1, env=functools.partial(_recorded, make, self._path, prefix))


def _recorded(make: Any, path: Path, prefix: str) -> gymnasium.Env:
    return gymnasium.wrappers.RecordVideo(
        make(), str(path), episode_trigger=lambda episode: episode == 0, name_prefix=prefix, disable_logger=True
    )


class HistogramCallback(Periodic):
    """Writes histograms of variables, actions, rewards and observations, and images observed, for TensorBoard.

    Args:
        path: folder for the events.
        every: environment steps between them.
        images: how many observed images are written; 0 for none.
    """

    def __init__(self, path: PathLike, every: int = 10_000, images: int = 0) -> None:
        super().__init__(every)
        self._path, self._images = str(path), check_int("images", images, at_least=0)
        self._writer: Any = None

    def act(self, trainer: Trainer) -> None:
        """Writes them at the number of environment steps."""
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._path)
        step, experience = trainer.environment_steps, trainer.experience
        with self._writer.as_default(step):
            for name, array in trainer.get_parameters().items():
                tf.summary.histogram(f"Variables/{name}", array)
            for group in ("action", "reward", "observation"):
                for index, leaf in enumerate(tf.nest.flatten(getattr(experience, group))):
                    tf.summary.histogram(f"Experience/{group}_{index}", leaf)
                    if self._images and group == "observation" and leaf.dtype == tf.uint8 and leaf.shape.rank == 5:
                        tf.summary.image(f"Experience/{group}_{index}", leaf[0, : self._images, ..., -1:])
        self._writer.flush()

    def on_training_end(self, _: Trainer) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
