"""The list of operations itself, for any batch size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Array


class UnsupportedError(ValueError):
    """A policy holds an operation that a format has no words for; the message names it."""


class Step(NamedTuple):
    """One operation, in the words of ONNX.

    Attributes:
        operation: its name there. `Conv` is one of images with channels last, `Repeat` repeats the first input's only
            row along an axis as often as the second input has rows.
        inputs: names of its operands.
        outputs: names of its results.
        attributes: numbers, lists and texts by name. A shape has -1 where the batch size comes in.
    """

    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class Program(NamedTuple):
    """What computes named outputs from named inputs.

    Attributes:
        inputs: specs by name, the batch dimension None.
        outputs: by name, the name of the operand.
        output_specs: by name.
        constants: operands that are known, by name.
        steps: in an order in which they can be carried out.
    """

    inputs: dict[str, tf.TensorSpec]
    outputs: dict[str, str]
    output_specs: dict[str, tf.TensorSpec]
    constants: dict[str, Array]
    steps: list[Step]


# With these an operand of one row serves for all rows.
_BROADCASTING = {
    "Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "And", "Or", "Where",
}  # fmt: skip


def merge(one: Program, other: Program) -> Program:
    """The program for any batch size, of programs for two.

    They differ in the batch size alone: where their shapes do, there it stands.

    Raises:
        UnsupportedError: the batch size comes in where it cannot be left open.
    """
    if [step[:3] for step in one.steps] != [step[:3] for step in other.steps]:
        raise UnsupportedError("the policy's graph depends on the batch size, expected one that does not.")
    by_row: dict[str, int] = {}
    constants = {}
    for name, value in one.constants.items():
        constants[name], axis = _merge_constant(value, other.constants[name])
        if axis is not None:
            by_row[name] = axis
    steps = [
        step._replace(attributes=_merge_attributes(step.attributes, twin.attributes))
        for step, twin in zip(one.steps, other.steps, strict=True)
    ]
    rows = _Rows(by_row, next(iter(one.inputs)))
    if any(step.operation == "Expand" and -1 in step.attributes["shape"] for step in steps):
        raise UnsupportedError(
            "the policy spreads a number over the batch, expected each row to be computed by itself."
        )
    steps = [merged for step in steps for merged in rows.repeated(step)]
    outputs = {name: rows.of(operand) for name, operand in one.outputs.items()}
    steps += rows.at_the_end()
    used = {name for step in steps for name in step.inputs} | set(outputs.values())
    constants = {name: value for name, value in constants.items() if name in used}
    return Program(_free(one.inputs), outputs, _free(one.output_specs), constants, steps)


class _Rows:
    """Repeats constants of one row, as often as `source` has rows, where an operation does not do it by itself."""

    def __init__(self, by_row: Mapping[str, int], source: str) -> None:
        self._by_row, self._source = by_row, source
        self._made: set[str] = set()
        self._rest: list[Step] = []

    def of(self, operand: str) -> str:
        """The operand with all its rows."""
        if operand not in self._by_row:
            return operand
        name = f"{operand}_rows"
        if name not in self._made:
            self._made.add(name)
            axis = {"axis": self._by_row[operand]}
            self._rest.append(Step("Repeat", (operand, self._source), (name,), axis))
        return name

    def repeated(self, step: Step) -> list[Step]:
        """The step, after what it needs."""
        if step.operation in _BROADCASTING and any(name not in self._by_row for name in step.inputs):
            return [step]
        step = step._replace(inputs=tuple(map(self.of, step.inputs)))
        return [*self.at_the_end(), step]

    def at_the_end(self) -> list[Step]:
        """What was asked for since the last time."""
        rest, self._rest = self._rest, []
        return rest


def _merge_constant(one: Array, other: Array) -> tuple[Array, int | None]:
    """A constant for any batch size, and the axis along which it has to be repeated."""
    if one.shape == other.shape and np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
        return one, None
    axes = [i for i, (a, b) in enumerate(zip(one.shape, other.shape, strict=False)) if a != b]
    if one.ndim == other.ndim and len(axes) == 1:
        row, twin = one.take([0], axes[0]), other.take([0], axes[0])
        if (one == row).all() and (other == row).all() and (row == twin).all():
            return row, axes[0]
    raise UnsupportedError("the policy computes with the batch size, expected each row to be computed by itself.")


def _merge_attributes(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for name, value in one.items():
        if value == other[name]:
            continue
        if name != "shape" or len(value) != len(other[name]):
            raise UnsupportedError(f"the policy computes {name} from the batch size, expected a fixed one.")
        differing = [i for i, (a, b) in enumerate(zip(value, other[name], strict=True)) if a != b]
        if len(differing) != 1:
            raise UnsupportedError("the policy has several dimensions of the batch size, expected one.")
        merged[name] = [-1 if i == differing[0] else size for i, size in enumerate(value)]
    return merged


def _free(specs: Mapping[str, tf.TensorSpec]) -> dict[str, tf.TensorSpec]:
    return {name: tf.TensorSpec([None, *spec.shape[1:]], spec.dtype, name) for name, spec in specs.items()}
