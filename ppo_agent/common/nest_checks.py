"""One clear sentence for a nest of arrays that does not fit its spec."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.utils import nest_utils

from ppo_agent.common.types import Nest


class NestCheck:
    """Checks nests of arrays or tensors against one spec without batch dimensions; `name` is what errors call them."""

    def __init__(self, name: str, spec: Nest) -> None:
        self._name, self._spec = name, spec
        self._leaves = nest_utils.flatten_with_joined_paths(spec)

    def __call__(self, values: Nest, *outer: int | None) -> None:
        """Checks structure, dtypes and shapes.

        Args:
            values: the nest.
            outer: sizes of the dimensions before those of the spec, None for any.

        Raises:
            ValueError: it does not fit; names the first leaf that does not.
        """
        for leaf, (path, spec) in zip(self._flat(values), self._leaves, strict=True):
            value = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
            shape = (*outer, *spec.shape.as_list())
            if value.dtype != spec.dtype or not fits(value.shape, shape):
                raise ValueError(
                    f"{self._called(path)} has shape {tuple(value.shape)} and dtype {value.dtype.name}, "
                    f"expected shape {shape} and dtype {spec.dtype.name}."
                )

    def check_shapes(self, values: Nest, *outer: int | EllipsisType) -> None:
        """Checks structure and shapes, whatever the dtypes.

        Args:
            values: the nest; tensors of unknown rank pass.
            outer: sizes of the dimensions before those of the spec; a single `...` for any number of any size.

        Raises:
            ValueError: it does not fit; names the first leaf that does not.
        """
        for leaf, (path, spec) in zip(self._flat(values), self._leaves, strict=True):
            shape = leaf.shape if hasattr(leaf, "shape") else np.shape(leaf)
            if isinstance(shape, tf.TensorShape) and shape.rank is None:
                continue
            inner = tuple(spec.shape.as_list())
            start = max(len(shape) - len(inner), 0)
            if not (fits(shape[start:], inner) and (outer == (...,) or fits(shape[:start], outer))):
                found = "None" if leaf is None else f"of shape {tuple(shape)}"
                expected = str((*outer, *inner)).replace("Ellipsis", "...")
                raise ValueError(f"{self._called(path)} is {found}, expected shape {expected}.")

    def check_batch(self, values: Nest) -> None:
        """Checks structure and shapes of a nest with one or more batch dimensions; tensors of unknown rank pass.

        Raises:
            ValueError: it does not fit, or has no batch dimension.
        """
        self.check_shapes(values, ...)
        for leaf, (path, spec) in zip(tf.nest.flatten(values), self._leaves, strict=True):
            shape = leaf.shape if hasattr(leaf, "shape") else np.shape(leaf)
            known = not isinstance(shape, tf.TensorShape) or shape.rank is not None
            if known and len(shape) == spec.shape.rank:
                expected, found = ", ".join(["B", *map(str, spec.shape.as_list())]), tuple(shape)
                raise ValueError(
                    f"{self._called(path)} is of shape {found}, expected [{expected}] with a batch dimension in front."
                )

    def _flat(self, values: Nest) -> list[Any]:
        try:
            tf.nest.assert_same_structure(self._spec, values)
        except (TypeError, ValueError):
            raise ValueError(self._structure_difference(values)) from None
        return tf.nest.flatten(values)

    def _called(self, path: str) -> str:
        return f"{self._name} leaf '{path}'" if path else self._name

    def _structure_difference(self, values: Nest) -> str:
        """Returns a sentence that names the leaves that are missing or too many."""
        if not tf.nest.is_nested(values) or not tf.nest.is_nested(self._spec):
            return f"{self._name} is {_brief(values)}, expected {_brief(self._spec)}."
        expected = {path for path, _ in self._leaves}
        found = {path for path, _ in nest_utils.flatten_with_joined_paths(values)}
        missing, extra = sorted(expected - found), sorted(found - expected)
        return f"{self._name} does not fit its spec: leaves missing {missing}, unexpected {extra}."


def _brief(nest: Nest) -> str:
    """What a nest looks like, on one line."""
    if not tf.nest.is_nested(nest):
        return "a single tensor" if hasattr(nest, "dtype") else repr(nest)
    return f"a nest of {[path for path, _ in nest_utils.flatten_with_joined_paths(nest)]}"


def fits(shape: Any, expected: Sequence[Any]) -> bool:
    """Whether a shape can be the expected one; a size of None, in either of them, may be any."""
    if isinstance(shape, tf.TensorShape):
        if shape.rank is None:
            return True
        shape = shape.as_list()  # Much faster than `is_compatible_with`.
    return len(shape) == len(expected) and all(
        n == m or n is None or m is None for m, n in zip(shape, expected, strict=True)
    )
