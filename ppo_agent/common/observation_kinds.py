"""What the leaves of an observation are, told from their specs."""

from __future__ import annotations

import enum

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.common.specs import num_categories

# Bounded integers with more values than this are numbers rather than categories.
MAX_CATEGORIES = 4096
# uint8 arrays with fewer values than this are boards rather than images, unless they have the size of a screen.
MIN_SHADES, MIN_SCREEN_SIZE = 64, 36


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
        IMAGE for uint8 of three or four dimensions, but for boards: arrays too small for a screen with few values each,
        such as planes of 0 and 1. CATEGORY for bounded int32 and int64 scalars and vectors of at most `MAX_CATEGORIES`
        values in all. NUMBER for everything else, boards and 0-or-1 vectors of small integer dtypes among it.
    """
    if spec.dtype == tf.uint8 and spec.shape.rank in (3, 4):
        return LeafKind.NUMBER if _is_board(spec) else LeafKind.IMAGE
    return LeafKind.CATEGORY if _is_category(spec) else LeafKind.NUMBER


def largest_pixel(spec: tf.TypeSpec) -> int:
    """The largest value of an IMAGE leaf, 255 where the spec does not tell another.

    254 stands for 255 too: `networks.inputs` writes it, because TF-Agents cannot draw samples up to a maximum of 255.
    """
    largest = int(np.max(spec.maximum)) if tensor_spec.is_bounded(spec) else 255
    return 255 if largest >= 254 else max(largest, 1)


def _is_board(spec: tf.TypeSpec) -> bool:
    # Channels are the smallest of the last three dimensions, wherever they stand.
    sizes = sorted(spec.shape.as_list()[-3:])
    return largest_pixel(spec) < MIN_SHADES and sizes[1] < MIN_SCREEN_SIZE


def _is_category(spec: tf.TypeSpec) -> bool:
    if spec.dtype not in (tf.int32, tf.int64) or spec.shape.rank not in (0, 1) or not tensor_spec.is_bounded(spec):
        return False
    counts = num_categories(spec)
    # Each for itself first, because the sum of large ones overflows.
    return bool(counts.size) and counts.min() >= 1 and counts.max() <= MAX_CATEGORIES >= counts.sum()
