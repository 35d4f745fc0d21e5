"""Specs and hyper-parameters as JSON, and what distinguishes two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.common import array_nests
from ppo_agent.common.types import Nest


def describe_specs(nest: Nest) -> dict[str, Any]:
    """A nest of specs as JSON: dtype, shape and bounds of every leaf by the way that leads to it."""
    return {way or ".": _describe_spec(spec) for way, spec in array_nests.with_paths(nest)}


def describe_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters as JSON; a function is called just that, because nobody can tell what it will return."""
    return {name: _describe_value(value) for name, value in values.items()}


def differences(found: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What distinguishes what the user has now from what the checkpoint holds, a sentence part for each difference."""
    result: list[str] = []
    for name in sorted({*found, *expected}):
        a, b = found.get(name), expected.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            result += differences(a, b, f"{prefix}{name} ")
        elif _listed(a) != _listed(b):
            result.append(f"{prefix}{name} is {_text(a)}, the checkpoint's {_text(b)}")
    return result


def _describe_spec(spec: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"dtype": tf.as_dtype(spec.dtype).name, "shape": list(spec.shape)}
    for bound in ("minimum", "maximum"):
        if (value := getattr(spec, bound, None)) is not None:
            described[bound] = _bound(np.asarray(value))
    return described


def _bound(values: np.ndarray) -> Any:
    """A single text for equal bounds; JSON knows no infinity."""
    texts = [repr(float(value)) for value in np.unique(values)]
    return texts[0] if len(texts) == 1 else [repr(float(value)) for value in values.ravel()]


def _describe_value(value: Any) -> Any:
    if callable(value):
        return "function"
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, tuple) else value


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, list)) else value


def _text(value: Any, longest: int = 120) -> str:
    text = "absent" if value is None else repr(_listed(value))
    return text if len(text) <= longest else f"{text[:longest]}..."
