"""Policies for every other run time: ONNX."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Array
from ppo_agent.export import files, metadata, sources
from ppo_agent.export.program.graph_reader import read_saved_model
from ppo_agent.export.program.steps import Program, Step

OPSET, _IR_VERSION = 18, 8


def export_onnx(policy: sources.Source, file: str | os.PathLike[str]) -> None:
    """Writes a policy as an ONNX file, any batch size.

    Its outputs are `action` and what the distribution is made of (`distribution_logits` and the like), by the names of
    the SavedModel's signatures, see `ppo_agent.export.saved_model`. With memory, `policy_state` goes in, all zeros
    where an episode starts, and `next_policy_state` comes out, because ONNX wants different names. The document of
    metadata.json is in the model's metadata.

    Args:
        policy: a policy, or the folder of one that `export_policy` wrote.
        file: where to write; an earlier file is replaced in one step.

    Raises:
        MissingPackageError: the package onnx is not installed.
        UnsupportedError: the policy holds an operation that is not known here.
        ValueError: `file` is a folder, or `policy` no exported one.
        OSError: it cannot be written.
    """
    sources.check_packages(["onnx"], "onnx")
    target = files.check_file(file)
    with sources.saved(policy) as directory:
        program = read_saved_model(directory)
        path = directory / metadata.FILE
        document = path.read_text(encoding="utf-8") if path.exists() else "{}"
    files.write_file(target, _Writer(program).model(document))


class _Writer:
    """Makes a model of a program."""

    def __init__(self, program: Program) -> None:
        import onnx

        self._onnx, self._program = onnx, program
        self._nodes: list[Any] = []
        self._initializers = [self._tensor(name, value) for name, value in program.constants.items()]

    def model(self, document: str) -> bytes:
        """The model's bytes, checked by the package onnx; the document, JSON, is for its metadata."""
        helper, program = self._onnx.helper, self._program
        for step in program.steps:
            _WRITERS.get(step.operation, _write_plain)(self, step)
        names = {name: f"next_{name}" if name in program.inputs else name for name in program.outputs}
        for name, operand in program.outputs.items():
            self.node("Identity", [operand], [names[name]])
        inputs = [self._value_info(name, spec) for name, spec in program.inputs.items()]
        outputs = [self._value_info(names[name], spec) for name, spec in program.output_specs.items()]
        graph = helper.make_graph(self._nodes, "policy", inputs, outputs, self._initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="ppo_agent", ir_version=_IR_VERSION)
        helper.set_model_props(model, {"metadata": document})
        self._onnx.checker.check_model(model)
        return bytes(model.SerializeToString())

    def node(self, operation: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """Adds a node."""
        self._nodes.append(self._onnx.helper.make_node(operation, inputs, outputs, **attributes))

    def integers(self, values: list[int], name: str) -> str:
        """The name of a constant vector, such as a shape."""
        self._initializers.append(self._tensor(name, np.array(values, np.int64)))
        return name

    def dtype(self, name: str) -> int:
        """ONNX's number of a dtype."""
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)))

    def _tensor(self, name: str, value: Array) -> Any:
        return self._onnx.numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)

    def _value_info(self, name: str, spec: tf.TensorSpec) -> Any:
        shape = ["batch", *spec.shape[1:]]
        return self._onnx.helper.make_tensor_value_info(name, self.dtype(spec.dtype.as_numpy_dtype), shape)


def _write_plain(writer: _Writer, step: Step) -> None:
    writer.node(step.operation, list(step.inputs), list(step.outputs), **step.attributes)


def _write_with_integers(*names: str) -> Callable[[_Writer, Step], None]:
    """For attributes that are inputs in ONNX, in this order."""

    def write(writer: _Writer, step: Step) -> None:
        attributes = dict(step.attributes)
        extra = [writer.integers(attributes.pop(name), f"{step.outputs[0]}_{name}") for name in names]
        writer.node(step.operation, [*step.inputs, *extra], list(step.outputs), **attributes)

    return write


def _write_cast(writer: _Writer, step: Step) -> None:
    writer.node("Cast", list(step.inputs), list(step.outputs), to=writer.dtype(step.attributes["to"]))


def _write_conv(writer: _Writer, step: Step) -> None:
    """ONNX has the channels in front."""
    (image, kernel), (output,) = step.inputs, step.outputs
    writer.node("Transpose", [image], [f"{output}_in"], perm=[0, 3, 1, 2])
    writer.node("Conv", [f"{output}_in", kernel], [f"{output}_out"], **step.attributes)
    writer.node("Transpose", [f"{output}_out"], [output], perm=[0, 2, 3, 1])


def _write_repeat(writer: _Writer, step: Step) -> None:
    (row, source), (output,), axis = step.inputs, step.outputs, step.attributes["axis"]
    writer.node("Shape", [source], [f"{output}_batch"], start=0, end=1)
    parts = [f"{output}_batch"]
    if axis:
        parts = [writer.integers([1] * axis, f"{output}_before"), *parts]
    rank = writer._program.constants[row].ndim
    if axis < rank - 1:
        parts.append(writer.integers([1] * (rank - 1 - axis), f"{output}_after"))
    writer.node("Concat", parts, [f"{output}_shape"], axis=0)
    writer.node("Expand", [row, f"{output}_shape"], [output])


_WRITERS: dict[str, Callable[[_Writer, Step], None]] = {
    "Reshape": _write_with_integers("shape"), "Expand": _write_with_integers("shape"),
    "Split": _write_with_integers("split"), "Slice": _write_with_integers("starts", "ends", "axes", "steps"),
    **{f"Reduce{name}": _write_with_integers("axes") for name in ("Sum", "Mean", "Max", "Min")},
    "Cast": _write_cast, "Conv": _write_conv, "Repeat": _write_repeat,
}  # fmt: skip
