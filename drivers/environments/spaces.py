"""Gymnasium spaces as TF-Agents specs, and batched NumPy values between the two.

Both sides have the same nesting: a `Dict` space is a dict of leaves, a `Tuple` space a tuple of leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from tf_agents.specs import tensor_spec

from ppo_agent.common.types import Nest

Encoder = Callable[[Nest], Nest]

_SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple"


def observation_spec(space: gym.Space, name: str = "observation") -> Nest:
    """Returns the nest of `BoundedTensorSpec` that describes one observation of `space`.

    Floating-point leaves become float32, integer leaves keep their dtype and their range, `Discrete.start` included.

    Args:
        space: The single environment's observation space.
        name: Name of the spec; leaves of nested spaces are called `name/key`.

    Raises:
        ValueError: A leaf of the space has no tensor form (for instance Text or Graph).
    """
    if (nested := _nested_spaces(space)) is not None:
        return _map(nested, lambda key, child: observation_spec(child, f"{name}/{key}"))
    low, high, dtype = _bounds(space, name)
    return _bounded_spec(space.shape, dtype, low, high, name)


def action_spec(space: gym.Space, name: str = "action") -> Nest:
    """Returns the nest of `BoundedTensorSpec` that describes one action of `space`.

    Discrete actions count from 0 whatever the space's `start` is, so that categorical networks fit as they are;
    `action_encoder` adds the start. MultiBinary is int32.

    Args:
        space: The single environment's action space.
        name: Name of the spec; leaves of nested spaces are called `name/key`.

    Raises:
        ValueError: A leaf of the space has no tensor form (for instance Text or Graph).
    """
    if (nested := _nested_spaces(space)) is not None:
        return _map(nested, lambda key, child: action_spec(child, f"{name}/{key}"))
    low, high, dtype = _bounds(space, name)
    if isinstance(space, gym.spaces.Box):
        return _bounded_spec(space.shape, dtype, low, high, name)
    dtype = np.dtype(np.int32) if isinstance(space, gym.spaces.MultiBinary) else dtype
    return _bounded_spec(space.shape, dtype, np.zeros_like(low), high - low, name)


def observation_decoder(space: gym.Space) -> Encoder:
    """Returns a function from a batch of gymnasium observations to fresh arrays of the spec's dtypes."""
    if (nested := _nested_spaces(space)) is not None:
        return _nested_encoder(nested, observation_decoder)
    dtype = _bounds(space, "observation")[2]
    return lambda value: np.array(value, dtype)


def action_encoder(space: gym.Space) -> Encoder:
    """Returns a function from a batch of agent actions to what gymnasium's `step` takes.

    Box actions are clipped to the bounds of the space, discrete ones are shifted by its start.
    """
    if (nested := _nested_spaces(space)) is not None:
        return _nested_encoder(nested, action_encoder)
    dtype, low, high = space.dtype, *_bounds(space, "action")[:2]
    if isinstance(space, gym.spaces.Box):
        low, high = space.low, space.high
        if np.isinf(low).all() and np.isinf(high).all():
            return lambda value: np.asarray(value, dtype)
        return lambda value: np.minimum(np.maximum(np.asarray(value, dtype), low), high)
    if np.any(low != 0):
        return lambda value: np.asarray(value, dtype) + low
    return lambda value: np.asarray(value, dtype)


def _nested_spaces(space: gym.Space) -> dict[str, gym.Space] | tuple[gym.Space, ...] | None:
    """Returns the children of a Dict or Tuple space, None for a leaf."""
    if isinstance(space, gym.spaces.Dict):
        return dict(space.spaces)
    return tuple(space.spaces) if isinstance(space, gym.spaces.Tuple) else None


def _map(nested: Any, function: Callable[[Any, gym.Space], Any]) -> Nest:
    """Applies function(key, child) to the children of a nested space."""
    if isinstance(nested, dict):
        return {key: function(key, child) for key, child in nested.items()}
    return tuple(function(index, child) for index, child in enumerate(nested))


def _nested_encoder(nested: Any, encoder_of: Callable[[gym.Space], Encoder]) -> Encoder:
    """Combines the encoders of the children."""
    encoders = _map(nested, lambda _, child: encoder_of(child))
    if isinstance(encoders, dict):
        return lambda value: {key: encode(value[key]) for key, encode in encoders.items()}
    return lambda value: tuple(encode(part) for encode, part in zip(encoders, value, strict=True))


def _bounds(space: gym.Space, name: str) -> tuple[np.ndarray, np.ndarray, np.dtype]:
    """Returns lower bound, upper bound (both inclusive) and tensor dtype of a leaf space."""
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
    return tensor_spec.BoundedTensorSpec(shape, dtype, low, high, name)
