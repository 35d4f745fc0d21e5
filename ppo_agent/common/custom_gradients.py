"""What TensorFlow keeps of `tf.custom_gradient` in graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tensorflow.python.framework import ops

_PREFIX = "CustomGradient-"


@contextlib.contextmanager
def forgotten() -> Iterator[None]:
    """Lets go of the custom gradients that are traced in the block, and that nobody asks for behind it.

    In a graph, `tf.custom_gradient` registers a function that holds its graph under a name of its own, for good: each
    agent that is trained would leave its graphs behind. Keras' optimisers use it to sum gradients over replicas.
    """
    registry = _registry()
    before = set(registry)
    try:
        yield
    finally:
        for name in [name for name in registry if name.startswith(_PREFIX) and name not in before]:
            del registry[name]


def _registry() -> dict[str, Any]:
    return getattr(ops.gradient_registry, "_registry", {})
