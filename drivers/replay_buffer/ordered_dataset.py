"""A dataset that goes through a replay buffer once and in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf
from tf_agents.replay_buffers import tf_uniform_replay_buffer

from ppo_agent.common.types import Nest

BufferInfo: TypeAlias = tf_uniform_replay_buffer.BufferInfo


def ordered_dataset(
    read: Callable[[], tuple[Nest, tf.Tensor]],
    sample_batch_size: int | None,
    num_steps: int | None,
    num_parallel_calls: int | None,
    *,
    shift: int | None,
    drop_remainder: bool,
) -> tf.data.Dataset:
    """Returns the dataset, which reads when it is iterated over; see `UniformReplayBuffer.as_dataset`.

    Args:
        read: Returns all rows, nest of tensors [B, T, ...], and their ids, [T].
        sample_batch_size: Environments in a group; None for one environment without batch dimension.
        num_steps: Rows in a window; None for one row without time dimension.
        num_parallel_calls: As for `tf.data.Dataset.map`.
        shift: Distance of windows; None for no overlap.
        drop_remainder: Whether a last group or window that is not full is left out.
    """
    is_grouped = sample_batch_size is not None

    def window(group: Nest, ids: tf.Tensor, start: tf.Tensor) -> tuple[Nest, BufferInfo]:
        """Cuts a window out of a group [G, T, ...] or, without group size, of an environment's rows [T, ...]."""
        index = start if num_steps is None else slice(start, start + num_steps)
        data = tf.nest.map_structure(lambda x: x[:, index] if is_grouped else x[index], group)
        return data, BufferInfo(ids=ids[index], probabilities=())

    def everything(_: tf.Tensor) -> tf.data.Dataset:
        data, ids = read()
        not_empty = tf.debugging.assert_positive(tf.size(ids), "the buffer is empty, expected at least one row.")
        only_full = drop_remainder or is_grouped
        with tf.control_dependencies([not_empty]):
            stop = tf.size(ids, tf.int64) - (num_steps - 1 if num_steps and only_full else 0)
            starts = tf.data.Dataset.range(0, stop, 1 if num_steps is None else shift or num_steps)
        groups = tf.data.Dataset.from_tensor_slices((data,))
        if is_grouped:
            groups = groups.batch(sample_batch_size, drop_remainder=drop_remainder)
        return groups.flat_map(lambda group: starts.map(lambda start: window(group, ids, start), num_parallel_calls))

    return tf.data.Dataset.range(1).flat_map(everything)
