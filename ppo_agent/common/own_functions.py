"""`tf.function`s that each of many objects has for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def own_function(function: Callable[..., Any], **options: Any) -> Any:
    """Returns the `tf.function` of a method, without AutoGraph.

    TensorFlow counts the tracings of all objects' methods together, and would warn of those that each object needs.

    Args:
        function: The method.
        options: Of `tf.function`.
    """
    own = tf.function(function, autograph=False, **options)
    own._omit_frequent_tracing_warning = True
    return own
