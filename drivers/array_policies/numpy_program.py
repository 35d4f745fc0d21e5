"""A traced function as a list of NumPy calls.

For a small policy, the twenty operations of its graph take NumPy some 15 us, while a call of the graph takes TensorFlow
60 to 110 us, whatever is in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ppo_agent.common import host_calls
from ppo_agent.common.types import Array

from .noise import NoiseBlock
from .numpy_operations import UnsupportedError, form_of

_logger = logging.getLogger(__name__)

# What may have a state without having an effect.
_HARMLESS = {"Placeholder", "ReadVariableOp", "VarHandleOp"}
# As near as float32 gets after some layers; what differs by more is another function.
_TOLERANCE = 1e-4


class _Call(NamedTuple):
    """One operation: where its inputs and its output stand among the values, and which noise it takes."""

    function: Callable[..., Array]
    inputs: tuple[int, ...]
    output: int
    noise: NoiseBlock | None


class NumpyProgram:
    """Computes what a concrete function computes, with other random numbers.

    Attributes:
        outputs_vary: for each output whether it depends on random numbers.
    """

    def __init__(self, function: Any, seed: Sequence[int]) -> None:
        """Reads the function's graph, whose shapes must be known.

        Args:
            function: `tf.function`'s concrete function.
            seed: of the random numbers.

        Raises:
            UnsupportedError: It holds an operation that is not known, or that has an effect.
        """
        for operation in function.graph.get_operations():
            if operation.op_def.is_stateful and operation.type not in _HARMLESS:
                raise UnsupportedError(operation.type)
        self._seeds = np.random.SeedSequence(list(seed))
        self._values: list[Any] = []
        self._slots: dict[str, int] = {}
        self._is_fixed: list[bool] = []  # Known as soon as the variables are.
        self._varies: list[bool] = []
        self._variables: list[tuple[int, tf.Variable]] = []
        self._fixed_calls: list[_Call] = []
        self._calls: list[_Call] = []
        num_arguments = len(function.inputs) - len(function.captured_inputs)
        self._arguments = [self._new_slot(tensor, is_fixed=False) for tensor in function.inputs[:num_arguments]]
        variables = {id(variable.handle): variable for variable in function.variables}
        captured = zip(function.inputs[num_arguments:], function.captured_inputs, strict=True)
        self._captured = {inner.name: variables.get(id(outer), outer) for inner, outer in captured}
        self._outputs = [self._slot_of(tensor) for tensor in function.outputs]
        self.outputs_vary = [self._varies[slot] for slot in self._outputs]
        self.refresh()

    def refresh(self) -> None:
        """Reads the variables, and computes what depends on nothing else."""
        for slot, variable in self._variables:
            self._values[slot] = variable.value().numpy()
        with np.errstate(all="ignore"):  # As TensorFlow does.
            self._run(self._fixed_calls)

    def __call__(self, arguments: Sequence[Array]) -> list[Array]:
        """Returns the outputs; not to be written to.

        Args:
            arguments: of the function, flat.
        """
        values = self._values
        for slot, value in zip(self._arguments, arguments, strict=True):
            values[slot] = value
        with np.errstate(all="ignore"):
            self._run(self._calls)
        return [values[slot] for slot in self._outputs]

    def get_state(self) -> list[dict[str, Any]]:
        """The state of the random numbers, of plain Python objects."""
        return [noise.get_state() for noise in self._noise()]

    def set_state(self, state: Sequence[dict[str, Any]]) -> None:
        """Continues the random numbers from where `get_state` found them."""
        for noise, noise_state in zip(self._noise(), state, strict=True):
            noise.set_state(noise_state)

    def _noise(self) -> list[NoiseBlock]:
        return [call.noise for call in self._calls if call.noise is not None]

    def _run(self, calls: list[_Call]) -> None:
        values = self._values
        for function, inputs, output, noise in calls:
            if noise is None:
                values[output] = function(*[values[slot] for slot in inputs])
            else:
                values[output] = function(*[values[slot] for slot in inputs], noise.next(1)[0])

    def _new_slot(self, tensor: tf.Tensor, is_fixed: bool, varies: bool = False, value: Any = None) -> int:
        self._slots[tensor.name] = slot = len(self._values)
        self._values.append(value)
        self._is_fixed.append(is_fixed)
        self._varies.append(varies)
        return slot

    def _slot_of(self, tensor: tf.Tensor) -> int:
        """Where a tensor's value will stand; adds the calls that compute it."""
        if tensor.name in self._slots:
            return self._slots[tensor.name]
        operation = tensor.op
        if operation.type == "Const":
            return self._new_slot(tensor, is_fixed=True, value=tf.get_static_value(tensor))
        if operation.type == "ReadVariableOp":
            return self._variable_slot(tensor, operation.inputs[0])
        if tensor.name in self._captured:
            return self._captured_slot(tensor)
        form = form_of(operation)
        inputs = tuple(self._slot_of(operation.inputs[i]) for i in form.inputs)
        is_fixed = form.noise is None and all(self._is_fixed[slot] for slot in inputs)
        varies = form.noise is not None or any(self._varies[slot] for slot in inputs)
        noise = None if form.noise is None else NoiseBlock(*form.noise, self._seeds.spawn(1)[0])
        call = form.call if len(operation.outputs) == 1 else _picking(form.call, tensor.value_index)
        slot = self._new_slot(tensor, is_fixed, varies)
        (self._fixed_calls if is_fixed else self._calls).append(_Call(call, inputs, slot, noise))
        return slot

    def _variable_slot(self, tensor: tf.Tensor, handle: tf.Tensor) -> int:
        variable = self._captured.get(handle.name)
        if not isinstance(variable, tf.Variable):
            raise UnsupportedError("a resource that is no variable")
        slot = self._new_slot(tensor, is_fixed=True)
        self._variables.append((slot, variable))
        return slot

    def _captured_slot(self, tensor: tf.Tensor) -> int:
        value = self._captured[tensor.name]
        if not tf.is_tensor(value) or value.dtype in (tf.resource, tf.variant):
            raise UnsupportedError("a captured resource")
        return self._new_slot(tensor, is_fixed=True, value=value.numpy())


