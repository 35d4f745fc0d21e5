"""What follows from specs of single leaves."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def as_float(spec: tf.TensorSpec) -> tf.TensorSpec:
    """The spec of a leaf after normalisation: float32 in place of integers; floating-point leaves stay as they are."""
    return spec if spec.dtype.is_floating else tf.TensorSpec(spec.shape, tf.float32, spec.name)


def num_categories(spec: tf.TypeSpec) -> np.ndarray:
    """How many values each component of a bounded integer leaf can take, int64 of the leaf's shape; 0 or less if none.

    Raises:
        ValueError: one of the numbers does not fit an int64.
    """
    low, high = (np.broadcast_to(bound, spec.shape.as_list()) for bound in (spec.minimum, spec.maximum))
    # In Python's integers, because the range of an int64 does not fit an int64.
    counts = [int(b) - int(a) + 1 for a, b in zip(low.ravel(), high.ravel(), strict=True)]
    if any(count >= 2**63 for count in counts):
        raise ValueError(f"{spec.name or 'a leaf'} has bounds {spec.minimum} to {spec.maximum}, expected fewer values.")
    return np.array(counts, np.int64).reshape(low.shape)
