"""Nests that do not fit their specs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ppo_agent.common.nest_checks import NestCheck

SPEC = {"a": tf.TensorSpec([2], tf.float32), "b": (tf.TensorSpec([], tf.int64),)}


def _values(*outer: int) -> Any:
    return {"a": np.zeros((*outer, 2), np.float32), "b": (np.zeros(outer, np.int64),)}


@pytest.mark.parametrize("convert", [lambda x: x, tf.constant], ids=["arrays", "tensors"])
def test_what_fits_passes(convert: Callable[[Any], Any]) -> None:
    check = NestCheck("items", SPEC)
    values = tf.nest.map_structure(convert, _values(3, 4))
    check(values, 3, 4)
    check(values, 3, None)
    check.check_shapes(values, ...)
    check.check_shapes(values, 3, 4)
    check.check_shapes(tf.nest.map_structure(convert, _values()), ...)


@pytest.mark.parametrize("convert", [lambda x: x, tf.constant], ids=["arrays", "tensors"])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: {**x, "a": x["a"][..., :1]}, r"items leaf 'a' is of shape \(3, 4, 1\), expected shape \(%s, 2\)\."),
        (lambda x: {**x, "b": (x["a"],)}, r"items leaf 'b/0' is of shape \(3, 4, 2\), expected shape \(%s"),
        (
            lambda x: {"a": x["a"], "c": x["b"]},
            r"items does not fit its spec: leaves missing \['b/0'\], unexpected \['c/0'",
        ),
        (lambda x: x["a"], r"items is a single tensor, expected a nest of \['a', 'b/0'\]\."),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[[Any], Any], text: str, convert: Callable[[Any], Any]) -> None:
    check, values = NestCheck("items", SPEC), change(tf.nest.map_structure(convert, _values(3, 4)))
    with pytest.raises(ValueError, match=text.replace("%s", "3, 4")):
        check.check_shapes(values, 3, 4)
    # A scalar may have any dimensions in front.
    if "b/0" not in text or "missing" in text:
        with pytest.raises(ValueError, match=text.replace("%s", r"\.\.\.")):
            check.check_shapes(values, ...)
    with pytest.raises(ValueError, match="items"):
        check(values, 3, 4)


def test_dtypes_and_sizes_are_checked_where_they_are_told() -> None:
    check = NestCheck("items", SPEC)
    wide = {**_values(3), "a": np.zeros((3, 2))}
    check.check_shapes(wide, 3)
    with pytest.raises(ValueError, match=r"'a' has shape \(3, 2\) and dtype float64, expected .* and dtype float32\."):
        check(wide, 3)
    with pytest.raises(ValueError, match=r"'a' has shape \(3, 2\) .*, expected shape \(4, 2\)"):
        check(_values(3), 4)


def test_a_single_leaf_goes_by_its_name() -> None:
    check = NestCheck("action", tf.TensorSpec([], tf.int64))
    with pytest.raises(ValueError, match=r"^action is None, expected shape \(3,\)\.$"):
        check.check_shapes(None, 3)
    with pytest.raises(ValueError, match=r"^action is of shape \(\), expected shape \(3,\)\.$"):
        check.check_shapes(1, 3)
    with pytest.raises(ValueError, match=r"^action is a nest of \['a', 'b/0'\], expected a single tensor\.$"):
        check.check_shapes(_values(3), 3)


def test_unknown_ranks_pass() -> None:
    check = NestCheck("observation", tf.TensorSpec([4], tf.float32))

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
    def function(values: tf.Tensor) -> tf.Tensor:
        check.check_shapes(values, ...)
        return values

    function(tf.zeros([2, 4]))
