"""Rows of a rollout, kept leaf by leaf until they are stacked."""

from __future__ import annotations

import numpy as np

from ppo_agent.common import array_nests
from ppo_agent.common.types import Nest


class Columns:
    """T nests of arrays [B, ...], all of one structure.

    Arrays alone are kept: tuples and dicts that outlive a few steps make Python's garbage collector go through all
    objects again and again, which takes 0.2 s with TensorFlow's among them.
    """

    def __init__(self) -> None:
        self._columns: list[list[np.ndarray]] = []
        self._structure: Nest = None
        self._flatten: array_nests.Flattener | None = None

    def append(self, nest: Nest) -> None:
        """Adds a row; the arrays are kept, not copied."""
        if self._flatten is None:
            self._structure, self._flatten = nest, array_nests.flattener(nest)
            self._columns = [[] for _ in self._flatten(nest)]
        for column, leaf in zip(self._columns, self._flatten(nest), strict=True):
            column.append(leaf)

    def stack(self) -> Nest:
        """Returns the rows, at least one, as one nest of arrays [B, T, ...]."""
        return array_nests.packer(self._structure)(map(_stack, self._columns))


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    # One concatenation costs a tenth of np.stack, which makes a view of each row first.
    time_major = np.concatenate(arrays).reshape(len(arrays), *arrays[0].shape)
    return np.ascontiguousarray(time_major.swapaxes(0, 1))
