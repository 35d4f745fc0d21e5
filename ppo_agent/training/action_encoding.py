"""How an agent's actions become those that its environment takes, and the other way round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ppo_agent.common import host_calls
from ppo_agent.common.types import Array, Nest
from ppo_agent.training import given_arrays

_WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")


class _Leaf(NamedTuple):
    """What becomes of one leaf of an action.

    Attributes:
        low: least value that the environment takes, in its dtype.
        high: greatest value.
        offset: what is added to whole numbers.
    """

    low: Array
    high: Array
    offset: Array

    def encode(self, value: Array) -> Array:
        shifted = np.asarray(value).astype(self.low.dtype) + self.offset
        return np.clip(shifted, self.low, self.high)

    def decode(self, value: Any) -> Array:
        array = np.asarray(value)
        if self.offset.dtype.kind not in "iu" or array.dtype.kind not in "biuf":
            return array
        # Small dtypes do not hold the distance of two of their values.
        return (array if array.dtype.kind == "f" else array.astype(np.int64)) - self.offset.astype(np.int64)


class ActionEncoding:
    """Shifts whole numbers to where the environment's begin, clips others to its bounds, and casts to its dtypes.

    Attributes:
        leaves: what becomes of each leaf of an action, in tf.nest's order.
    """

    def __init__(self, action_spec: Nest, leaves: Sequence[_Leaf] | None = None) -> None:
        """Takes the agent's specs, and what becomes of each leaf; None if the environment takes what they say."""
        self._spec = host_calls.plain(action_spec)
        specs = tf.nest.flatten(self._spec)
        self.leaves = [_of_spec(spec) for spec in specs] if leaves is None else list(leaves)

    @classmethod
    def of_environment(cls, env: Any, action_spec: Nest) -> ActionEncoding:
        """That of an environment: what its `encode_action`, if it has it, does with the bounds of the specs."""
        encode: Callable[[Nest], Nest] | None = getattr(env, "encode_action", None)
        own = cls(action_spec)
        if encode is None:
            return own
        sides = [leaf.low for leaf in own.leaves], [leaf.high for leaf in own.leaves]
        ends = [tf.nest.flatten(encode(own._packed([end[np.newaxis] for end in side]))) for side in sides]
        return cls(action_spec, [_between(a[0], b[0], leaf) for a, b, leaf in zip(*ends, own.leaves, strict=True)])

    def encode(self, action: Nest) -> Nest:
        """From the agent's actions [B, ...] to the environment's."""
        return self._packed([leaf.encode(x) for leaf, x in zip(self.leaves, tf.nest.flatten(action), strict=True)])

    def decode(self, action: Nest) -> Nest:
        """From the environment's actions, of any batch shape, to the agent's.

        Raises:
            ValueError: they are of another structure.
        """
        given = given_arrays.leaves_of("actions", action, self._spec)
        return self._packed([code.decode(leaf.array) for code, leaf in zip(self.leaves, given, strict=True)])

    def to_json(self) -> list[dict[str, Any]]:
        """What `from_json` takes."""
        return [
            {"dtype": leaf.low.dtype.name, **{name: part.tolist() for name, part in leaf._asdict().items()}}
            for leaf in self.leaves
        ]

    @classmethod
    def from_json(cls, action_spec: Nest, document: Any) -> ActionEncoding:
        """Reads what `to_json` returned.

        Raises:
            ValueError: it is something else.
        """
        specs = tf.nest.flatten(action_spec)
        if not isinstance(document, list) or len(document) != len(specs):
            raise ValueError(f"action_encoding holds no {len(specs)} leaves, expected one for each of the actions.")
        return cls(action_spec, [_read(leaf, spec) for leaf, spec in zip(document, specs, strict=True)])

    def _packed(self, leaves: list[Array]) -> Nest:
        return tf.nest.pack_sequence_as(self._spec, leaves)


def _of_spec(spec: Any) -> _Leaf:
    dtype = spec.dtype.as_numpy_dtype
    low, high = (np.broadcast_to(np.asarray(end, dtype), spec.shape) for end in (spec.minimum, spec.maximum))
    return _Leaf(low, high, np.zeros(spec.shape, dtype))


def _between(low: Any, high: Any, own: _Leaf) -> _Leaf:
    low, high = np.asarray(low), np.asarray(high)
    offset = low - own.low.astype(low.dtype) if low.dtype.kind in "iu" else np.zeros_like(low)
    return _Leaf(low, high, offset)


def _read(document: Any, spec: Any) -> _Leaf:
    known = _WHOLE if spec.dtype.is_integer else ("float16", "float32", "float64")
    if not isinstance(document, dict) or document.get("dtype") not in known:
        raise ValueError("action_encoding holds a leaf of another dtype, expected that of the action.")
    try:
        leaf = _Leaf(*(np.array(document.get(name), document["dtype"]) for name in _Leaf._fields))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"action_encoding holds a leaf that cannot be read: {error}.") from error
    if any(part.shape != tuple(spec.shape) or not np.isfinite(part).all() for part in leaf):
        raise ValueError(f"action_encoding holds a leaf of another shape, expected {tuple(spec.shape)}.")
    return leaf
