"""What observation leaves are taken for."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import BoundedTensorSpec

from ppo_agent.common.observation_kinds import LeafKind, largest_pixel, leaf_kind

INT64 = np.iinfo(np.int64)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (tf.TensorSpec([3], tf.float32), LeafKind.NUMBER),
        (BoundedTensorSpec([84, 84, 3], tf.uint8, 0, 255), LeafKind.IMAGE),
        (tf.TensorSpec([4, 84, 84], tf.uint8), LeafKind.IMAGE),
        (tf.TensorSpec([4, 96, 96, 3], tf.uint8), LeafKind.IMAGE),
        (tf.TensorSpec([2, 4, 96, 96, 3], tf.uint8), LeafKind.NUMBER),
        (BoundedTensorSpec([8, 8, 12], tf.uint8, 0, 1), LeafKind.NUMBER),
        (BoundedTensorSpec([12, 8, 8], tf.uint8, 0, 1), LeafKind.NUMBER),
        (BoundedTensorSpec([19, 19, 2], tf.uint8, 0, [[[1, 2]]], "go"), LeafKind.NUMBER),
        (BoundedTensorSpec([7, 7, 3], tf.uint8, 0, 10), LeafKind.NUMBER),
        (BoundedTensorSpec([4, 8, 8, 2], tf.uint8, 0, 63), LeafKind.NUMBER),
        (BoundedTensorSpec([7, 7, 3], tf.uint8, 0, 255), LeafKind.IMAGE),
        (BoundedTensorSpec([8, 8, 1], tf.uint8, 0, 64), LeafKind.IMAGE),
        (BoundedTensorSpec([84, 84, 4], tf.uint8, 0, 1), LeafKind.IMAGE),
        (BoundedTensorSpec([4, 36, 40], tf.uint8, 0, 15), LeafKind.IMAGE),
        (BoundedTensorSpec([84, 84, 3], tf.float32, 0, 1), LeafKind.NUMBER),
        (BoundedTensorSpec([128], tf.uint8, 0, 255), LeafKind.NUMBER),
        (BoundedTensorSpec([], tf.int64, 5, 9), LeafKind.CATEGORY),
        (BoundedTensorSpec([3], tf.int64, [0, 1, 2], [3, 3, 2]), LeafKind.CATEGORY),
        (BoundedTensorSpec([], tf.int32, 0, 4095), LeafKind.CATEGORY),
        (BoundedTensorSpec([], tf.int32, 0, 4096), LeafKind.NUMBER),
        (BoundedTensorSpec([2], tf.int32, 0, 2048), LeafKind.NUMBER),
        (BoundedTensorSpec([], tf.int64, INT64.min, INT64.max), LeafKind.NUMBER),
        (BoundedTensorSpec([4], tf.int8, 0, 1), LeafKind.NUMBER),
        (BoundedTensorSpec([2, 2], tf.int64, 0, 1), LeafKind.NUMBER),
        (tf.TensorSpec([], tf.int64), LeafKind.NUMBER),
        (tf.TensorSpec([2], tf.bool), LeafKind.NUMBER),
    ],
    ids=str,
)
def test_leaf_kind(spec, kind):
    assert leaf_kind(spec) is kind


@pytest.mark.parametrize(
    ("spec", "expected"),
    [(tf.TensorSpec([9, 9, 1], tf.uint8), 255), (BoundedTensorSpec([9, 9, 1], tf.uint8, 0, 254), 255),
     (BoundedTensorSpec([9, 9, 1], tf.uint8, 0, 100), 100), (BoundedTensorSpec([40, 40, 1], tf.uint8, 0, 0), 1)],
)  # fmt: skip
def test_largest_pixel(spec, expected):
    assert largest_pixel(spec) == expected
