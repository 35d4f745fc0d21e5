"""Gymnasium spaces as TF-Agents specs, and batched NumPy values between the two.

Both sides have the same nesting: a `Dict` space is a dict of leaves, a `Tuple` space a tuple of leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
import numpy as np

from ppo_agent.common.types import Array, Nest

from ..faults.leaf_checks import as_leaf, value_outside

if TYPE_CHECKING:
    from tf_agents.specs import tensor_spec

Encoder = Callable[[Nest], Nest]

# Of an action over all of its components: the largest layer that still is one.
MOST_CATEGORIES = 2**20
_SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple"


def observation_spec(space: gym.Space, name: str = "observation") -> Nest:
    """Returns the nest of `BoundedTensorSpec` that describes one observation of `space`.

    Floating-point leaves become float32, integer leaves keep their dtype and their range, `Discrete.start` included;
    bools are 0 and 1 of int8.

    Args:
        space: The single environment's observation space.
        name: Name of the spec; leaves of nested spaces are called `name/key`.

    Raises:
        ValueError: A leaf of the space has no tensor form (for instance Text or Graph).
    """
    if (nested := _nested_spaces(space)) is not None:
        return _map(nested, lambda key, child: observation_spec(child, f"{name}/{key}"))
    low, high, dtype = _bounds(space, name)
    _check_size(space, name)
    return _bounded_spec(space.shape, dtype, low, high, name)


def action_spec(space: gym.Space, name: str = "action") -> Nest:
    """Returns the nest of `BoundedTensorSpec` that describes one action of `space`.

    Discrete actions count from 0 whatever the space's `start` is, so that categorical networks fit as they are;
    `action_encoder` adds the start. MultiBinary is int32, a Box of bools 0 and 1 of int8.

    Args:
        space: The single environment's action space.
        name: Name of the spec; leaves of nested spaces are called `name/key`.

    Raises:
        ValueError: A leaf of the space has no tensor form (for instance Text or Graph).
    """
    if (nested := _nested_spaces(space)) is not None:
        return _map(nested, lambda key, child: action_spec(child, f"{name}/{key}"))
    low, high, dtype = _bounds(space, name)
    _check_size(space, name)
    if dtype.kind in "iu":
        _check_categories(low, high, name)
    if isinstance(space, gym.spaces.Box):
        return _bounded_spec(space.shape, dtype, low, high, name)
    dtype = np.dtype(np.int32) if isinstance(space, gym.spaces.MultiBinary) else dtype
    return _bounded_spec(space.shape, dtype, np.zeros_like(low), high - low, name)


def observation_decoder(space: gym.Space, num_environments: int, name: str = "observation") -> Encoder:
    """Returns a function from a batch of gymnasium observations to fresh arrays of the spec's dtypes.

    It raises `InvalidLeafError` where a batch is not of the space's shape, or has values that its dtype does not hold.
    """
    if (nested := _nested_spaces(space)) is not None:
        return _nested_encoder(
            _map(nested, lambda key, child: observation_decoder(child, num_environments, f"{name}/{key}"))
        )
    dtype, native = _bounds(space, name)[2], space.dtype
    shape = (num_environments, *cast("tuple[int, ...]", space.shape))

    def decode(value: Any) -> Array:
        if type(value) is not np.ndarray or value.dtype != native or value.shape != shape:
            value = as_leaf(value, shape, dtype, name)
        return np.array(value, dtype)

    return decode


def action_encoder(space: gym.Space, name: str = "action") -> Encoder:
    """Returns a function from a batch of agent actions to what gymnasium's `step` takes.

    Box actions are clipped to the bounds of the space, discrete ones are shifted by its start. It raises ValueError
    where a batch for a space of whole numbers is of another kind, or has values that its dtype does not hold.
    """
    if (nested := _nested_spaces(space)) is not None:
        return _nested_encoder(_map(nested, lambda key, child: action_encoder(child, f"{name}/{key}")))
    dtype, low = np.dtype(space.dtype), _bounds(space, name)[0]
    if isinstance(space, gym.spaces.Box):
        return _box_encoder(space, dtype, name)
    if np.any(low != 0):
        return lambda value: _whole(value, dtype, name) + low
    return lambda value: _whole(value, dtype, name)


def _box_encoder(space: gym.spaces.Box, dtype: np.dtype, name: str) -> Encoder:
    low, high = space.low, space.high
    if dtype.kind in "iub":  # They are clipped first: 200 is 127 of an int8, not -56.
        return lambda value: np.clip(_whole(value, None, name), low, high).astype(dtype)
    if dtype == np.float16:  # Numbers beyond 65,504 would become infinite.
        low, high = (np.clip(bound, np.finfo(dtype).min, np.finfo(dtype).max) for bound in (low, high))
        return lambda value: np.clip(np.asarray(value, np.float32), low, high).astype(dtype)
    if np.isinf(low).all() and np.isinf(high).all():
        return lambda value: np.asarray(value, dtype)
    return lambda value: np.minimum(np.maximum(np.asarray(value, dtype), low), high)


def _whole(value: Any, dtype: np.dtype | None, name: str) -> Array:
    """Returns whole numbers in a dtype, None for their own."""
    array = np.asarray(value)
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "iub":
        raise ValueError(f"{name} has dtype {array.dtype}, expected whole numbers.")
    if dtype is None:
        return array
    if (lost := value_outside(array, dtype)) is not None:
        raise ValueError(f"{name} is {lost}, expected a number that {dtype} holds.")
    return array.astype(dtype)


def _nested_spaces(space: gym.Space) -> dict[str, gym.Space] | tuple[gym.Space, ...] | None:
    """Returns the children of a Dict or Tuple space, at least one, None for a leaf."""
    if not isinstance(space, (gym.spaces.Dict, gym.spaces.Tuple)):
        return None
    if not space.spaces:
        raise ValueError(f"the environment has an empty space, {space}, expected at least one entry in it.")
    if isinstance(space, gym.spaces.Tuple):
        return tuple(space.spaces)
    if len({type(key) for key in space.spaces}) > 1:  # Nests of TensorFlow are sorted by their keys.
        raise ValueError(f"the environment has a space with the keys {list(space.spaces)}, expected all of one type.")
    return dict(space.spaces)


def _check_size(space: gym.Space, name: str) -> None:
    if 0 in cast("tuple[int, ...]", space.shape):
        raise ValueError(f"the environment's {name} space is {space}, expected one with at least one number.")


def _check_categories(low: Array, high: Array, name: str) -> None:
    # In Python's integers, because the range of an int64 does not fit an int64.
    count = sum(b - a + 1 for a, b in zip(low.ravel().tolist(), high.ravel().tolist(), strict=True))
    if count > MOST_CATEGORIES:
        raise ValueError(
            f"the environment's {name} space has {count} categories, expected at most {MOST_CATEGORIES}: each whole "
            "number of an action is one."
        )


def _map(nested: Any, function: Callable[[Any, gym.Space], Any]) -> Nest:
    """Applies function(key, child) to the children of a nested space."""
    if isinstance(nested, dict):
        return {key: function(key, child) for key, child in nested.items()}
    return tuple(function(index, child) for index, child in enumerate(nested))


def _nested_encoder(encoders: Nest) -> Encoder:
    """Combines the encoders of the children."""
    if isinstance(encoders, dict):
        return lambda value: {key: encode(value[key]) for key, encode in encoders.items()}
    return lambda value: tuple(encode(part) for encode, part in zip(encoders, value, strict=True))


def _bounds(space: gym.Space, name: str) -> tuple[np.ndarray, np.ndarray, np.dtype]:
    """Returns lower bound, upper bound (both inclusive) and tensor dtype of a leaf space."""
    if isinstance(space, gym.spaces.Box) and space.dtype == bool:
        return np.zeros(space.shape, np.int8), np.ones(space.shape, np.int8), np.dtype(np.int8)
    if isinstance(space, gym.spaces.Box):
        dtype = np.dtype(np.float32) if np.issubdtype(space.dtype, np.floating) else np.dtype(space.dtype)
        return space.low, space.high, dtype
    if isinstance(space, gym.spaces.Discrete):
        start = np.asarray(space.start, space.dtype)
        return start, start + space.n - 1, np.dtype(space.dtype)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1, np.dtype(space.dtype)
    if isinstance(space, gym.spaces.MultiBinary):
        return np.zeros(space.shape, np.int8), np.ones(space.shape, np.int8), np.dtype(space.dtype)
    raise ValueError(f"the environment's {name} space is {space}, expected {_SUPPORTED}.")


def _bounded_spec(
    shape: tuple[int, ...] | None, dtype: np.dtype, low: np.ndarray, high: np.ndarray, name: str
) -> tensor_spec.BoundedTensorSpec:
    """Returns the spec of a leaf; infinite bounds become the dtype's extremes, as TF-Agents writes 'unbounded'."""
    if np.issubdtype(dtype, np.floating):
        limits = np.finfo(dtype)
        low, high = (np.clip(bound, limits.min, limits.max) for bound in (low, high))
    # One number instead of an array of equal ones keeps the specs of images readable.
    low, high = (np.asarray(bound, dtype) for bound in (low, high))
    if low.size and (low == low.flat[0]).all() and (high == high.flat[0]).all():
        low, high = low.flat[0], high.flat[0]
    # Processes that only step environments do without TensorFlow.
    from tf_agents.specs import tensor_spec

    return tensor_spec.BoundedTensorSpec(shape, dtype, low, high, name)
