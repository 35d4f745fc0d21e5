"""Flat names for what is nested: inputs and outputs of signatures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tf_agents.utils import nest_utils

from ppo_agent.common.types import Nest


def flat(name: str, nest: Nest) -> dict[str, Any]:
    """The leaves of a nest, in tf.nest's order, by their path: `name`, or `name_KEY_...` in a nest.

    Raises:
        ValueError: two leaves would have the same name.
    """
    paths = nest_utils.flatten_with_joined_paths(nest)
    # Keyword arguments of a signature must be identifiers, of letters that TensorFlow has in its names.
    named = {re.sub(r"\W", "_", f"{name}_{path}" if path else name, flags=re.ASCII): leaf for path, leaf in paths}
    if len(named) < len(paths):
        raise ValueError(f"the {name} nest is {nest}, expected keys that are unique when joined by _.")
    return named


def batched(name: str, spec: Nest) -> Nest:
    """Plain specs with a free batch dimension in front, named by their place in the nest."""
    names = iter(flat(name, spec))
    return tf.nest.map_structure(lambda leaf: tf.TensorSpec([None, *leaf.shape], leaf.dtype, next(names)), spec)


def nested_function(function: Callable[..., Any], arguments: Mapping[str, Nest]) -> Any:
    """A `tf.function` of those nests that have leaves, by position; `arguments` are their specs by name."""
    specs = [spec for spec in arguments.values() if tf.nest.flatten(spec)]
    # Without AutoGraph, which would spend seconds on translating TF-Agents' code.
    return tf.function(function, input_signature=specs, autograph=False)


def flat_signature(function: Callable[..., Any], arguments: Mapping[str, Nest], results: Sequence[str]) -> Any:
    """A concrete function of the leaves by name, which returns a dict of leaves by name.

    It calls `function` with the nests that have leaves, whose specs are the `arguments` by name; that returns a nest,
    or a tuple of nests if there are several `results`.
    """
    nests = [spec for spec in arguments.values() if tf.nest.flatten(spec)]
    specs = {name: leaf for argument, spec in arguments.items() for name, leaf in flat(argument, spec).items()}

    def signature(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        # TensorFlow does not look at the shapes that signatures are called with; this names the input and both shapes.
        leaves = iter([tf.ensure_shape(inputs[name], spec.shape, name) for name, spec in specs.items()])
        found = function(*(tf.nest.map_structure(lambda _: next(leaves), nest) for nest in nests))
        found = found if len(results) > 1 else (found,)
        return {key: leaf for name, nest in zip(results, found, strict=True) for key, leaf in flat(name, nest).items()}

    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in specs.items()}
    return tf.function(signature, autograph=False).get_concrete_function(**named)
