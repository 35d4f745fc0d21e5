"""Arguments with which two ways to compute one function are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Array, Nest


def probes(specs: Nest, example: Nest) -> list[Nest]:
    """Returns the example, a nest of arrays [B, ...], and others: random numbers, large ones, ones with NaN among them.

    Whole numbers stay within the bounds of their spec, or are the example's where there are none.
    """
    rng = np.random.default_rng(0)
    leaves, leaf_specs = tf.nest.flatten(example), tf.nest.flatten(specs)

    def variant(number: Callable[[tuple[int, ...]], Array]) -> Nest:
        drawn = [_draw(leaf, spec, number, rng) for leaf, spec in zip(leaves, leaf_specs, strict=True)]
        return tf.nest.pack_sequence_as(example, drawn)

    def some_nan(shape: tuple[int, ...]) -> Array:
        return np.where(rng.random(shape) < 0.2, np.nan, rng.normal(size=shape))

    return [
        example,
        variant(lambda shape: rng.normal(size=shape)),
        variant(lambda shape: 1e4 * rng.normal(size=shape)),
        variant(some_nan),
    ]


def _draw(leaf: Array, spec: Any, number: Callable[[tuple[int, ...]], Array], rng: np.random.Generator) -> Array:
    """Returns other values for a leaf."""
    if leaf.dtype.kind == "f":
        return number(leaf.shape).astype(leaf.dtype)
    if leaf.dtype.kind == "b":
        return rng.random(leaf.shape) < 0.5
    if hasattr(spec, "maximum") and leaf.dtype.kind in "iu":
        low, high = (np.broadcast_to(bound, leaf.shape) for bound in (spec.minimum, spec.maximum))
        return rng.integers(low, high, leaf.shape, leaf.dtype, endpoint=True)
    return rng.permutation(leaf)
