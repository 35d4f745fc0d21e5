"""What follows from specs of single leaves."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import BoundedArraySpec, BoundedTensorSpec

from ppo_agent.common.specs import as_float, num_categories


@pytest.mark.parametrize(
    ("spec", "expected"),
    [(BoundedTensorSpec([3], tf.int64, [0, 1, 2], [3, 3, 2]), [4, 3, 1]),
     (BoundedTensorSpec([], tf.uint8, 0, 255), 256),
     (BoundedTensorSpec([2], tf.int32, [-5, 3], [5, 2]), [11, 0]),
     (BoundedArraySpec((2,), np.int8, -128, 127), [256, 256]),
     (BoundedTensorSpec([], tf.int64, np.iinfo(np.int64).min, np.iinfo(np.int64).max), 2**63 - 1)],
)  # fmt: skip
def test_num_categories(spec, expected):
    found = num_categories(spec)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int64, tf.bool, tf.float32, tf.float64])
def test_as_float(dtype):
    found = as_float(tf.TensorSpec([2], dtype, "x"))
    assert (found.shape, found.name) == (tf.TensorShape([2]), "x")
    assert found.dtype == (dtype if dtype.is_floating else tf.float32)
