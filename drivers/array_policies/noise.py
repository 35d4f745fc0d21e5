"""Random numbers for policies that act in NumPy, drawn for many steps at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppo_agent.common.checks import check_int
from ppo_agent.common.types import Array

# Random numbers are drawn in blocks of at most this many steps and this many numbers.
_BLOCK_STEPS = 1024
_BLOCK_SIZE = 2**18


class NoiseBlocks:
    """Blocks of random numbers for many steps, from one generator.

    Args:
        forms: Kind and shape of the numbers of one step, for each block. A kind is 'normal', 'uniform' in [0, 1) or
            'gumbel', and a dtype.
        seed: Of the generator.

    Attributes:
        steps: How many steps a block is for.
        blocks: The present ones, [steps, *shape].
    """

    def __init__(self, forms: Sequence[tuple[str, tuple[int, ...]]], seed: np.random.SeedSequence) -> None:
        self._forms = list(forms)
        largest = max((int(np.prod(shape)) for _, shape in forms), default=1)
        self.steps = max(1, min(_BLOCK_STEPS, _BLOCK_SIZE // max(1, largest)))
        self._generator = np.random.default_rng(seed)
        self.draw()

    def draw(self) -> None:
        """Replaces the blocks by new ones."""
        self._start: dict[str, Any] = dict(self._generator.bit_generator.state)
        self.blocks = [_draw(self._generator, kind, (self.steps, *shape)) for kind, shape in self._forms]

    def get_state(self) -> dict[str, Any]:
        """Returns the generator's state before it drew the present blocks, of plain Python objects."""
        return self._start

    def set_state(self, state: dict[str, Any]) -> None:
        """Draws the blocks that another object of the same forms had when its state was read."""
        self._generator.bit_generator.state = state
        self.draw()


def checked_state(state: Any) -> dict[str, Any]:
    """Returns what a program of NumPy operations is to take as its state, if it can.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: It cannot.
    """
    generator = state["generator"]
    for name in ("state", "inc"):  # NumPy 1 takes negative ones for large ones.
        check_int(name, generator["state"][name], at_least=0)
    np.random.default_rng(0).bit_generator.state = generator
    position = check_int("position", state["position"], at_least=0)
    if position > _BLOCK_STEPS:
        raise ValueError(f"position is {position}, expected at most {_BLOCK_STEPS}.")
    return state


def _draw(generator: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    distribution, name = kind.split()
    dtype: Any = np.dtype(name)
    if distribution == "normal":
        return generator.standard_normal(shape, dtype)
    if distribution == "uniform":
        return generator.random(shape, dtype)
    # Doubles and a positive minimum, because infinite noise would choose categories of probability zero.
    exponential = np.maximum(generator.standard_exponential(shape), np.finfo(np.float64).tiny)
    return -np.log(exponential).astype(dtype)
