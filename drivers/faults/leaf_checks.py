"""Observations as arrays of their space's shape and dtype, with no value lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from ppo_agent.common.checks import brief
from ppo_agent.common.types import Array, Nest

from .faults import Fault

RowWriter = Callable[[int, Any], None]


class InvalidLeafError(Exception):
    """Part of what an environment returned is of a wrong form, or has values that its dtype does not hold.

    Attributes:
        fault: What is reported of it.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault

    @classmethod
    def of(cls, name: str, text: str) -> InvalidLeafError:
        """Returns the error of a leaf: what was found and what was expected."""
        return cls(Fault(f"gave an invalid {name}, {text}", leaf=name))


def row_writer(space: gym.Space, batch: Nest, name: str = "observation") -> RowWriter:
    """Returns a function (index, observation) that writes a single observation into a row of a nest of arrays [B, ...].

    The function raises `InvalidLeafError` if the observation does not fit the space.
    """
    if isinstance(space, gym.spaces.Dict):
        return _dict_writer(space, batch, name)
    if isinstance(space, gym.spaces.Tuple):
        return _tuple_writer(space, batch, name)
    return _leaf_writer(batch, name)


def _dict_writer(space: gym.spaces.Dict, batch: Nest, name: str) -> RowWriter:
    writers = {key: row_writer(child, batch[key], f"{name}/{key}") for key, child in space.spaces.items()}
    keys = set(writers)

    def write(index: int, observation: Any) -> None:
        if not isinstance(observation, dict) or observation.keys() != keys:
            raise InvalidLeafError.of(name, f"{brief(observation)}, expected a dict with the keys {list(writers)}")
        for key, write_child in writers.items():
            write_child(index, observation[key])

    return write


def _tuple_writer(space: gym.spaces.Tuple, batch: Nest, name: str) -> RowWriter:
    writers = [row_writer(child, batch[part], f"{name}/{part}") for part, child in enumerate(space.spaces)]

    def write(index: int, observation: Any) -> None:
        if not isinstance(observation, (tuple, list)) or len(observation) != len(writers):
            raise InvalidLeafError.of(name, f"{brief(observation)}, expected a tuple of {len(writers)}")
        for write_child, part in zip(writers, observation, strict=True):
            write_child(index, part)

    return write


def _leaf_writer(batch: Array, name: str) -> RowWriter:
    # Spaces without arrays are refused by those who make specs of them.
    shape, dtype = getattr(batch, "shape", ())[1:], getattr(batch, "dtype", np.dtype(object))

    def write(index: int, value: Any) -> None:
        if type(value) is not np.ndarray or value.dtype != dtype or value.shape != shape:
            value = as_leaf(value, shape, dtype, name)
        batch[index] = value

    return write


def as_leaf(value: Any, shape: tuple[int, ...], dtype: np.dtype, name: str) -> Array:
    """Returns a value as an array of a shape and dtype.

    Floating-point numbers are rounded to the dtype; whole ones must be values of it.

    Raises:
        InvalidLeafError: It is not of that shape, or not of that kind of number, or the dtype does not hold it.
    """
    try:
        array = np.asarray(value)
    except Exception as error:
        raise InvalidLeafError.of(name, f"{brief(value)}, expected an array of shape {shape}") from error
    if array.dtype == object or array.shape != shape:
        found = "dtype object" if array.dtype == object else f"shape {array.shape}"
        raise InvalidLeafError.of(name, f"an array of {found}, expected shape {shape} and dtype {dtype}")
    if array.dtype == dtype:
        return array
    if not is_same_kind(array.dtype, dtype):
        raise InvalidLeafError.of(name, f"an array of dtype {array.dtype}, expected {dtype}")
    if (lost := value_outside(array, dtype)) is not None:
        limits = np.iinfo(dtype)
        raise InvalidLeafError.of(
            name, f"{lost} in an array of dtype {array.dtype}, expected {dtype}, from {limits.min} to {limits.max}"
        )
    return array.astype(dtype)


def is_same_kind(found: np.dtype, expected: np.dtype) -> bool:
    """Returns whether an array of one dtype may stand for one of another, if that holds its values."""
    return (found.kind in "iu" and expected.kind in "iu") or np.can_cast(found, expected, "same_kind")


def value_outside(array: Array, dtype: np.dtype) -> int | None:
    """Returns a whole number of an array that a dtype cannot hold; None if it holds all of them."""
    if dtype.kind not in "iu" or not array.size or np.can_cast(array.dtype, dtype):
        return None
    limits = np.iinfo(dtype)
    return next((x for x in (int(array.min()), int(array.max())) if not limits.min <= x <= limits.max), None)
