"""From a SavedModel's signatures to a program.

The signatures are traced for two batch sizes, so that all shapes are known, and what differs between both graphs is
what depends on the batch size. Variables become constants, and all that does not depend on the inputs is computed once,
by TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from ppo_agent.common.types import Array
from ppo_agent.export import sources
from ppo_agent.export.program.lowerings import LOWERINGS
from ppo_agent.export.program.steps import Program, Step, UnsupportedError, merge

# Primes that are hardly a size or a number of a network by chance.
_BATCH_SIZES = (11, 13)
_FROM_SHAPE = {"Shape", "Size", "Rank", "ZerosLike", "OnesLike"}
_AS_IS = {"Identity", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape", "CheckNumerics", "IdentityN"}


def read_saved_model(directory: Path) -> Program:
    """The program that acts as an exported policy does.

    Raises:
        ValueError: the policy was not exported by `export_policy`.
        UnsupportedError: it holds an operation that is not known here.
    """
    loaded = tf.saved_model.load(str(directory))  # Kept while its functions are used.
    return read_signatures(list(sources.acting_signatures(loaded).values()))


def read_signatures(signatures: Sequence[Any]) -> Program:
    """The program that computes all outputs of signatures with the same inputs.

    Args:
        signatures: concrete functions of named tensors [B, ...], which return a dict.

    Raises:
        UnsupportedError: they hold an operation that is not known here.
    """
    one, other = (_read(signatures, batch_size) for batch_size in _BATCH_SIZES)
    return merge(one, other)


def _read(signatures: Sequence[Any], batch_size: int) -> Program:
    specs = signatures[0].structured_input_signature[1]
    fixed = {
        name: tf.TensorSpec([batch_size, *spec.shape[1:]], spec.dtype, name) for name, spec in sorted(specs.items())
    }

    def joined(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: leaf for signature in signatures for name, leaf in signature(**inputs).items()}

    traced = tf.function(joined, autograph=False).get_concrete_function(**fixed)
    names = sorted(traced.structured_outputs)
    return GraphReader(convert_variables_to_constants_v2(traced), fixed, names).program()


class GraphReader:
    """Reads a concrete function without variables whose shapes are known, from its outputs back to its inputs."""

    def __init__(self, function: Any, inputs: Mapping[str, tf.TensorSpec], output_names: Sequence[str]) -> None:
        self._inputs, self._output_names, self._outputs = inputs, output_names, list(function.outputs)
        self._names = {tensor.name: tensor.op.name for tensor in function.inputs}
        self._values = _known_values(function)
        self._constants: dict[str, Array] = {}
        self._steps: list[Step] = []
        self._seen: dict[str, tuple[str, ...]] = {}  # Equal steps are one.

    def program(self) -> Program:
        """What the graph computes."""
        outputs = {name: self.operand(tensor) for name, tensor in zip(self._output_names, self._outputs, strict=True)}
        specs = {
            name: tf.TensorSpec(tensor.shape, tensor.dtype)
            for name, tensor in zip(self._output_names, self._outputs, strict=True)
        }
        return Program(dict(self._inputs), outputs, specs, self._constants, self._steps)

    def operand(self, tensor: tf.Tensor) -> str:
        """The name of a tensor's value; adds the steps that compute it."""
        if tensor.name not in self._names:
            if tensor.name in self._values:
                self._names[tensor.name] = self.literal(self._values[tensor.name])
            else:
                self._lower(tensor)
        return self._names[tensor.name]

    def value(self, tensor: tf.Tensor) -> Array:
        """What a tensor is, whatever the inputs are.

        Raises:
            UnsupportedError: it depends on them.
        """
        if tensor.name not in self._values:
            raise UnsupportedError(f"{tensor.op.type} computes a shape or an axis from observations.")
        return self._values[tensor.name]

    def is_known(self, tensor: tf.Tensor) -> bool:
        """Whether `value` can tell."""
        return tensor.name in self._values

    def literal(self, value: Any) -> str:
        """The name of a constant operand."""
        array = np.asarray(value)
        for name, known in self._constants.items():
            if known.dtype == array.dtype and known.shape == array.shape and known.tobytes() == array.tobytes():
                return name
        name = f"c{len(self._constants)}"
        self._constants[name] = array
        return name

    def add(self, operation: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        """Adds a step; the name of its result, a tuple of `count` if there are several."""
        key = json.dumps([operation, inputs, attributes, count], sort_keys=True)
        if key not in self._seen:
            outputs = tuple(f"v{len(self._seen)}_{i}" for i in range(count))
            self._seen[key] = outputs
            self._steps.append(Step(operation, inputs, outputs, attributes))
        return self._seen[key][0] if count == 1 else self._seen[key]

    def _lower(self, tensor: tf.Tensor) -> None:
        operation = tensor.op
        if operation.type in _AS_IS:
            found: Any = self.operand(operation.inputs[tensor.value_index])
        else:
            lower = LOWERINGS.get(operation.type)
            if lower is None:
                raise UnsupportedError(f"the policy holds the operation {operation.type}, expected one of {_KNOWN}.")
            found = lower(self, operation)
        if isinstance(found, str):
            self._names[tensor.name] = found
        else:
            self._names |= {out.name: name for out, name in zip(operation.outputs, found, strict=True)}


_KNOWN = ", ".join(sorted(LOWERINGS))


def _known_values(function: Any) -> dict[str, Array]:
    """The values of all tensors that depend on no input, computed by TensorFlow."""
    known: set[str] = set()
    for operation in function.graph.get_operations():
        if _is_known(operation, known):
            known |= {tensor.name for tensor in operation.outputs}
    wanted = sorted(_boundary(function.outputs, known))
    # Ones allow all actions, where zeros would be refused.
    feeds = {tensor.name: np.ones(tensor.shape, tensor.dtype.as_numpy_dtype) for tensor in function.inputs}
    with tf.compat.v1.Session(graph=function.graph) as session:
        return dict(zip(wanted, session.run(wanted, feeds), strict=True))


def _is_known(operation: tf.Operation, known: set[str]) -> bool:
    if operation.type == "Placeholder" or operation.op_def.is_stateful:
        return False
    if operation.type in _FROM_SHAPE and operation.inputs[0].shape.is_fully_defined():
        return True
    return all(tensor.name in known for tensor in operation.inputs)


def _boundary(outputs: Sequence[tf.Tensor], known: set[str]) -> set[str]:
    """Names of the known tensors that are met first on the way back from the outputs."""
    found, visited, rest = set(), set(), list(outputs)
    while rest:
        tensor = rest.pop()
        if tensor.name in visited:
            continue
        visited.add(tensor.name)
        if tensor.name in known:
            found.add(tensor.name)
        else:
            rest += list(tensor.op.inputs)
    return found
