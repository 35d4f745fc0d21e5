"""TensorBoard events."""

from __future__ import annotations

import math
from collections.abc import Mapping

import tensorflow as tf

from ppo_agent import summaries
from ppo_agent.training.run_directory import RunDirectory


class Events:
    """Writers of a run's events; the files are made when something is written.

    The agent writes its own scalars by train step, this object the episodes' by environment step, under TF-Agents'
    names.
    """

    def __init__(self, directory: RunDirectory) -> None:
        """Names the folders."""
        self._directory = directory
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    @property
    def train_writer(self) -> tf.summary.SummaryWriter:
        """Writer into train/."""
        return self._writer(str(self._directory.train_events))

    def write_iteration(self, row: Mapping[str, float]) -> None:
        """Writes what is known of the episodes of an iteration, see `metrics_table.COLUMNS`."""
        scalars = {"Metrics/StepsPerSecond": row["steps_per_second"]}
        if not math.isnan(row["episode_return_mean"]):
            scalars["Metrics/AverageReturn"] = row["episode_return_mean"]
            scalars["Metrics/AverageEpisodeLength"] = row["episode_length_mean"]
        with self.train_writer.as_default():
            summaries.write_scalars(int(row["environment_steps"]), **scalars)

    def write_evaluation(self, mean_return: float, environment_steps: int) -> None:
        """Writes the result of an evaluation into eval/."""
        writer = self._writer(str(self._directory.eval_events))
        with writer.as_default(step=environment_steps):
            tf.summary.scalar("Metrics/AverageReturn", mean_return)
        writer.flush()

    def close(self) -> None:
        """Writes out what is still in memory."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _writer(self, folder: str) -> tf.summary.SummaryWriter:
        if folder not in self._writers:
            self._writers[folder] = tf.summary.create_file_writer(folder)
        return self._writers[folder]
