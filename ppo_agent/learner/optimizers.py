"""The few things in which the optimisers that TF-Agents' users pass differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

Optimizer = Any


def default_optimizer() -> Optimizer:
    """The optimiser that TF-Agents' page promises: Adam with TensorFlow's defaults."""
    return tf.compat.v1.train.AdamOptimizer()


def check(optimizer: Any) -> None:
    """Raises TypeError unless it is None or an optimiser of Keras 2 or tf.compat.v1."""
    if optimizer is not None and not hasattr(optimizer, "apply_gradients"):
        raise TypeError(f"optimizer is {optimizer!r}, expected one of tf.keras or tf.compat.v1.")
    known = (tf.keras.optimizers.Optimizer, tf.keras.optimizers.legacy.Optimizer, tf.compat.v1.train.Optimizer)
    names = {base.__module__.partition(".")[0] for base in type(optimizer).__mro__}
    if "keras" in names and not isinstance(optimizer, known):
        name = type(optimizer).__name__
        raise TypeError(f"optimizer is {name} of Keras 3, expected tf.keras.optimizers.{name}, which is of Keras 2.")


def create_slots(optimizer: Optimizer, variables: Sequence[tf.Variable]) -> None:
    """Creates an optimiser's variables, which cannot be created inside a compiled loop.

    Args:
        optimizer: a tf.keras, legacy tf.keras or tf.compat.v1 optimizer.
        variables: what it will be applied to.
    """
    with tf.init_scope():
        if hasattr(optimizer, "build"):
            optimizer.build(variables)
        elif hasattr(optimizer, "_create_all_weights"):
            optimizer._create_all_weights(variables)
        elif hasattr(optimizer, "_create_slots"):
            optimizer._create_slots(variables)


def variables(optimizer: Optimizer) -> list[tf.Variable]:
    """An optimiser's variables.

    Args:
        optimizer: a tf.keras, legacy tf.keras or tf.compat.v1 optimizer.
    """
    found = optimizer.variables
    return list(found() if callable(found) else found)


def learning_rate(optimizer: Optimizer) -> tf.Tensor | None:
    """The learning rate in force, None where an optimiser does not tell.

    Args:
        optimizer: a tf.keras, legacy tf.keras or tf.compat.v1 optimizer.

    Returns:
        A float32 scalar.
    """
    for name in ("learning_rate", "_lr", "_learning_rate"):
        rate = getattr(optimizer, name, None)
        if rate is None:
            continue
        if isinstance(rate, tf.keras.optimizers.schedules.LearningRateSchedule):
            rate = rate(optimizer.iterations)
        return tf.cast(rate() if callable(rate) else rate, tf.float32)
    return None
