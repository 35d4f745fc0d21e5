"""Specs as JSON from which they can be made again, without an environment and without running anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.common.types import Nest

_MOST_NUMBERS = 2**20


def encode(nest: Nest) -> dict[str, Any]:
    """A nest of `TensorSpec`s as JSON: dicts, tuples, lists, and leaves with dtype, shape, name and bounds."""
    if isinstance(nest, Mapping):
        return {"dict": {str(key): encode(value) for key, value in nest.items()}}
    if isinstance(nest, (list, tuple)):
        kind = "list" if type(nest) is list else "tuple"
        return {kind: [encode(value) for value in nest]}
    leaf: dict[str, Any] = {"dtype": tf.as_dtype(nest.dtype).name, "shape": list(nest.shape), "name": nest.name}
    for bound in ("minimum", "maximum"):
        if (value := getattr(nest, bound, None)) is not None:
            # Digits enough for every dtype; JSON knows no infinity.
            leaf[bound] = np.asarray(value).astype(object).reshape(-1).tolist()
            leaf[bound] = [repr(number) if isinstance(number, float) else number for number in leaf[bound]]
            leaf[f"{bound}_shape"] = list(np.shape(value))
    return {"spec": leaf}


def decode(code: Any) -> Nest:
    """What `encode` was given.

    Raises:
        ValueError: the code is something else.
    """
    try:
        return _decode(code)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"specs: {type(error).__name__}: {error}, expected what encode returns.") from error


def _decode(code: Any) -> Nest:
    if not isinstance(code, dict) or len(code) != 1:
        raise TypeError(f"found {code!r}")
    ((kind, content),) = code.items()
    if kind == "dict":
        return {key: _decode(value) for key, value in content.items()}
    if kind in ("list", "tuple"):
        values = [_decode(value) for value in content]
        return values if kind == "list" else tuple(values)
    dtype, shape, name = tf.as_dtype(content["dtype"]), [int(size) for size in content["shape"]], content["name"]
    if min([0, *shape]) < 0 or math.prod(shape) > _MOST_NUMBERS:
        raise TypeError(f"found the shape {shape}")
    if "minimum" not in content:
        return tf.TensorSpec(shape, dtype, name)
    bounds = [
        np.array([float(x) if isinstance(x, str) else x for x in content[b]], dtype.as_numpy_dtype).reshape(
            content[f"{b}_shape"]
        )
        for b in ("minimum", "maximum")
    ]
    for bound in bounds:
        if np.broadcast_shapes(bound.shape, tuple(shape)) != tuple(shape):
            raise TypeError(f"found bounds of shape {bound.shape} for {shape}")
    return tensor_spec.BoundedTensorSpec(shape, dtype, *bounds, name)
