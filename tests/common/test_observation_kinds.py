"""What observation leaves are taken for."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import BoundedTensorSpec

from ppo_agent.common.observation_kinds import LeafKind, leaf_kind, num_categories

INT64 = np.iinfo(np.int64)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (tf.TensorSpec([3], tf.float32), LeafKind.NUMBER),
        (BoundedTensorSpec([84, 84, 3], tf.uint8, 0, 255), LeafKind.IMAGE),
        (tf.TensorSpec([4, 84, 84], tf.uint8), LeafKind.IMAGE),
        (tf.TensorSpec([4, 96, 96, 3], tf.uint8), LeafKind.IMAGE),
        (tf.TensorSpec([2, 4, 96, 96, 3], tf.uint8), LeafKind.NUMBER),
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


def test_num_categories():
    spec = BoundedTensorSpec([3], tf.int64, [0, 1, 2], [3, 3, 2])
    np.testing.assert_array_equal(num_categories(spec), [4, 3, 1])
