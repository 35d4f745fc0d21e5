"""TensorBoard events of a run, all over environment steps."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.plugins.hparams import api as hparams
from tensorflow.core.util import event_pb2

from ppo_agent import summaries
from ppo_agent.common import atomic_files, scalar_summaries
from ppo_agent.training.command_line import warn
from ppo_agent.training.metrics_table import INFO

# Beside the agent's own scalars: tags by the columns of a row.
_TAGS = {
    "steps_per_second": "Metrics/StepsPerSecond",
    "episode_return_mean": "Metrics/AverageReturn",
    "episode_length_mean": "Metrics/AverageEpisodeLength",
    "episode_return_min": "Metrics/MinReturn",
    "episode_return_max": "Metrics/MaxReturn",
    "episode_length_min": "Metrics/MinEpisodeLength",
    "episode_length_max": "Metrics/MaxEpisodeLength",
    "episodes": "Metrics/Episodes",
    "truncated_fraction": "Metrics/TruncatedFraction",
    "wall_time_s": "Metrics/WallTime",
    "importance_ratio_clipping": "Schedules/importance_ratio_clipping",
    "entropy_regularization": "Schedules/entropy_regularization",
    "value_clipping": "Schedules/value_clipping",
    "loss": "Losses/loss",
    "value_mean": "Diagnostics/value_mean",
    "return_mean": "Diagnostics/return_mean",
    "advantage_mean": "Diagnostics/advantage_mean",
    "action_std": "Diagnostics/action_std",
    "train_step": "Diagnostics/train_step",
}


class Events:
    """Writers of a run's events; the files are made when something is written.

    If they cannot be written, as on a full disk, they are left out until `retry` is called.
    """

    def __init__(self, train: Path, evaluation: Path) -> None:
        """Names the folders for training and for evaluations."""
        self._train, self._eval = str(train), str(evaluation)
        self._writers: dict[str, tuple[Any, Callable[[], Any]]] = {}
        self._is_paused = False

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Writes settings for TensorBoard's HParams, which compares runs by them."""
        plain = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in settings.items()
        }
        with self._writing(self._train):
            hparams.hparams(plain)

    def write_iteration(self, row: Mapping[str, float]) -> None:
        """Writes a row of numbers, see `metrics_table.COLUMNS`, and the agent's own, see `PPOAgent.train_metrics`."""
        step = int(row["environment_steps"])
        scalars = {tag: row[name] for name, tag in _TAGS.items() if not math.isnan(row.get(name, math.nan))}
        infos = {f"Infos/{x.removeprefix(INFO)}": value for x, value in row.items() if x.startswith(INFO)}
        with self._writing(self._train):
            if "loss" in row:
                summaries.write_train_metrics(row, step)
            scalar_summaries.write_scalars(step, **scalars, **infos)

    def write_evaluation(self, mean_return: float, environment_steps: int) -> None:
        """Writes the result of an evaluation."""
        with self._writing(self._eval):
            tf.summary.scalar("Metrics/AverageReturn", mean_return, step=environment_steps)

    def recording(self) -> contextlib.AbstractContextManager[None]:
        """What is written in the block, such as an agent's debug summaries, goes to the training events."""
        return self._writing(self._train)

    def retry(self) -> None:
        """Writes again, into new files, if that has failed before."""
        self._is_paused = False

    def close(self) -> None:
        """Writes out what is still in memory; more may be written later."""
        for writer, flush in list(self._writers.values()):
            with self._told():
                flush()
                writer.close()
        self._writers = {}

    def drop_after(self, environment_steps: int) -> None:
        """Drops the events beyond a number of environment steps, which a resumed run writes again."""
        for folder in (self._train, self._eval):
            for path in sorted(Path(folder).glob("events.out.tfevents.*")):
                if path.is_file() and not path.is_symlink():
                    _drop_after(path, environment_steps)

    @contextlib.contextmanager
    def _writing(self, folder: str) -> Iterator[None]:
        if self._is_paused:
            yield
            return
        if folder not in self._writers:
            with self._told():
                writer = tf.summary.create_file_writer(folder)
                self._writers[folder] = (writer, writer.flush)
                # Whoever leaves `as_default` flushes, and stays in it if that fails: it is done behind it.
                writer.flush = _do_nothing
        if folder not in self._writers:
            yield
            return
        writer, flush = self._writers[folder]
        with writer.as_default():
            yield
        with self._told():
            flush()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tells of an error of writing instead of raising it."""
        try:
            yield
        except tf.errors.OpError as error:
            self._writers, self._is_paused = {}, True
            warn(f"events cannot be written ({type(error).__name__}): they are left out until the next checkpoint.")


def _drop_after(path: Path, environment_steps: int) -> None:
    kept, has_dropped = [], False
    # Ends at the first record that is damaged, as behind a crash.
    for record in event_file_loader.RawEventFileLoader(str(path)).Load():
        if event_pb2.Event.FromString(record).step <= environment_steps:
            kept.append(record)
        else:
            has_dropped = True
    if has_dropped:
        unfinished = path.with_name(f"{atomic_files.UNFINISHED}{path.name}")
        with tf.io.TFRecordWriter(str(unfinished)) as writer:
            for record in kept:
                writer.write(record)
        unfinished.replace(path)


def _do_nothing() -> None:
    pass
