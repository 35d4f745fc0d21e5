"""Whether variables were written to."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ppo_agent.common.host_calls import as_one_operation


class VariableWatch:
    """Tells whether variables were written to since the last question.

    Reading a variable shares its memory. As long as a reading is held, TensorFlow writes into new memory, so that equal
    addresses mean equal values.
    """

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        unique = list({id(variable): variable for variable in variables}.values())
        read = tf.function(lambda: [variable.read_value() for variable in unique], autograph=False)
        self._read = as_one_operation(read.get_concrete_function()) if unique else lambda _: []
        self._held: list[tf.Tensor] = []
        self._addresses: list[int] = []

    def again(self) -> VariableWatch:
        """Returns another one for the same variables, which has not been asked yet."""
        other = copy.copy(self)
        other._held, other._addresses = [], []
        return other

    def have_changed(self) -> bool:
        """Returns whether one was written to since the last call; true for the first call."""
        held = self._read([])
        addresses = [_address(tensor) for tensor in held]
        if self._held and addresses == self._addresses:
            return False
        self._held, self._addresses = held, addresses
        return True


def _address(tensor: tf.Tensor) -> int:
    return int(np.asarray(memoryview(tensor)).__array_interface__["data"][0])
