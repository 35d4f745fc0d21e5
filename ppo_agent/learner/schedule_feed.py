"""Scheduled values on their way into a compiled update.

A function in Python that is called while an update is traced is never called again. So every function is called
outside, once in each call of `train`, and what it returns is handed to the compiled update as a tensor. Functions that
read a variable which the update itself changes, such as the train step, are part of the graph and follow every gradient
step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Tensor
from ppo_agent.config import PPOConfig, expectation, is_within
from ppo_agent.learner import optimizers

_Function = Callable[[], Tensor]


class FedValue:
    """A scheduled hyper-parameter: what is fed while an update is traced, else what its function returns now."""

    def __init__(self, function: _Function) -> None:
        """Takes the function."""
        self.function = function
        self.fed: Tensor | None = None

    def __call__(self) -> Tensor:
        """Returns the value in force."""
        return self.function() if self.fed is None else self.fed


class Fed(NamedTuple):
    """What the functions returned.

    Attributes:
        names: of hyper-parameters, and those of the optimiser's with a dot in front.
        values: float32 [number of names]; None without any.
    """

    names: tuple[str, ...] = ()
    values: Tensor | None = None


def with_fed_values(config: PPOConfig, train_step: tf.Variable) -> PPOConfig:
    """The hyper-parameters with a `FedValue` in place of each function; those with a parameter get the train step.

    Raises:
        ValueError: a function takes other arguments.
    """
    found = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    functions = {name: value for name, value in found.items() if callable(value)}
    fed: dict[str, Any] = {name: FedValue(_bound(name, function, train_step)) for name, function in functions.items()}
    return dataclasses.replace(config, **fed)


def _bound(name: str, function: Callable[..., Tensor], train_step: tf.Variable) -> _Function:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # Some that are written in C do not tell.
        return function
    if _takes(signature):
        return function
    if not _takes(signature, train_step):
        raise ValueError(f"{name} takes the arguments {signature}, expected a function of none, or of the train step.")
    return lambda: function(train_step)


def _takes(signature: inspect.Signature, *arguments: Any) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


class ScheduleFeed:
    """Calls the functions of an update, and feeds what they return."""

    def __init__(self, config: PPOConfig, optimizer: Any, changed: Callable[[], list[tf.Variable]]) -> None:
        """Takes hyper-parameters, an optimiser, and a function that returns the variables which the update changes."""
        values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        self._values = {name: value for name, value in values.items() if isinstance(value, FedValue)}
        self._optimizer, self._changed = optimizer, changed
        self._outside: dict[str, tuple[_Function, bool]] = {}

    def read(self) -> Fed:
        """Calls every function once.

        Raises:
            ValueError: a function returns what its hyper-parameter cannot be.
        """
        functions = {name: value.function for name, value in self._values.items()}
        functions |= {f".{name}": function for name, function in optimizers.functions_of(self._optimizer).items()}
        if not functions:
            return Fed()
        found = {
            name: value for name, function in functions.items() if (value := self._read(name, function)) is not None
        }
        for name, value in found.items():
            _check(name, value)
        if not found:
            return Fed()
        return Fed(tuple(found), tf.constant([float(value) for value in found.values()]))

    def _read(self, name: str, function: _Function) -> Any:
        """What a function returns; None if it belongs into the graph."""
        known, is_outside = self._outside.get(name, (None, False))
        if known is function:
            return function() if is_outside else None
        variables, returned = _traced(function)
        changed = {id(variable) for variable in self._changed()}
        is_outside = not any(id(variable) in changed for variable in variables)
        self._outside[name] = (function, is_outside)
        if not is_outside:
            return None
        return function() if returned is None else returned

    @contextlib.contextmanager
    def feeding(self, fed: Fed) -> Iterator[None]:
        """Within this context, the hyper-parameters and the optimiser have the values that are fed."""
        values = dict(zip(fed.names, [] if fed.values is None else tf.unstack(fed.values), strict=True))
        own = {name: value for name, value in values.items() if not name.startswith(".")}
        for name, value in own.items():
            self._values[name].fed = value
        try:
            with optimizers.replaced(self._optimizer, {n[1:]: v for n, v in values.items() if n not in own}):
                yield
        finally:
            for name in own:
                self._values[name].fed = None


def _traced(function: _Function) -> tuple[list[tf.Variable], Any]:
    """The variables that a function reads in a graph, and what it returned if that is a plain number."""
    returned: list[Any] = []

    def call() -> tf.Tensor:
        returned.append(function())
        return tf.cast(returned[-1], tf.float32)

    try:
        graph = tf.function(call, autograph=False).get_concrete_function().graph
    except Exception:  # It cannot be part of a graph; if it cannot be called either, that is told where it is read.
        return [], returned[-1] if returned and _is_plain(returned[-1]) else None
    return list(graph.variables), returned[-1] if _is_plain(returned[-1]) else None


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float, np.number))


def _check(name: str, value: Any) -> None:
    field = PPOConfig.__dataclass_fields__.get(name)
    if field is not None and not is_within(field.metadata, value):
        raise ValueError(f"{name} returns {value!r}, expected {expectation(field.metadata)}.")
