"""Exported policies at work, each called with arrays by name: to verify, to evaluate, to measure."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.common import host_calls
from ppo_agent.common.nest_checks import fits
from ppo_agent.common.types import Array
from ppo_agent.export import numpy_policy, sources

# ONNX's names of NumPy's dtypes, where they differ.
_ONNX_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"} | {
    f"tensor({name})": name
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
}
# From inputs [B, ...] by name to outputs by name, as the SavedModel's signatures call them.
Runner = Callable[[Mapping[str, Array]], dict[str, Array]]


class SavedModelRunner:
    """Runs signatures of a SavedModel as one operation, without what a `tf.function` adds.

    Attributes:
        inputs: `tf.TensorSpec` by name.
    """

    def __init__(self, directory: Path, outputs: tuple[str, ...] = ("action", "distribution")) -> None:
        self._loaded = tf.saved_model.load(str(directory))
        found = sources.acting_signatures(self._loaded)
        signatures = [found[name] for name in outputs if name in found]
        self.inputs: dict[str, tf.TensorSpec] = dict(signatures[0].structured_input_signature[1])

        def joined(*leaves: tf.Tensor) -> dict[str, tf.Tensor]:
            inputs = dict(zip(self.inputs, leaves, strict=True))
            return {name: leaf for signature in signatures for name, leaf in signature(**inputs).items()}

        specs = list(self.inputs.values())
        traced = tf.function(joined, input_signature=specs, autograph=False).get_concrete_function()
        self._call, self._outputs = host_calls.as_one_operation(traced), sorted(traced.structured_outputs)
        self._told = _told(self._run, {name: (spec.shape, spec.dtype.name) for name, spec in self.inputs.items()})

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name.

        Raises:
            ValueError: the inputs are not what the policy takes.
        """
        return self._told(inputs)

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        found = self._call([inputs[name] for name in self.inputs])
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, found, strict=True)}

    def initial_state(self, batch_size: int) -> dict[str, Array]:
        """Zeros for every input that is a state."""
        specs = {name: spec for name, spec in self.inputs.items() if name.startswith("policy_state")}
        return {
            name: np.zeros([batch_size, *spec.shape[1:]], spec.dtype.as_numpy_dtype) for name, spec in specs.items()
        }


def _told(run: Runner, specs: Mapping[str, tuple[Any, str]]) -> Runner:
    """The runner, which says in one sentence what is wrong with its inputs; `specs` as in `_check_inputs`."""

    def call(inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return run(inputs)
        except Exception:  # Each kind of onnxruntime's derives from Exception alone.
            _check_inputs(inputs, specs)
            raise

    return call


def _check_inputs(inputs: Mapping[str, Array], specs: Mapping[str, tuple[Any, str]]) -> None:
    """Says in one sentence what is wrong with the inputs that a policy could not be run with, if it is they.

    `specs` has shape with the batch dimension, and dtype, by name.

    Raises:
        ValueError: one is missing, or of another shape or dtype.
    """
    if missing := sorted(set(specs) - set(inputs)):
        raise ValueError(f"{missing[0]} is missing, expected arrays for {', '.join(specs)}.")
    for name, (shape, dtype) in specs.items():
        # Sizes that are not known are None, -1 or a name.
        array, inner = np.asarray(inputs[name]), [n if isinstance(n, int) and n >= 0 else None for n in list(shape)[1:]]
        if array.dtype != dtype or array.ndim != len(inner) + 1 or not fits(array.shape[1:], inner):
            expected = ", ".join(["B", *map(str, inner)])
            raise ValueError(
                f"{name} is of shape {array.shape} and dtype {array.dtype}, expected [{expected}] with a batch "
                f"dimension in front and dtype {dtype}."
            )


def tflite_runner(file: Path, outputs: tuple[str, ...] = ("action", "distribution")) -> Runner:
    """Runs a TFLite file on one thread; by the package ai-edge-litert, where there is none by TensorFlow."""
    interpreter = _interpreter(file)
    names = [name for name in outputs if name in interpreter.get_signature_list()]
    runners = [interpreter.get_signature_runner(name) for name in names]

    details = {name: x for runner in runners for name, x in runner.get_input_details().items()}
    specs = {name: (x["shape_signature"].tolist(), np.dtype(x["dtype"]).name) for name, x in details.items()}
    return _told(lambda inputs: {name: value for runner in runners for name, value in runner(**inputs).items()}, specs)


def _interpreter(file: Path) -> Any:
    if util.find_spec("ai_edge_litert") is not None:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter(str(file), num_threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tf.lite.Interpreter(str(file), num_threads=1)


def onnx_runner(file: Path, outputs: tuple[str, ...] = ("action", "distribution")) -> Runner:
    """Runs an ONNX file by onnxruntime on one thread.

    Raises:
        MissingPackageError: it is not installed.
    """
    sources.check_packages(["onnxruntime"], "onnx")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    state = "next_policy_state"
    names = [o.name for o in session.get_outputs() if o.name.startswith((*outputs, state))]
    plain = [name.removeprefix("next_") for name in names]
    specs = {i.name: (i.shape, _ONNX_DTYPES.get(i.type, i.type)) for i in session.get_inputs()}
    return _told(lambda inputs: dict(zip(plain, session.run(names, dict(inputs)), strict=True)), specs)


def numpy_runner(directory: Path, outputs: tuple[str, ...] = ("action", "distribution")) -> Runner:
    """Runs what `export_numpy` wrote."""
    whole = numpy_policy.NumpyPolicy(directory)
    names = [name for name in whole.document["outputs"] if name.startswith((*outputs, "policy_state"))]
    policy = numpy_policy.NumpyPolicy(directory, names)
    specs = {name: (spec["shape"], spec["dtype"]) for name, spec in whole.document["inputs"].items()}
    return _told(lambda inputs: policy(**inputs), specs)
