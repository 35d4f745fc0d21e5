"""What each tensor of a policy's graph depends on, which decides when it is computed."""

from __future__ import annotations

import enum
from typing import Any

import tensorflow as tf

from .flat_graph import FlatGraph
from .numpy_operations import UnsupportedError

# Random numbers by the inputs that tell their seed; other inputs tell shapes or, for the last, are values.
_SEED_INPUTS = {
    "StatelessRandomNormalV2": (1, 2),
    "StatelessRandomUniformV2": (1, 2),
    "StatelessMultinomial": (2,),
}
_VALUE_INPUTS = {"StatelessMultinomial": (0,)}


class Level(enum.IntEnum):
    """What a value depends on besides constants, the earlier ones included."""

    FIXED = 0  # Variables.
    SEED = 1  # The seed of the policy's step; of use for random numbers alone.
    NOISE = 2  # Random numbers, which do not come from the seed here.
    STEP = 3  # The arguments.


class Levels:
    """Finds the levels of a graph's tensors; the graph's last argument is the seed."""

    def __init__(self, flat: FlatGraph) -> None:
        self._levels = {tensor.name: Level.STEP for tensor in flat.arguments}
        self._levels[flat.arguments[-1].name] = Level.SEED
        self._levels |= {f"{name}:0": Level.FIXED for name in flat.captured}

    def __call__(self, tensor: tf.Tensor) -> Level:
        """Returns the level of a tensor.

        Raises:
            UnsupportedError: Random numbers are drawn with a seed that depends on an argument.
        """
        if tensor.name not in self._levels:
            self._levels[tensor.name] = self._find(tensor.op)
        return self._levels[tensor.name]

    def _find(self, operation: tf.Operation) -> Level:
        inputs = [self(tensor) for tensor in operation.inputs]
        if operation.type in _SEED_INPUTS:
            return self._find_random(operation, inputs)
        return max(inputs, default=Level.FIXED)

    def _find_random(self, operation: tf.Operation, inputs: list[Level]) -> Level:
        seed = max(inputs[i] for i in _SEED_INPUTS[operation.type])
        values = max((inputs[i] for i in _VALUE_INPUTS.get(operation.type, ())), default=Level.FIXED)
        if seed == Level.SEED:
            return max(Level.NOISE, values)
        if seed == values == Level.FIXED:
            return Level.FIXED
        raise UnsupportedError(f"{operation.type} whose seed is not the policy's")


def seed_of(operation: tf.Operation) -> tuple[Any, ...]:
    """Returns what the seed of a random operation is; equal for those that draw equal numbers."""
    return tuple(_expression(operation.inputs[i]) for i in _SEED_INPUTS[operation.type])


def attributes_of(operation: tf.Operation) -> bytes:
    """Returns an operation's attributes in a form that can be compared."""
    attributes = operation.node_def.attr
    return b"".join(name.encode() + attributes[name].SerializeToString() for name in sorted(attributes))


def _expression(tensor: tf.Tensor) -> Any:
    operation = tensor.op
    if operation.type == "Placeholder":
        return tensor.name
    if operation.type == "Identity":
        return _expression(operation.inputs[0])
    inputs = tuple(_expression(x) for x in operation.inputs)
    return operation.type, attributes_of(operation), tensor.value_index, inputs
