"""Compiled nests against tf.nest."""

import collections
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ppo_agent.common import array_nests

Pair = collections.namedtuple("Pair", ["first", "second"])
STRUCTURES: list[Any] = [
    0,
    {"b": 0, "a": 1},
    (0, [1, 2]),
    Pair(0, {"z": (1,), "y": 2}),
    {"b": Pair(0, 1), "a": ({"d": 2, "c": 3}, 4)},
    {"empty": (), "a": 0},
]


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_flattener_and_packer_agree_with_tf_nest(structure: Any) -> None:
    leaves = tf.nest.flatten(structure)
    assert array_nests.flattener(structure)(structure) == leaves
    packed = array_nests.packer(structure)(iter(leaves))
    assert packed == structure
    tf.nest.assert_same_structure(packed, structure)


def test_structures_that_tensorflow_wraps() -> None:
    module = tf.Module()
    module.spec = {"b": (1, 2), "a": [3]}
    assert array_nests.packer(module.spec)(iter([3, 1, 2])) == {"b": (1, 2), "a": [3]}
    assert array_nests.flattener(module.spec)({"b": (1, 2), "a": [3]}) == [3, 1, 2]


@pytest.mark.parametrize("num_parts", [1, 2, 3])
def test_parts_are_put_one_under_the_other(rng, num_parts):
    parts = [{"b": (rng.normal(size=[n + 1, 2]), ()), "a": [rng.integers(5, size=n + 1)]} for n in range(num_parts)]
    whole = array_nests.concatenate(parts)
    assert tf.nest.map_structure(lambda x: x.dtype, whole) == tf.nest.map_structure(lambda x: x.dtype, parts[0])
    np.testing.assert_array_equal(whole["b"][0], np.concatenate([part["b"][0] for part in parts]))
    np.testing.assert_array_equal(whole["a"][0], np.concatenate([part["a"][0] for part in parts]))
    assert whole["b"][1] == ()
