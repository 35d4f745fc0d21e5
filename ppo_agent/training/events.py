"""TensorBoard events."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from ppo_agent.common import scalar_summaries
from ppo_agent.training.command_line import warn
from ppo_agent.training.run_directory import RunDirectory

# In TensorFlow's messages, whatever the kind of error.
_OF_EVENTS = ("events file", "events.out")


class Events:
    """Writers of a run's events; the files are made when something is written.

    The agent writes its own scalars by train step, this object the episodes' by environment step, under TF-Agents'
    names. If they cannot be written, as on a full disk, they are left out until `retry` is called.
    """

    def __init__(self, directory: RunDirectory) -> None:
        """Names the folders."""
        self._directory = directory
        self._writers: dict[str, tuple[Any, Callable[[], Any]]] = {}
        self._is_paused = False

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """What is written in the block goes to train/."""
        with self._writing(str(self._directory.train_events)):
            yield

    def write_iteration(self, row: Mapping[str, float]) -> None:
        """Writes what is known of the episodes of an iteration, see `metrics_table.COLUMNS`."""
        scalars = {"Metrics/StepsPerSecond": row["steps_per_second"]}
        if not math.isnan(row["episode_return_mean"]):
            scalars["Metrics/AverageReturn"] = row["episode_return_mean"]
            scalars["Metrics/AverageEpisodeLength"] = row["episode_length_mean"]
        with self.training():
            scalar_summaries.write_scalars(int(row["environment_steps"]), **scalars)

    def write_evaluation(self, mean_return: float, environment_steps: int) -> None:
        """Writes the result of an evaluation into eval/."""
        with self._writing(str(self._directory.eval_events)):
            tf.summary.scalar("Metrics/AverageReturn", mean_return, step=environment_steps)

    def retry(self) -> None:
        """Writes again, into new files, if that has failed before."""
        self._is_paused = False

    def close(self) -> None:
        """Writes out what is still in memory."""
        for writer, flush in list(self._writers.values()):
            with self._told():
                flush()
                writer.close()
        self._writers = {}

    @contextlib.contextmanager
    def _writing(self, folder: str) -> Iterator[None]:
        if self._is_paused:
            yield
            return
        if folder not in self._writers:
            writer = tf.summary.create_file_writer(folder)
            self._writers[folder] = (writer, writer.flush)
            # Whoever leaves `as_default` flushes, and stays in it if that fails: it is done behind it.
            writer.flush = _do_nothing
        writer, flush = self._writers[folder]
        with self._told():
            with writer.as_default():
                yield
            flush()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tells of an error of writing, and of no other one, instead of raising it."""
        try:
            yield
        except tf.errors.OpError as error:
            if not any(words in str(error) for words in _OF_EVENTS):
                raise
            self._writers, self._is_paused = {}, True
            warn(f"events cannot be written ({type(error).__name__}): they are left out until the next checkpoint.")


def _do_nothing() -> None:
    pass
