"""Layout of action masks."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import BoundedTensorSpec

from ppo_agent.common.action_masks import MaskLayout, has_mask, split

HYBRID = {
    "a": BoundedTensorSpec([], tf.int64, 1, 3),  # 3 categories
    "b": BoundedTensorSpec([2], tf.float32, -1, 1),
    "c": (BoundedTensorSpec([2, 2], tf.int32, 0, [[1, 2], [0, 3]]), BoundedTensorSpec([3], tf.int32, 0, 1)),
}


def test_layout_of_a_nested_action():
    layout = MaskLayout(HYBRID)
    assert layout.size == 3 + (2 + 3 + 1 + 4) + 3 * 2
    np.testing.assert_array_equal(layout.offsets, [0, 3, 5, 8, 9, 13, 15, 17])
    a, b, c, d = layout.leaf_indices
    np.testing.assert_array_equal(a, [0, 1, 2])
    assert b is None
    np.testing.assert_array_equal(c, [[[3, 4, 19, 19], [5, 6, 7, 19]], [[8, 19, 19, 19], [9, 10, 11, 12]]])
    np.testing.assert_array_equal(d, [[13, 14], [15, 16], [17, 18]])


def test_rows_without_choice(rng):
    layout = MaskLayout(HYBRID)
    mask = rng.random((500, layout.size)) < 0.6
    parts = np.split(mask, layout.offsets[1:], axis=1)
    expected = [row for row in range(500) if not all(part[row].any() for part in parts)]
    assert 0 < len(expected) < 500
    np.testing.assert_array_equal(layout.rows_without_choice(mask.astype(np.int8)), expected)


def test_split_by_convention_and_by_splitter():
    masked = {"observation": 1, "action_mask": 2}
    assert has_mask(masked)
    assert split(masked) == (1, 2)
    for other in ({"observation": 1}, {**masked, "more": 3}, 5, (1, 2)):
        assert not has_mask(other)
        assert split(other) == (other, None)
    assert split((1, 2), lambda x: (x[0], x[1])) == (1, 2)


@pytest.mark.parametrize("shape", [[18], [20], [], [1, 19]], ids=str)
def test_a_mask_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match=r"the action mask has the shape .*, expected \[19\]"):
        MaskLayout(HYBRID).check_spec(tf.TensorSpec(shape, tf.int8))
    MaskLayout(HYBRID).check_spec(tf.TensorSpec([19], tf.int8))


def test_a_mask_without_discrete_actions_is_refused():
    with pytest.raises(ValueError, match="no discrete component"):
        MaskLayout(BoundedTensorSpec([2], tf.float32, -1, 1)).check_spec(tf.TensorSpec([2], tf.int8))
