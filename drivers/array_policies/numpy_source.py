"""Writes the Python function that carries a graph out in NumPy.

The function is straight-line code without a loop or a lookup, for one batch size. Results that do not leave it go into
arrays that are kept from call to call; those that leave it are new ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Array

from .flat_graph import FlatGraph
from .levels import Level, Levels, attributes_of, seed_of
from .numpy_code import Derived, PortableCode
from .numpy_operations import Form, UnsupportedError, form_of, shape_of

Shape = tuple[int, ...]
# Constants of at most this many bytes are repeated for each row: adding equal shapes is faster than broadcasting.
_MOST_REPEATED = 2**18


@dataclasses.dataclass(eq=False)
class Value:
    """What a name in the source stands for.

    Attributes:
        name: In the source.
        level: When it is known.
        shape: Of the array; that of its tensor may be another one of equal size.
        dtype: Of the array.
        bases: Values whose memory it may share.
        is_own: Whether the function makes the array, and nothing else has it.
        varies: Whether it depends on random numbers.
        uses: How many statements read it.
        leaves: Whether it, or what shares its memory, is a result.
        is_zero: Whether it is known to be zeros.
    """

    name: str
    level: Level
    shape: Shape
    dtype: Any
    bases: tuple[Value, ...] = ()
    is_own: bool = False
    varies: bool = False
    uses: int = 0
    leaves: bool = False
    is_zero: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    def leave(self) -> None:
        """Marks it, and what shares its memory, as a result."""
        self.leaves = True
        for base in self.bases:
            base.leave()


@dataclasses.dataclass
class _Statement:
    """`target = call(operands)`, or a line of source."""

    text: str
    target: Value | None = None
    operands: tuple[Value, ...] = ()
    form: Form | None = None


class NumpySource:
    """Reads a graph and writes the function.

    Args:
        flat: Its last argument is the seed.

    Attributes:
        namespace: What the source refers to, but for what follows.
        fixed: By name, tensors that depend on variables alone.
        noise: By name, (kind, shape) of the random numbers of a step; the name stands for a block of many steps.
        derived: What is computed from `fixed` and `noise` in this order, when they change.
        rows: By name of a step's random numbers, the block that they are a row of.
    """

    def __init__(self, flat: FlatGraph) -> None:
        self.namespace: dict[str, Any] = {}
        self.fixed: dict[str, tf.Tensor] = {}
        self.noise: dict[str, tuple[str, Shape]] = {}
        self.derived: list[Derived] = []
        self.rows: dict[str, str] = {}
        self._level = Levels(flat)
        self._statements: list[_Statement] = []
        # By how they are computed, so that nothing is computed twice.
        self._known: dict[Any, Value] = {}
        self._arguments = [
            Value(f"x{i}", Level.STEP, shape_of(tensor), tensor.dtype.as_numpy_dtype)
            for i, tensor in enumerate(flat.arguments[:-1])
        ]
        self._values = {tensor.name: value for tensor, value in zip(flat.arguments[:-1], self._arguments, strict=True)}
        for tensor in flat.conditions:
            self._check(self._read(tensor))
        self._results = [self._read(tensor) for tensor in flat.outputs]
        for value in self._results:
            value.leave()

    def results_vary(self) -> list[bool]:
        """Returns for each result whether it depends on random numbers."""
        return [value.varies for value in self._results]

    def portable(self, text: str) -> PortableCode:
        """Returns all that the function needs, for the source that `write` returned."""
        return PortableCode(
            text, self.namespace, list(self.fixed), dict(self.noise), list(self.derived), list(self.rows.values())
        )

    def write(self, parameters: str, arguments: Sequence[str], result: Callable[[list[str]], str]) -> str:
        """Returns the source of a function `act` of `parameters`; None is its result if a condition does not hold.

        `arguments` has an expression for each argument of the graph but the seed; `result` makes one of those of the
        graph's results.
        """
        lines = [f"def act({parameters}):"]
        if self.rows:
            targets = ", ".join(["position", *self.rows])
            lines += ["    global position", "    try:", f"        {targets} = draw()"]
            lines += ["    except StopIteration:", f"        {targets} = redraw()"]
        used = [value.uses > 0 or value.leaves for value in self._arguments]
        for value, expression, is_used in zip(self._arguments, arguments, used, strict=True):
            lines += [f"    {value.name} = {expression}"] if is_used else []
        lines += [f"    {self._line(statement)}" for statement in self._statements]
        return "\n".join([*lines, f"    return {result([value.name for value in self._results])}"])

    def _line(self, statement: _Statement) -> str:
        """Returns a statement's source, with an array for the result where one can be kept."""
        target, form = statement.target, statement.form
        if target is None or form is None:
            return statement.text
        operands = [operand.name for operand in statement.operands]
        if form.takes_out and not target.leaves and target.shape:
            operands.append(self._place(target, form, statement.operands))
        return f"{target.name} = {statement.text}({', '.join(operands)})"

    def _place(self, target: Value, form: Form, operands: tuple[Value, ...]) -> str:
        """Returns where a result that stays inside goes: over an operand that nothing else reads, or into an array."""
        may_be_overwritten = operands if isinstance(form.call, np.ufunc) else operands[:1]
        for operand in may_be_overwritten if form.is_elementwise else ():
            is_last = operand.is_own and operand.uses == 1 and not operand.leaves
            if is_last and (operand.shape, operand.dtype) == (target.shape, target.dtype):
                return operand.name
        name = f"{target.name}_kept"
        self.namespace[name] = np.empty(target.shape, target.dtype)
        return name

    # Reading the graph.

    def _check(self, condition: Value) -> None:
        if condition.varies:
            raise UnsupportedError("Assert about random numbers")
        self._statements.append(_Statement(f"if not {condition.name}: return None"))

    def _read(self, tensor: tf.Tensor) -> Value:
        """Returns a tensor's value as a statement reads it, in the tensor's shape."""
        return self._shaped(self._value(tensor), shape_of(tensor))

    def _value(self, tensor: tf.Tensor) -> Value:
        """Returns a tensor's value in whatever shape; adds the statements that compute it."""
        if tensor.name not in self._values:
            self._values[tensor.name] = self._find(tensor)
        return self._values[tensor.name]

    def _find(self, tensor: tf.Tensor) -> Value:
        level = self._level(tensor)
        if level == Level.SEED:
            raise UnsupportedError("the seed as a number")
        if level == Level.FIXED:
            return self._fixed(tensor)
        form = form_of(tensor)
        inputs = [tensor.op.inputs[i] for i in form.inputs]
        if form.noise is not None and form.call is None:
            return self._noise(tensor.op, form)
        if form.call is None:
            return self._value(inputs[0])
        if form.is_elementwise:
            return self._elementwise(tensor, form, inputs)
        operands = [self._read(x) for x in inputs]
        if form.noise is not None:
            operands.append(self._shaped(self._noise(tensor.op, form), form.noise_shape))
        return self._call(tensor, form, operands, form.shape or shape_of(tensor))

    def _fixed(self, tensor: tf.Tensor) -> Value:
        """Returns the value of a tensor that depends on variables alone; equal constants are one."""
        constant = tf.get_static_value(tensor) if tensor.op.type == "Const" else None
        key = tensor.name if constant is None else ("constant", constant.dtype, constant.shape, constant.tobytes())
        if key not in self._known:
            name = f"fixed{len(self.fixed)}"
            self.fixed[name] = tensor
            is_zero = constant is not None and constant.dtype.kind == "f" and not constant.any()
            self._known[key] = Value(name, Level.FIXED, shape_of(tensor), tensor.dtype.as_numpy_dtype, is_zero=is_zero)
        return self._known[key]

    def _noise(self, operation: tf.Operation, form: Form) -> Value:
        """Returns a block's value. Equal seeds give equal numbers, as in TensorFlow."""
        key = ("noise", form.noise, form.noise_shape, seed_of(operation))
        if key not in self._known:
            name = f"noise{len(self.noise)}"
            self.noise[name] = (str(form.noise), form.noise_shape)
            self._known[key] = Value(name, Level.NOISE, form.noise_shape, np.dtype(str(form.noise).split()[1]).type)
        return self._known[key]

    def _elementwise(self, tensor: tf.Tensor, form: Form, inputs: list[tf.Tensor]) -> Value:
        """Where no argument is broadcast, the shape of the arrays is of no importance."""
        shape, values = shape_of(tensor), [self._value(x) for x in inputs]
        varying = sorted((v for v in values if v.level != Level.FIXED), key=lambda v: -v.level)
        size = int(np.prod(shape))
        if form.call is np.add and len(varying) == 1 and varying[0].size == size and any(v.is_zero for v in values):
            return varying[0]
        if size * tensor.dtype.size > _MOST_REPEATED or any(v.size != size for v in varying):
            return self._broadcast(tensor, form, inputs)
        place = varying[0].shape
        if varying[0].level == Level.NOISE:
            return self._block(
                tensor, form, [self._repeated(v, x, shape, place) for v, x in zip(values, inputs, strict=True)]
            )
        operands = [
            self._shaped(self._repeated(v, x, shape, place), place) for v, x in zip(values, inputs, strict=True)
        ]
        return self._call(tensor, form, operands, place)

    def _repeated(self, value: Value, tensor: tf.Tensor, shape: Shape, place: Shape) -> Value:
        """Returns what is fixed repeated to a shape, in the form of another; other values as they are."""
        if value.level != Level.FIXED:
            return value
        own = shape_of(tensor)

        def repeat(x: Array) -> Array:
            return np.ascontiguousarray(np.broadcast_to(x.reshape(own), shape)).reshape(place)

        return self._derive(("repeat", value.name, own, shape, place), (value,), repeat, place, value.dtype)

    def _broadcast(self, tensor: tf.Tensor, form: Form, inputs: list[tf.Tensor]) -> Value:
        operands, shape = [self._read(x) for x in inputs], shape_of(tensor)
        if form.call is np.where and operands[0].size < operands[2].size and operands[2].shape == shape:
            return self._choice(tensor, *operands)
        return self._call(tensor, form, operands, shape)

    def _choice(self, tensor: tf.Tensor, condition: Value, a: Value, b: Value) -> Value:
        """`where` of a few conditions, which most often are all false: where an episode starts, for instance."""
        anywhere = self._text("any", condition, f"{condition.name}.any()")
        target = self._target(tensor, (condition, a, b), b.shape, (a, b))
        text = f"{target.name} = where({condition.name}, {a.name}, {b.name}) if {anywhere.name} else {b.name}"
        self.namespace["where"] = np.where
        self._statements.append(_Statement(text))
        return target

    def _text(self, key: Any, source: Value, expression: str, shape: Shape = ()) -> Value:
        """Returns what an expression of a value stands for, a view of it if it is an array."""
        key = (key, source.name)
        if key not in self._known:
            source.uses += 1
            name = f"t{len(self._statements)}"
            self._known[key] = Value(name, Level.STEP, shape, source.dtype, (source,), varies=source.varies)
            self._statements.append(_Statement(f"{name} = {expression}"))
        return self._known[key]

    def _call(self, tensor: tf.Tensor, form: Form, operands: Sequence[Value], shape: Shape) -> Value:
        """Returns the value of a statement, of which there is only one for equal operations on equal values."""
        key = (tensor.op.type, attributes_of(tensor.op), tensor.value_index, shape, *(x.name for x in operands))
        if key not in self._known:
            bases = tuple(operands) if form.is_view else ()
            target = self._known[key] = self._target(tensor, operands, shape, bases)
            self.namespace[f"f_{target.name}"] = form.call
            self._statements.append(_Statement(f"f_{target.name}", target, tuple(operands), form))
        return self._known[key]

    def _target(
        self, tensor: tf.Tensor, operands: Sequence[Value], shape: Shape, bases: tuple[Value, ...] = ()
    ) -> Value:
        """Returns a new value for a statement that reads the operands."""
        for operand in operands:
            operand.uses += 1
        varies = any(operand.varies for operand in operands)
        name = f"t{len(self._statements)}"
        return Value(name, Level.STEP, shape, tensor.dtype.as_numpy_dtype, bases, not bases, varies)

    def _shaped(self, value: Value, shape: Shape) -> Value:
        """Returns the value in another shape, as a statement of a step reads it."""
        key = ("shape", value.name, shape)
        if value.level == Level.NOISE:
            return self._row(self._derive(key, (value,), lambda x: x.reshape(len(x), *shape), shape, value.dtype))
        if value.shape == shape:
            return value
        if value.level == Level.FIXED:
            return self._derive(key, (value,), lambda x: x.reshape(shape), shape, value.dtype)
        return self._text(("shape", shape), value, f"{value.name}.reshape({shape})", shape)

    # What is computed outside of the function.

    def _derive(
        self, key: Any, sources: Sequence[Value], compute: Callable[..., Array], shape: Shape, dtype: Any
    ) -> Value:
        if key not in self._known:
            level = max(source.level for source in sources)
            value = self._known[key] = Value(f"derived{len(self.derived)}", level, shape, dtype)
            self.derived.append(Derived(value.name, tuple(source.name for source in sources), compute))
        return self._known[key]

    def _block(self, tensor: tf.Tensor, form: Form, operands: list[Value]) -> Value:
        """Computes for many steps at once what depends on random numbers and variables alone."""
        place = max(operands, key=lambda x: x.level).shape
        call: Any = form.call
        dtype = tensor.dtype.as_numpy_dtype
        key = ("block", tensor.name)
        are_blocks = [operand.level == Level.NOISE for operand in operands]

        def compute(*parts: Array) -> Array:
            return call(
                *[x.reshape(-1, *place) if is_block else x for is_block, x in zip(are_blocks, parts, strict=True)]
            )

        return self._derive(key, operands, compute, place, dtype)

    def _row(self, block: Value) -> Value:
        key = ("row", block.name)
        if key not in self._known:
            name = f"row{len(self.rows)}"
            self.rows[name] = block.name
            self._known[key] = Value(name, Level.STEP, block.shape, block.dtype, varies=True)
        return self._known[key]
