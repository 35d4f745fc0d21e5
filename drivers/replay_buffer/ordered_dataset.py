"""A dataset that goes through a replay buffer once and in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf
from tf_agents.replay_buffers import tf_uniform_replay_buffer

from ppo_agent.common.types import Nest

BufferInfo: TypeAlias = tf_uniform_replay_buffer.BufferInfo


class OrderedDataset:
    """Makes the dataset; its elements are as `UniformReplayBuffer.as_dataset` describes them."""

    def __init__(
        self,
        read: Callable[[], tuple[Nest, tf.Tensor]],
        sample_batch_size: int | None,
        num_steps: int | None,
        *,
        shift: int | None,
        drop_remainder: bool,
    ) -> None:
        """Stores the arguments.

        Args:
            read: Returns all rows, nest of tensors [B, T, ...], and their ids, [T].
            sample_batch_size: Environments in a group; None for one environment without batch dimension.
            num_steps: Rows in a window; None for one row without time dimension.
            shift: Distance of windows; None for no overlap.
            drop_remainder: Whether a last group or window that is not full is left out.
        """
        self._read = read
        self._group_size = sample_batch_size
        self._num_steps = num_steps
        self._shift = 1 if num_steps is None else shift or num_steps
        self._drop_remainder = drop_remainder

    def make(self, num_parallel_calls: int | None) -> tf.data.Dataset:
        """Returns the dataset, which reads when it is iterated over."""
        return tf.data.Dataset.range(1).flat_map(lambda _: self._everything(num_parallel_calls))

    def _everything(self, num_parallel_calls: int | None) -> tf.data.Dataset:
        data, ids = self._read()
        not_empty = tf.debugging.assert_positive(tf.size(ids), "the buffer is empty, expected at least one row.")
        with tf.control_dependencies([not_empty]):
            starts = tf.data.Dataset.range(0, self._stop(ids), self._shift)
        groups = tf.data.Dataset.from_tensor_slices((data,))
        if self._group_size is not None:
            groups = groups.batch(self._group_size, drop_remainder=self._drop_remainder)
        return groups.flat_map(
            lambda group: starts.map(lambda start: self._window(group, ids, start), num_parallel_calls)
        )

    def _stop(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns the end of the range of window starts."""
        only_full = self._drop_remainder or self._group_size is not None
        return tf.size(ids, tf.int64) - (self._num_steps - 1 if self._num_steps and only_full else 0)

    def _window(self, group: Nest, ids: tf.Tensor, start: tf.Tensor) -> tuple[Nest, BufferInfo]:
        """Cuts a window out of a group [G, T, ...] or, without group size, of an environment's rows [T, ...]."""
        index = start if self._num_steps is None else slice(start, start + self._num_steps)
        grouped = self._group_size is not None
        data = tf.nest.map_structure(lambda x: x[:, index] if grouped else x[index], group)
        return data, BufferInfo(ids=ids[index], probabilities=())
