"""What follows from specs of single leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def as_float(spec: tf.TensorSpec) -> tf.TensorSpec:
    """The spec of a leaf after normalisation: float32 in place of integers; floating-point leaves stay as they are."""
    return spec if spec.dtype.is_floating else tf.TensorSpec(spec.shape, tf.float32, spec.name)


def num_categories(spec: Any) -> np.ndarray:
    """How many values each component of a bounded integer leaf can take.

    Args:
        spec: of a TensorFlow or NumPy array, of known shape.

    Returns:
        int64 of the leaf's shape; 0 or less where the maximum lies below the minimum, at most 2^63 - 1.
    """
    low, high = (np.broadcast_to(bound, tuple(spec.shape)) for bound in (spec.minimum, spec.maximum))
    # In Python's integers, because the range of an int64 does not fit an int64.
    counts = [min(int(b) - int(a) + 1, 2**63 - 1) for a, b in zip(low.ravel(), high.ravel(), strict=True)]
    return np.array(counts, np.int64).reshape(low.shape)
