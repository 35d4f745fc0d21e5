"""What users hand in: nothing is lost on the way to the dtypes of specs, and one sentence tells what does not fit."""

import collections
import re
import types

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.training import given_arrays

BOUNDED = tensor_spec.BoundedTensorSpec
FLOAT, FLAG = tf.TensorSpec([2], tf.float32), tf.TensorSpec([2], tf.bool)
UINT8, COUNT = BOUNDED([2], tf.uint8, 0, 255), BOUNDED([2], tf.int32, [-1, 0], [1, 5])
NEST = {"b": FLOAT, "a": (UINT8, COUNT)}


def only(values, spec):
    (leaf,) = given_arrays.leaves_of("x", values, spec)
    return given_arrays.fitted(leaf)


@pytest.mark.parametrize(
    ("values", "spec", "expected"),
    [
        ([1, 2], FLOAT, np.array([1, 2], np.float32)),
        (np.array([0.1, -7e30]), FLOAT, np.array([0.1, -7e30], np.float32)),
        (np.array([True, False]), FLOAT, np.array([1, 0], np.float32)),
        (np.array([1e-60, 2.0]), FLOAT, np.array([0, 2], np.float32)),
        (np.array([255, 0], np.int64), UINT8, np.array([255, 0], np.uint8)),
        (np.array([254.0, 3.0]), UINT8, np.array([254, 3], np.uint8)),
        (tf.constant([-1, 5]), COUNT, np.array([-1, 5], np.int32)),
        ([[-1, 0], [1, 5]], COUNT, np.array([[-1, 0], [1, 5]], np.int32)),
        (np.array([1.0, 0.0]), FLAG, np.array([True, False])),
        (np.zeros((0, 2)), COUNT, np.zeros((0, 2), np.int32)),
    ],
)
def test_what_fits_keeps_its_values(values, spec, expected):
    found = only(values, spec)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("values", "spec", "message"),
    [
        (np.array([300, 1]), UINT8, "x goes from 1 to 300, expected 0 to 255."),
        (np.array([-1, 1], np.int8), UINT8, "x goes from -1 to 1, expected 0 to 255."),
        (np.array([0.5, 1]), UINT8, "x holds 0.5, expected whole numbers."),
        (np.array([2**63, 1], np.uint64), tf.TensorSpec([2], tf.int64), f"x goes from 1 to {2**63}, expected "),
        (np.array([2**31, 1]), tf.TensorSpec([2], tf.int32), "x goes from 1 to 2147483648, expected -2147483648 to "),
        (np.array([1, -1]), COUNT, "x goes from -1 to 1, expected [-1, 0] to [1, 5]."),
        (np.array([np.nan, 1]), COUNT, "x holds NaN or infinity, expected finite numbers."),
        (np.array([2, 0]), FLAG, "x goes from 0 to 2, expected 0 to 1."),
        (np.array([0.5, 0]), FLAG, "x holds 0.5, expected whole numbers."),
        (np.array([np.inf, 1]), FLOAT, "x holds NaN or infinity, expected finite numbers."),
        (np.array([1e39, 1]), FLOAT, "x holds 1e+39, expected numbers that float32 can hold."),
        (np.array(["1", "2"]), FLOAT, "x has dtype <U1, expected float32."),
        (np.array([1j, 2]), FLOAT, "x has dtype complex128, expected float32."),
        (np.array([None, 2]), FLOAT, "x has dtype object, expected float32."),
        ([[1, 2], [3]], FLOAT, "x is a list that makes no array, expected an array of numbers."),
        (None, FLOAT, "x is None, expected an array of numbers."),
        ({"a": 1}, FLOAT, "x is a dict, expected an array of numbers."),
    ],
)
def test_what_would_lose_its_values_is_refused(values, spec, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        only(values, spec)


def test_users_count_from_where_they_are():
    leaf = given_arrays.GivenLeaf("x", np.array([0, 3]), BOUNDED([2], tf.int32, 0, 2))
    with pytest.raises(ValueError, match=r"y goes from 5 to 8, expected 5 to 7\."):
        given_arrays.fitted(leaf, called="y", offset=5)


@pytest.mark.parametrize("wrap", [dict, collections.OrderedDict, types.MappingProxyType])
def test_nests_and_lists_in_place_of_arrays(wrap):
    leaves = given_arrays.leaves_of("x", wrap({"a": [[1, 2], [3, 4]], "b": [0.5, 1]}), NEST)
    assert [leaf.name for leaf in leaves] == ["x/a/0", "x/a/1", "x/b"]
    np.testing.assert_array_equal([leaf.array for leaf in leaves], [[1, 2], [3, 4], [0.5, 1]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(2), "x is a ndarray, expected a mapping with the keys ['a', 'b']."),
        (None, "x is None, expected a mapping with the keys ['a', 'b']."),
        ({"a": ([1, 2], [3, 4])}, "x is a mapping with the keys ['a'], expected ['a', 'b']."),
        ({"a": 0, "b": 0, 3: 0}, "x is a mapping with the keys [3, 'a', 'b'], expected ['a', 'b']."),
        ({"a": ([1, 2],), "b": 0}, "x/a is a tuple of 1, expected a tuple of 2."),
        ({"a": {"c": 0}, "b": 0}, "x/a is a dict, expected a tuple of 2."),
    ],
)
def test_another_structure_is_told(values, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        given_arrays.leaves_of("x", values, NEST)
