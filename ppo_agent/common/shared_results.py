"""What two networks compute alike, computed once: one torso's features, one normalisation.

The graph executor makes an operation as often as it is written down, and does not see that two of them are the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from ppo_agent.common.types import Nest

_results: ContextVar[dict[tuple[int, ...], tuple[Any, Any, Nest]] | None] = ContextVar("results", default=None)


@contextlib.contextmanager
def remembering() -> Iterator[None]:
    """Inside, `remembered` keeps its results until the outermost one ends; no variable is assigned meanwhile."""
    if _results.get() is not None:
        yield
        return
    token = _results.set({})
    try:
        yield
    finally:
        _results.reset(token)


def remembered(owner: Any, inputs: Nest, compute: Callable[[], Any]) -> Any:
    """Computes something, unless its owner did so with the same tensors in the same graph since `remembering` began.

    Args:
        owner: the layer or other object that the result is of; it makes one thing of its inputs.
        inputs: nest of tensors.
        compute: makes it.

    Returns:
        What `compute` returned, now or then.
    """
    results = _results.get()
    if results is None:
        return compute()
    # A tensor of a branch or of the body of a loop is unknown outside of it.
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    key = (id(owner), id(graph), *map(id, tf.nest.flatten(inputs)))
    if key not in results:
        # Owner, graph and inputs are kept too: as long as they live, nothing else has their ids.
        results[key] = compute(), (owner, graph), inputs
    return results[key][0]
