"""A traced function carried out in NumPy.

For a small policy, the twenty operations of its graph take NumPy some 8 us, while a call of the graph takes TensorFlow
60 to 110 us, whatever is in it. What depends on variables alone is left to TensorFlow, once for each state of them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.common import array_nests, host_calls
from ppo_agent.common.types import Array, Nest

from .flat_graph import FlatGraph, flatten, subgraph
from .numpy_code import NumpyCode
from .numpy_operations import UnsupportedError
from .numpy_source import NumpySource
from .variable_watch import VariableWatch

# As near as float32 gets after some layers; what differs by more is another function.
_TOLERANCE = 1e-4
# Arguments beyond this are large; so large a share of their results must agree.
_LARGE, _MOST = 100.0, 0.9


class NumpyProgram:
    """Computes what a concrete function computes, with other random numbers.

    Attributes:
        act: Maps the function's arguments, nests of arrays without the seed, to its result, a nest of arrays. Neither
            may be written to.
        portable: What other processes need, which compute without TensorFlow.
        results_vary: For each leaf of the result whether it depends on random numbers.
    """

    def __init__(self, function: Any, arguments: tuple[Nest, ...], seed: np.random.SeedSequence) -> None:
        """Reads the function's graph, whose shapes must be known.

        Args:
            function: `tf.function`'s concrete function of the arguments and of a seed, int32 [2].
            arguments: Of the structures that `act` will be given.
            seed: Of the random numbers.

        Raises:
            UnsupportedError: It holds an operation that is not known, or that has an effect.
        """
        flat = flatten(function)
        source = NumpySource(flat)
        self._call_tensorflow, self._structure = host_calls.as_one_operation(function), function.structured_outputs
        self._read_fixed = _fixed_reader(flat, list(source.fixed.values()))
        self._variables = VariableWatch([x for x in flat.captured.values() if isinstance(x, tf.Variable)])
        self.results_vary = source.results_vary()
        names = [f"a{i}" for i in range(len(arguments))]
        leaves = [leaf for name, nest in zip(names, arguments, strict=True) for leaf in _leaf_sources(name, nest)]
        pack = functools.partial(_nest_source, function.structured_outputs, source.namespace)
        text = source.write(", ".join(names), leaves, lambda results: pack(iter(results)))
        self.portable, self._has_conditions = source.portable(text), bool(flat.conditions)
        self._begin(seed)

    def again(self, seed: np.random.SeedSequence) -> NumpyProgram:
        """Returns another one for the same function, with random numbers of its own."""
        other = copy.copy(self)
        other._variables = self._variables.again()
        other._begin(seed)
        return other

    def fixed_values(self) -> list[Array]:
        """Reads the variables, and returns what depends on them alone, for `NumpyCode.put`."""
        return self._read_fixed()

    def refresh(self) -> None:
        """Reads the variables, and computes what depends on nothing else."""
        self._code.put(self._read_fixed())

    def refresh_changed(self) -> None:
        """As `refresh`, if a variable was written to since."""
        if self._variables.have_changed():
            self.refresh()

    def get_state(self) -> dict[str, Any]:
        """Returns where the random numbers are, of plain Python objects."""
        return self._code.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues the random numbers from where `get_state` found them."""
        self._code.set_state(state)

    def _begin(self, seed: np.random.SeedSequence) -> None:
        self._code = NumpyCode(self.portable, seed)
        self._act = self._code.act
        self.act = self._act_or_raise if self._has_conditions else self._act
        self.refresh()

    def _act_or_raise(self, *arguments: Nest) -> Nest:
        """As `act`; where the function's assertions do not hold, TensorFlow says so."""
        result = self._act(*arguments)
        return self.in_tensorflow(*arguments) if result is None else result

    def in_tensorflow(self, *arguments: Nest) -> Nest:
        """Returns the result as TensorFlow computes it, without rewrites: with some of them NaN becomes 0."""
        result = self._call_tensorflow([*tf.nest.flatten(arguments), np.zeros(2, np.int32)])
        return tf.nest.pack_sequence_as(self._structure, [tensor.numpy() for tensor in result])


def _fixed_reader(flat: FlatGraph, tensors: list[tf.Tensor]) -> Callable[[], list[Array]]:
    """Returns a function that evaluates tensors of the graph that depend on no argument."""
    if not tensors:
        return list
    graph_def = subgraph(flat.graph_def, [tensor.op.name for tensor in tensors])
    kept = {node.name for node in graph_def.node}
    captured = {name: value for name, value in flat.captured.items() if name in kept}

    @tf.function(autograph=False)
    def read() -> list[tf.Tensor]:
        values = {f"{name}:0": tf.convert_to_tensor(value) for name, value in captured.items()}
        names = [tensor.name for tensor in tensors]
        return tf.graph_util.import_graph_def(graph_def, input_map=values, return_elements=names, name="fixed")

    # Called as it is: TensorFlow takes the same line of another policy for a function that is traced again and again.
    return functools.partial(_run, read.get_concrete_function(), captured)


