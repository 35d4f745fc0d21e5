"""What a vector environment's step returns besides observations, checked for those that report no faults."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppo_agent.common.checks import brief

from ..faults.faults import EnvironmentFaultError

_BOOL = np.dtype(bool)
_NUMBERS, _FLAGS = "fiub", "iub"


def check_result(reward: Any, terminated: Any, truncated: Any, size: int, step: int) -> None:
    """Checks rewards, expected to be numbers [size], and flags, expected to be bools [size] or ints 0 and 1.

    Raises:
        EnvironmentFaultError: One of them is something else.
    """
    shape = (size,)
    if _is_usual(reward, terminated, truncated, shape):
        return
    _check("reward", reward, shape, _NUMBERS, "numbers", step)
    for name, flags in (("terminated", terminated), ("truncated", truncated)):
        _check(name, flags, shape, _FLAGS, "bools", step)


def _is_usual(reward: Any, terminated: Any, truncated: Any, shape: tuple[int]) -> bool:
    """Returns whether all is right at the first glance, which takes a third of a microsecond."""
    try:
        fits = reward.shape == terminated.shape == truncated.shape == shape
        return fits and terminated.dtype is truncated.dtype is _BOOL and reward.dtype.kind == "f"
    except AttributeError:
        return False


def _check(name: str, value: Any, shape: tuple[int], kinds: str, expected: str, step: int) -> None:
    array = value if isinstance(value, np.ndarray) else _as_array(value)
    fits = array.shape == shape and array.dtype.kind in kinds
    if fits and (kinds is _NUMBERS or array.dtype.kind == "b" or ((array == 0) | (array == 1)).all()):
        return
    raise EnvironmentFaultError(
        f"the vector environment gave an invalid {name}, {brief(value)}, expected {expected} of shape {shape}, in its "
        f"step {step}.", None, step, name,
    )  # fmt: skip


def _as_array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except Exception:  # Of ragged sequences and the like nothing has to be known but that they are no array.
        return np.asarray(None)
