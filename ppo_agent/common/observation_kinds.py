"""What the leaves of an observation are, told from their specs."""

from __future__ import annotations

import enum

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec

# Bounded integers with more values than this are numbers rather than categories.
MAX_CATEGORIES = 4096


class LeafKind(enum.Enum):
    """How an observation leaf is to be understood.

    Attributes:
        NUMBER: quantities; floating-point ones, and integers that are neither of the others.
        CATEGORY: integers that name one of few categories, as gymnasium's Discrete and MultiDiscrete.
        IMAGE: pixels, uint8 [height, width, channels] or [channels, height, width], or a stack of such frames.
    """

    NUMBER = "number"
    CATEGORY = "category"
    IMAGE = "image"


def leaf_kind(spec: tf.TypeSpec) -> LeafKind:
    """Tells what a leaf is.

    Args:
        spec: of one leaf, without batch dimensions.

    Returns:
        IMAGE for uint8 of three or four dimensions; CATEGORY for bounded int32 and int64 scalars and vectors of at most
        `MAX_CATEGORIES` values in all; NUMBER for everything else, 0-or-1 vectors of small integer dtypes among it.
    """
    if spec.dtype == tf.uint8 and spec.shape.rank in (3, 4):
        return LeafKind.IMAGE
    return LeafKind.CATEGORY if _is_category(spec) else LeafKind.NUMBER


def num_categories(spec: tf.TypeSpec) -> np.ndarray:
    """The number of categories of each component of a CATEGORY leaf, int64 of the leaf's shape."""
    minimum, maximum = (np.broadcast_to(bound, spec.shape).astype(np.int64) for bound in (spec.minimum, spec.maximum))
    return maximum - minimum + 1


def _is_category(spec: tf.TypeSpec) -> bool:
    if spec.dtype not in (tf.int32, tf.int64) or spec.shape.rank not in (0, 1) or not tensor_spec.is_bounded(spec):
        return False
    # In Python's integers, because the range of an int64 does not fit an int64.
    low, high = (np.broadcast_to(bound, spec.shape).ravel().tolist() for bound in (spec.minimum, spec.maximum))
    counts = [int(b) - int(a) + 1 for a, b in zip(low, high, strict=True)]
    return bool(counts) and min(counts) >= 1 and sum(counts) <= MAX_CATEGORIES
