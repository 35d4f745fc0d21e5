"""What users hand in as observations, actions and states, as arrays of the dtypes that specs ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ppo_agent.common import array_nests
from ppo_agent.common.types import Array, Nest


class GivenLeaf(NamedTuple):
    """A leaf of what was handed in.

    Attributes:
        name: of the nest, followed by the path of the leaf.
        array: its values as they were given.
        spec: what is expected of it, without batch dimensions.
    """

    name: str
    array: Array
    spec: Any


def leaves_of(name: str, values: Nest, spec: Nest) -> list[GivenLeaf]:
    """The leaves of a nest in tf.nest's order; a list of numbers stands for an array where the spec has a leaf.

    Args:
        name: what the nest is called in errors.
        values: the nest.
        spec: nest of specs.

    Raises:
        ValueError: it has another structure than the spec, or something in it is no array.
    """
    if not array_nests.is_nest(spec):
        return [GivenLeaf(name, _as_array(name, values), spec)]
    parts = array_nests.parts_of(spec)
    _check_parts(name, values, spec, [key for key, _ in parts])
    return [leaf for key, child in parts for leaf in leaves_of(f"{name}/{key}", values[key], child)]


def _check_parts(name: str, values: Nest, spec: Nest, keys: list[Any]) -> None:
    """Raises ValueError if a nest is of another kind than its spec, or has other keys."""
    if isinstance(spec, Mapping):
        if not isinstance(values, Mapping):
            raise ValueError(f"{name} is {_kind(values)}, expected a mapping with the keys {keys}.")
        if set(values) != set(keys):
            raise ValueError(f"{name} is a mapping with the keys {sorted(values, key=str)}, expected {keys}.")
    elif not isinstance(values, (tuple, list)) or len(values) != len(keys):
        found = f"{_kind(values)} of {len(values)}" if isinstance(values, (tuple, list)) else _kind(values)
        raise ValueError(f"{name} is {found}, expected a tuple of {len(keys)}.")


def _as_array(name: str, value: Any) -> Array:
    if value is None or isinstance(value, Mapping):
        raise ValueError(f"{name} is {_kind(value)}, expected an array of numbers.")
    try:
        return np.asarray(value)
    except Exception as error:  # Of whatever the object is that is asked for an array.
        raise ValueError(f"{name} is {_kind(value)} that makes no array, expected an array of numbers.") from error


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def fitted(leaf: GivenLeaf, *, called: str | None = None, offset: Any = 0) -> Array:
    """A leaf's array in the dtype of its spec, if that loses nothing but precision.

    Args:
        leaf: the leaf.
        called: its name in errors, in place of its own.
        offset: what users count from, for errors: added to whole numbers that are told.

    Raises:
        ValueError: it is of no numbers, of fractions where whole ones are expected, has whole numbers that are out of
            range, or others that are not finite in that dtype.
    """
    name, array, dtype = called or leaf.name, leaf.array, np.dtype(leaf.spec.dtype.as_numpy_dtype)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {array.dtype}, expected {dtype.name}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity, expected finite numbers.")
    if dtype.kind in "biu":
        _check_whole(name, array, leaf.spec, dtype, offset)
        return array.astype(dtype, copy=False)
    with np.errstate(over="ignore"):
        cast = array.astype(dtype, copy=False)
    if array.dtype != dtype and not np.isfinite(cast).all():
        raise ValueError(f"{name} holds {array[~np.isfinite(cast)].flat[0]}, expected numbers that {dtype} can hold.")
    return cast


def _check_whole(name: str, array: Array, spec: Any, dtype: np.dtype, offset: Any) -> None:
    if array.dtype.kind == "f" and (is_fraction := array % 1 != 0).any():
        raise ValueError(f"{name} holds {(array + offset)[is_fraction].flat[0]}, expected whole numbers.")
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.iinfo(np.int8)
    low, high = getattr(spec, "minimum", limits.min), getattr(spec, "maximum", limits.max)
    if dtype.kind == "b":
        low, high = 0, 1
    if array.size and (np.any(array < low) or np.any(array > high)):
        shown, expected = np.asarray(array) + offset, f"{_text(low + offset)} to {_text(high + offset)}"
        raise ValueError(f"{name} goes from {shown.min()} to {shown.max()}, expected {expected}.")


def _text(bound: Any) -> str:
    """A bound as one number, if all components have the same."""
    found = np.unique(bound)
    return str(found[0]) if len(found) == 1 else str(np.asarray(bound).tolist())
