"""The few things in which the optimisers that TF-Agents' users pass differ."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ppo_agent.common import replicas
from ppo_agent.common.types import Tensor

Optimizer = Any


def default_optimizer() -> Optimizer:
    """The optimiser that TF-Agents' page promises: Adam with TensorFlow's defaults."""
    return tf.compat.v1.train.AdamOptimizer()


def check(optimizer: Any) -> None:
    """Raises TypeError unless it is None or an optimiser of Keras 2 or tf.compat.v1."""
    if isinstance(optimizer, type):
        name = optimizer.__name__
        raise TypeError(f"optimizer is the class {name}, expected an object of it: {name}().")
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
    with tf.init_scope(), _scope_of(variables):
        if hasattr(optimizer, "build"):
            optimizer.build(variables)
        elif hasattr(optimizer, "_create_all_weights"):
            optimizer._create_all_weights(variables)
        elif hasattr(optimizer, "_create_slots"):
            optimizer._create_slots(variables)


def _scope_of(variables: Sequence[tf.Variable]) -> contextlib.AbstractContextManager[object]:
    """That of the tf.distribute strategy of variables; outside of it, replicas would come to share their slots."""
    owner = next((variable.distribute_strategy for variable in variables if hasattr(variable, "values")), None)
    return contextlib.nullcontext() if owner is None or tf.distribute.has_strategy() else owner.scope()


def variables(optimizer: Optimizer) -> list[tf.Variable]:
    """An optimiser's variables.

    Args:
        optimizer: a tf.keras, legacy tf.keras or tf.compat.v1 optimizer.
    """
    found = optimizer.variables
    return list(found() if callable(found) else found)


def apply(optimizer: Optimizer, gradients_and_variables: Sequence[tuple[Tensor, tf.Variable]]) -> None:
    """Applies gradients that are the same on all replicas.

    Args:
        optimizer: a tf.keras, legacy tf.keras or tf.compat.v1 optimizer.
        gradients_and_variables: pairs; a gradient may be None.
    """
    if isinstance(optimizer, (tf.keras.optimizers.Optimizer, tf.keras.optimizers.legacy.Optimizer)):
        optimizer.apply_gradients(gradients_and_variables, experimental_aggregate_gradients=False)
        return
    # Others add the gradients of the replicas up.
    number = replicas.count()
    optimizer.apply_gradients([(None if g is None else g / number, v) for g, v in gradients_and_variables])


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


def learning_rate_variable(optimizer: Optimizer) -> tf.Variable | None:
    """The variable that an optimiser's learning rate is; None where it is none."""
    hypers = getattr(optimizer, "_hyper", None)
    if hypers is not None:
        with tf.init_scope():
            optimizer._create_hypers()
    found = getattr(optimizer, "_learning_rate", None) if hypers is None else hypers["learning_rate"]
    return found if isinstance(found, tf.Variable) else None


# What the optimisers of tf.compat.v1 take a function for.
_V1_ATTRIBUTES = ("_lr", "_learning_rate", "_beta1", "_beta2", "_epsilon", "_momentum", "_decay", "_rho")


def functions_of(optimizer: Optimizer) -> dict[str, Callable[[], Tensor]]:
    """The functions without arguments among an optimiser's hyper-parameters, by name.

    Args:
        optimizer: a legacy tf.keras or tf.compat.v1 optimizer; those of tf.keras call a function once, when they are
            made.
    """
    hypers = _hypers(optimizer)
    is_schedule = tf.keras.optimizers.schedules.LearningRateSchedule
    return {n: value for n, value in hypers.items() if callable(value) and not isinstance(value, is_schedule)}


def _hypers(optimizer: Optimizer) -> dict[str, Any]:
    found = vars(optimizer).get("_hyper")
    if isinstance(found, dict):
        return found
    if isinstance(optimizer, tf.compat.v1.train.Optimizer):
        attributes = vars(optimizer)
        return {name: attributes[name] for name in _V1_ATTRIBUTES if name in attributes}
    return {}


@contextlib.contextmanager
def replaced(optimizer: Optimizer, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within this context, an optimiser has other values in place of some of its functions, see `functions_of`."""
    attributes: Any = vars(optimizer)
    place = attributes.get("_hyper", attributes)
    before = {name: place[name] for name in values}
    place.update(values)
    try:
        yield
    finally:
        place.update(before)
