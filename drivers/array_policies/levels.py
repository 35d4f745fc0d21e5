"""What each tensor of a policy's graph depends on, which decides when it is computed."""

from __future__ import annotations

import enum

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
    """Finds the levels of a graph's tensors.

    Args:
        flat: The graph; its last argument is the seed.
    """

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


def is_random(operation: tf.Operation) -> bool:
    """Whether an operation draws random numbers from a seed."""
    return operation.type in _SEED_INPUTS


def seed_of(operation: tf.Operation) -> tuple[str, ...]:
    """Returns the names of the tensors that a random operation is seeded with."""
    return tuple(operation.inputs[i].name for i in _SEED_INPUTS[operation.type])
