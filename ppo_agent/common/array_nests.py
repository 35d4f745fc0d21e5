"""tf.nest for NumPy: compiled once for a structure, because tf.nest itself takes 5 us per call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ppo_agent.common.types import Nest

Flattener = Callable[[Any], list[Any]]
Packer = Callable[[Iterator[Any]], Any]


def flattener(structure: Any) -> Flattener:
    """Returns a function from a nest like `structure` to its leaves, in tf.nest's order."""
    if not is_nest(structure):
        return lambda value: [value]
    items = parts_of(structure)
    if not any(is_nest(child) for _, child in items):  # Most of them, and faster.
        keys = [key for key, _ in items]
        return (lambda value: [value[key] for key in keys]) if isinstance(structure, Mapping) else list
    children = [(key, flattener(child)) for key, child in items]

    def flatten(value: Any) -> list[Any]:
        return [leaf for key, child in children for leaf in child(value[key])]

    return flatten


def packer(structure: Any) -> Packer:
    """Returns a function from an iterator over leaves, in tf.nest's order, to a nest like `structure`."""
    if not is_nest(structure):
        return next
    if isinstance(structure, Mapping):
        named = [(key, packer(child)) for key, child in parts_of(structure)]
        return lambda leaves: {key: pack(leaves) for key, pack in named}
    children = [packer(child) for _, child in parts_of(structure)]
    if hasattr(structure, "_fields"):
        make = type(structure)
        return lambda leaves: make(*[pack(leaves) for pack in children])
    if isinstance(structure, tuple):
        return lambda leaves: tuple(pack(leaves) for pack in children)
    return lambda leaves: [pack(leaves) for pack in children]


def concatenate(parts: Sequence[Nest]) -> Nest:
    """Returns nests of arrays [b, ...], at least one, put one under the other."""
    if len(parts) == 1:
        return parts[0]
    flatten = flattener(parts[0])
    leaves = zip(*map(flatten, parts), strict=True)
    return packer(parts[0])(map(np.concatenate, leaves))


def flatten(nest: Nest) -> list[Any]:
    """Returns the leaves of a nest, in tf.nest's order."""
    return flattener(nest)(nest)


def map_structure(function: Callable[..., Any], nest: Nest) -> Nest:
    """Returns the nest with a function applied to its leaves."""
    return packer(nest)(map(function, flatten(nest)))


def with_paths(nest: Nest, prefix: str = "") -> list[tuple[str, Any]]:
    """Returns the leaves of a nest, each behind its path, which is joined by slashes."""
    if not is_nest(nest):
        return [(prefix, nest)]
    keys = getattr(nest, "_fields", None)
    parts = [(keys[key] if keys else key, child) for key, child in parts_of(nest)]
    return [leaf for key, child in parts for leaf in with_paths(child, f"{prefix}/{key}" if prefix else str(key))]


def is_nest(structure: Any) -> bool:
    """Whether it is not a leaf."""
    return isinstance(structure, Mapping | tuple | list)


def parts_of(structure: Any) -> list[tuple[Any, Any]]:
    """Returns the keys or indices of a nest with what is behind them, in tf.nest's order."""
    if isinstance(structure, Mapping):
        return sorted(structure.items())
    return list(enumerate(structure))
