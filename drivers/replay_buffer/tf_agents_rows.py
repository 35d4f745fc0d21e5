"""Whole rollouts for TF-Agents' own replay buffer, which itself takes one row after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tf_agents.replay_buffers import table, tf_uniform_replay_buffer
from tf_agents.utils import nest_utils

from ppo_agent.common.types import Nest, Tensor


def writer_of(observer: Callable[..., Any]) -> Callable[[Nest], Any] | None:
    """What writes rows [B, T, ...] as `TFUniformReplayBuffer.add_batch` would one after the other; else None.

    Subclasses and tables of the user's own may do more than that: they get row after row.
    """
    buffer: Any = getattr(observer, "__self__", None)
    if type(buffer) is not tf_uniform_replay_buffer.TFUniformReplayBuffer or observer.__name__ != "add_batch":
        return None
    has_usual_tables = all(type(part) is table.Table for part in (buffer._data_table, buffer._id_table))
    return (lambda rows: _write(buffer, rows)) if has_usual_tables else None


def _write(buffer: tf_uniform_replay_buffer.TFUniformReplayBuffer, rows: Nest) -> None:
    """Writes rows [B, T, ...] behind those that are there, over the oldest ones where there is no room."""
    nest_utils.assert_same_structure(rows, buffer.data_spec)
    nest_utils.get_outer_rank(tf.nest.map_structure(tf.convert_to_tensor, rows), buffer.data_spec)
    length = tf.shape(tf.nest.flatten(rows)[0])[1]
    kept = tf.minimum(length, buffer._max_length)  # Two writes to one place would be in no order.
    last = buffer._increment_last_id(tf.cast(length, tf.int64))
    ids = tf.range(last - tf.cast(kept, tf.int64) + 1, last + 1)
    places = tf.reshape(buffer._batch_offsets[:, tf.newaxis] + ids % buffer._max_length, [-1])
    ids = tf.tile(ids, [buffer._batch_size])

    def newest(leaf: Tensor) -> tf.Tensor:
        leaf = leaf[:, length - kept :]
        return tf.reshape(leaf, tf.concat([[-1], tf.shape(leaf)[2:]], axis=0))

    with tf.device(buffer._device), tf.name_scope(buffer._scope):
        buffer._id_table.write(places, ids)
        buffer._data_table.write(places, tf.nest.map_structure(newest, rows))
