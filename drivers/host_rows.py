"""A queue of experience rows in host memory, kept as blocks so that nothing is copied row by row."""

from __future__ import annotations

import threading
from typing import Sequence

import numpy as np


class HostRows:
    """Rows of `batch_size` environments, the oldest first; safe for several threads.

    The leaves of a row are a flat list; a block holds t rows, arrays [B, t, ...]. Rows are read or unread: reading
    makes all rows read, so that the unread ones are always the newest.
    """

    def __init__(self, dtypes: Sequence[np.dtype], shapes: Sequence[tuple[int, ...]], batch_size: int, max_length: int):
        """Creates an empty queue.

        Args:
            dtypes: Of the leaves.
            shapes: Of the leaves in one row of one environment.
            batch_size: B.
            max_length: Most rows per environment.
        """
        self._empty = [
            np.zeros([batch_size, 0, *shape], dtype) for dtype, shape in zip(dtypes, shapes, strict=True)
        ]  # fmt: skip
        self._max_length = max_length
        self._lock = threading.Lock()
        self._added = 0
        self.clear()

    def clear(self) -> None:
        """Drops all rows, read or not."""
        with self._lock:
            self._blocks: list[list[np.ndarray]] = []
            self._length = 0
            self._unread = 0

    def __len__(self) -> int:
        """Returns the number of rows per environment."""
        return self._length

    def append(self, block: list[np.ndarray]) -> None:
        """Adds t rows; the oldest rows make room if they were read.

        Args:
            block: Arrays [B, t, ...]; kept, not copied.

        Raises:
            ValueError: Unread rows would be overwritten.
        """
        rows = block[0].shape[1]
        with self._lock:
            excess = self._length + rows - self._max_length
            if excess > self._length - self._unread:
                raise ValueError(
                    f"max_length is {self._max_length} rows per environment, of which {self._unread} hold unread "
                    f"experience, too few to add {rows} more without overwriting it: read it with gather_all, drop it "
                    "with clear, or make max_length larger."
                )
            if excess > 0:
                self._blocks = [[leaf[:, excess:] for leaf in self._merge()]]
                self._length -= excess
            self._blocks.append(block)
            self._length += rows
            self._unread += rows
            self._added += rows

    def read(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns all rows, arrays [B, T, ...] that must not be written to, and their numbers since the start, [T]."""
        with self._lock:
            self._unread = 0
            return self._merge(), np.arange(self._added - self._length, self._added)

    def _merge(self) -> list[np.ndarray]:
        """Makes one block of all and returns it."""
        if len(self._blocks) != 1:
            columns = zip(self._empty, *self._blocks, strict=True)
            self._blocks = [[np.concatenate(column, axis=1) for column in columns]]
        return self._blocks[0]
