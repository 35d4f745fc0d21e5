"""Checks of single arguments."""

import numpy as np
import pytest

from ppo_agent.common import checks


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.uint8(200), 2**40])
def test_an_int_is_returned_as_a_python_int(value):
    checked = checks.check_int("n", value)
    assert type(checked) is int
    assert checked == value


@pytest.mark.parametrize("value", [0, -1, True, False, 1.0, np.float32(2), "3", None, [1], np.bool_(True)])
def test_what_is_no_positive_int(value):
    with pytest.raises(ValueError, match=r"n is .*, expected a positive int\.$"):
        checks.check_int("n", value)


def test_another_smallest_value():
    assert checks.check_int("n", 0, at_least=0) == 0
    with pytest.raises(ValueError, match=r"n is -1, expected an int of at least 0\.$"):
        checks.check_int("n", -1, at_least=0)


@pytest.mark.parametrize("value", [None, 0, np.int64(2**62)])
def test_a_seed(value):
    assert checks.check_seed(value) == value


@pytest.mark.parametrize("value", [-1, True, 0.5, "a"])
def test_what_is_no_seed(value):
    with pytest.raises(ValueError, match=r"seed is .*, expected None or an int of at least 0\.$"):
        checks.check_seed(value)
