"""Checks of single arguments that several constructors take."""

from __future__ import annotations

from typing import Any

import numpy as np


def brief(value: Any) -> str:
    """The start of a value's `repr`, on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}..."


def is_int(value: Any, at_least: int = 0) -> bool:
    """Whether a value is an int (NumPy's among them, bools not) of at least `at_least`."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= at_least)


def check_int(name: str, value: Any, at_least: int = 1) -> int:
    """Returns the value as a Python int; `name` is what the argument is called in the message.

    Raises:
        ValueError: it is no int, or less than `at_least`.
    """
    if not is_int(value, at_least):
        expected = "a positive int" if at_least == 1 else f"an int of at least {at_least}"
        raise ValueError(f"{name} is {value!r}, expected {expected}.")
    return int(value)


def check_seed(seed: Any) -> int | None:
    """Returns a seed as a Python int, None as it is; raises ValueError unless it is one of them and not negative."""
    if seed is not None and not is_int(seed):
        raise ValueError(f"seed is {seed!r}, expected None or an int of at least 0.")
    return None if seed is None else int(seed)
