"""A queue of experience rows in host memory, kept as blocks so that nothing is copied row by row."""

from __future__ import annotations

import threading

import numpy as np
import tensorflow as tf

from ppo_agent.common import host_calls
from ppo_agent.common.types import Nest


class HostRows:
    """Rows of `batch_size` environments, the oldest first; safe for several threads.

    Rows come in blocks of t, nests of arrays or eager tensors [B, t, ...]. They are read or unread: reading makes all
    rows read, so that the unread ones are always the newest.

    Attributes:
        data_spec: Nest of `tf.TensorSpec` of one row of one environment.
        read_spec: Of what `read` returns.
    """

    def __init__(self, data_spec: Nest, batch_size: int, max_length: int) -> None:
        """Creates an empty queue of at most `max_length` rows for each of B environments."""
        self.data_spec = data_spec = host_calls.plain(data_spec)
        self.read_spec = (host_calls.with_outer_dims(data_spec, batch_size, None), tf.TensorSpec([None], tf.int64))
        self._empty = tf.nest.map_structure(
            lambda leaf: np.zeros([batch_size, 0, *leaf.shape], leaf.dtype.as_numpy_dtype), data_spec
        )
        self._max_length = max_length
        self._lock = threading.Lock()
        self._added = 0
        self.clear()

    def clear(self) -> None:
        """Drops all rows, read or not."""
        with self._lock:
            self._blocks: list[Nest] = []
            self._length = 0
            self._unread = 0

    def __len__(self) -> int:
        """Returns the number of rows per environment."""
        return self._length

    def append(self, block: Nest) -> None:
        """Adds t rows; the oldest rows make room if they were read.

        Args:
            block: Nest of arrays or eager tensors [B, t, ...]; kept, not copied.

        Raises:
            ValueError: Unread rows would be overwritten.
        """
        rows = tf.nest.flatten(block)[0].shape[1]
        with self._lock:
            excess = self._length + rows - self._max_length
            if excess > self._length - self._unread:
                raise ValueError(
                    f"max_length is {self._max_length} rows per environment, of which {self._unread} hold unread "
                    f"experience, too few to add {rows} more without overwriting it: read it with gather_all, drop it "
                    "with clear, or make max_length larger."
                )
            if excess > 0:
                self._blocks = [tf.nest.map_structure(lambda leaf: leaf[:, excess:], self._merge())]
                self._length -= excess
            self._blocks.append(block)
            self._length += rows
            self._unread += rows
            self._added += rows

    def read(self) -> tuple[Nest, np.ndarray]:
        """Returns all rows, nest of [B, T, ...] not to be written to, and their numbers since the start, [T].

        Those of a single block of tensors are tensors; all others are arrays.
        """
        with self._lock:
            self._unread = 0
            return self._merge(), np.arange(self._added - self._length, self._added)

    def _merge(self) -> Nest:
        """Makes one block of all and returns it."""
        if len(self._blocks) != 1:
            self._blocks = [
                tf.nest.map_structure(lambda *parts: np.concatenate(parts, axis=1), self._empty, *self._blocks)
            ]
        return self._blocks[0]
