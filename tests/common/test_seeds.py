"""Seeds follow from TensorFlow's global one."""

import pytest
import tensorflow as tf

from ppo_agent.common import limits, seeds


@pytest.mark.parametrize("limit", [limits.LARGEST_INT32, limits.LARGEST_INT64, 10])
def test_equal_global_seeds_give_equal_seeds(limit):
    drawn = []
    for global_seed in (3, 3, 4):
        tf.random.set_seed(global_seed)
        drawn.append([seeds.draw_seed(limit) for _ in range(5)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(type(seed) is int and 0 <= seed < limit for seed in drawn[0])
    assert len(set(drawn[0])) > 1


def test_inside_a_function_it_is_a_number_too():
    drawn = []
    tf.function(lambda: drawn.append(seeds.draw_seed()))()
    assert {type(seed) for seed in drawn} == {int}
