"""What becomes of a gradient step whose loss or gradient is not finite: such a step is not sound.

Whatever way is taken, training continues as if the step had not been made, and the report counts it as skipped.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

import tensorflow as tf

from ppo_agent.common.types import Tensor


class Guard(enum.Enum):
    """The two ways.

    Attributes:
        SKIP: the step changes nothing, and the next one follows.
        UNDO: the update ends, and everything it changed is put back, for a caller that makes the update again with
            SKIP. A test in every gradient step would cost XLA 7 % of its time.
    """

    SKIP = enum.auto()
    UNDO = enum.auto()


def apply(guard: Guard, is_sound: Tensor, change: Callable[[], object]) -> None:
    """Makes the change of a step; with SKIP, only if it is sound."""
    if guard is not Guard.SKIP:
        change()
        return

    def changed() -> tf.Tensor:
        change()
        return tf.constant(0)

    tf.cond(is_sound, changed, lambda: tf.constant(0))


class Undo:
    """Puts variables back to what they were when this was made."""

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        """Reads the variables."""
        self._variables = variables
        self._values = [variable.read_value() for variable in variables]

    def where(self, condition: Tensor) -> None:
        """Puts them back where a condition, a bool scalar, holds."""
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(tf.where(condition, value, variable))
