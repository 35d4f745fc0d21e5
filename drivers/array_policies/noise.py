"""Random numbers for policies that act in NumPy, drawn for many steps at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppo_agent.common.types import Array

# Random numbers are drawn in blocks of at most this many steps and this many numbers.
_BLOCK_STEPS = 1024
_BLOCK_SIZE = 2**18


class NoiseBlock:
    """Random numbers for one head, drawn for many steps at once.

    Args:
        kind: 'normal', 'uniform' in [0, 1) or 'gumbel'.
        shape: of the numbers for one row of the batch.
        seed: of the generator.
    """

    def __init__(self, kind: str, shape: tuple[int, ...], seed: np.random.SeedSequence) -> None:
        self._draw = {"normal": _draw_normal, "uniform": _draw_uniform, "gumbel": _draw_gumbel}[kind]
        self._shape = shape
        self._generator = np.random.default_rng(seed)
        self._start: dict[str, Any] = dict(self._generator.bit_generator.state)
        self._block = np.empty((0, 0), np.float32)
        self._batch_size = 0
        self._position = 0

    def next(self, batch_size: int) -> Array:
        """Returns the numbers of the next step, [batch_size, *shape], float32."""
        if self._position == len(self._block) or batch_size != self._batch_size:
            self._start = dict(self._generator.bit_generator.state)
            self._fill(batch_size)
        row = self._block[self._position]
        self._position += 1
        return row

    def _fill(self, batch_size: int) -> None:
        per_step = max(1, batch_size * int(np.prod(self._shape)))
        steps = max(1, min(_BLOCK_STEPS, _BLOCK_SIZE // per_step))
        self._block = self._draw(self._generator, (steps, batch_size, *self._shape))
        self._batch_size = batch_size
        self._position = 0

    def get_state(self) -> dict[str, Any]:
        """Generator state at the block's start, batch size and position in the block."""
        return {"generator": self._start, "batch_size": self._batch_size, "position": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Draws the block of that state again and goes to the position in it."""
        self._generator.bit_generator.state = state["generator"]
        self._start = state["generator"]
        self._fill(state["batch_size"])  # For a batch size of 0, where nothing was drawn yet, it draws nothing.
        self._position = state["position"]


def _draw_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return generator.standard_normal(shape, np.float32)


def _draw_uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return generator.random(shape, np.float32)


def _draw_gumbel(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    # Doubles and a positive minimum, because infinite noise would choose categories of probability zero.
    exponential = np.maximum(generator.standard_exponential(shape), np.finfo(np.float64).tiny)
    return -np.log(exponential).astype(np.float32)