def _picking(function: Callable[..., Sequence[Array]], index: int) -> Callable[..., Array]:
    return lambda *arguments: function(*arguments)[index]


def numpy_program(
    function: Callable[..., list[tf.Tensor]], example: tuple[Any, ...], seed: Sequence[int]
) -> NumpyProgram | None:
    """Returns what computes a function of tensors in NumPy.

    Args:
        function: of tensors, returns a list of them; random numbers are stateless.
        example: its arguments, nests of arrays, for which both results are compared.
        seed: of the program's random numbers.

    Returns:
        The program, which takes arguments flat, or None if the function's graph holds something that is not known here,
        or if NumPy finds another result, or none.
    """
    traced = tf.function(
        function, input_signature=host_calls.specs_of(example), autograph=False
    ).get_concrete_function()
    try:
        program = NumpyProgram(traced, seed)
        before = program.get_state()
        found = program(tf.nest.flatten(example))
        program.set_state(before)
    except Exception as error:  # Whatever NumPy has against it, TensorFlow can do it.
        _logger.debug("The policy is not carried out in NumPy: %r.", error)
        return None
    # Only now: what has an effect would have it once more.
    expected = traced(*tf.nest.map_structure(tf.constant, example))
    agree = all(
        x.dtype == y.dtype.as_numpy_dtype
        and x.shape == tuple(y.shape)
        and (varies or np.allclose(x, y, _TOLERANCE, _TOLERANCE, equal_nan=True))
        for x, y, varies in zip(found, expected, program.outputs_vary, strict=True)
    )
    return program if agree else None