def _run(program: Callable[[], list[tf.Tensor]], captured: dict[str, Any]) -> list[Array]:
    """The results of a program; what it captured is kept for it, which holds variables weakly."""
    del captured
    return [tensor.numpy() for tensor in program()]


def _leaf_sources(name: str, nest: Nest) -> list[str]:
    """Returns expressions for the leaves of a nest, in tf.nest's order."""
    if not array_nests.is_nest(nest):
        return [name]
    return [leaf for key, child in array_nests.parts_of(nest) for leaf in _leaf_sources(f"{name}[{key!r}]", child)]


def _nest_source(structure: Nest, namespace: dict[str, Any], leaves: Any) -> str:
    """Returns an expression for a nest of a structure, given those for its leaves; adds its classes to a namespace."""
    if not array_nests.is_nest(structure):
        return next(leaves)
    parts = [(key, _nest_source(child, namespace, leaves)) for key, child in array_nests.parts_of(structure)]
    if isinstance(structure, dict):
        return "{" + ", ".join(f"{key!r}: {part}" for key, part in parts) + "}"
    if hasattr(structure, "_fields"):
        namespace[type(structure).__name__] = type(structure)
        return f"{type(structure).__name__}({', '.join(part for _, part in parts)})"
    inside = "".join(f"{part}, " for _, part in parts)
    return f"({inside})" if isinstance(structure, tuple) else f"[{inside}]"


def numpy_program(
    traced: Any, examples: Sequence[tuple[Nest, ...]], seed: np.random.SeedSequence
) -> tuple[NumpyProgram | None, str]:
    """Returns what computes a function of tensors in NumPy.

    Args:
        traced: The concrete function of the arguments and of a seed, int32 [2], for stateless random numbers.
        examples: Arguments, nests of arrays of the shapes that it was traced for. Both results are compared for each.
        seed: Of the program's random numbers.

    Returns:
        The program and "", or None and the reason: the function's graph holds something that is not known here, or
        NumPy finds another result, or none.
    """
    try:
        program = NumpyProgram(traced, examples[0], seed)
        before = program.get_state()
        reason = next(filter(None, (_difference(program, example) for example in examples)), "")
        program.set_state(before)
    except UnsupportedError as error:
        return None, f"NumPy lacks {error}"
    except Exception as error:  # Whatever NumPy has against it, TensorFlow can do it.
        return None, f"NumPy finds no result: {error!r}"
    return (None, reason) if reason else (program, "")


def _difference(program: NumpyProgram, arguments: tuple[Nest, ...]) -> str | None:
    """Returns what tells a program's result from TensorFlow's; None for nothing."""
    try:
        found = program._act(*arguments)
    except IndexError:
        found = None
    try:
        expected = program.in_tensorflow(*arguments)
    except tf.errors.InvalidArgumentError:
        return None if found is None else "TensorFlow refuses what NumPy does not"
    if found is None:
        return "NumPy refuses what TensorFlow does not"
    has_nan, is_large = _extremes(arguments)
    leaves = zip(tf.nest.flatten(found), tf.nest.flatten(expected), program.results_vary, strict=True)
    for x, y, varies in leaves:
        if (x.dtype, x.shape) != (y.dtype, y.shape):
            return "NumPy finds another result"
        # The largest of numbers with NaN among them is NaN for NumPy, for TensorFlow the largest of the others.
        if not (varies or (has_nan and x.dtype.kind in "iu")) and not _agree(x, y, is_large):
            return "NumPy finds another result"
    return None


def _extremes(arguments: tuple[Nest, ...]) -> tuple[bool, bool]:
    """Returns whether there is a NaN and whether there are large numbers in arguments."""
    numbers = [x for x in tf.nest.flatten(arguments) if x.dtype.kind == "f" and x.size]
    has_nan = any(np.isnan(x).any() for x in numbers)
    return has_nan, any(np.nanmax(np.abs(x), initial=0.0) > _LARGE for x in numbers)


def _agree(found: Array, expected: Array, is_large: bool) -> bool:
    """Whether all results agree; of large arguments, whose rounding tells in a few results, whether most do."""
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max(initial=0.0)))
    close = np.isclose(found, expected, _TOLERANCE, _TOLERANCE * scale, equal_nan=True)
    return bool(close.all() or (is_large and np.mean(close) >= _MOST))
