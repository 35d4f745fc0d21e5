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
    """Inside, `remembered` keeps its results; for one graph, in which no variable is assigned meanwhile."""
    token = _results.set({})
    try:
        yield
    finally:
        _results.reset(token)


def remembered(owner: Any, inputs: Nest, compute: Callable[[], Any]) -> Any:
    """Computes something, unless its owner did so with the same tensors since `remembering` began.

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
    key = (id(owner), *map(id, tf.nest.flatten(inputs)))
    if key not in results:
        # Owner and inputs are kept too: as long as they live, nothing else has their ids.
        results[key] = compute(), owner, inputs
    return results[key][0]
