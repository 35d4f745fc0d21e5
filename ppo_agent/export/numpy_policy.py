"""Acts as an exported policy does. Needs NumPy and nothing else: take this file along.

policy = NumpyPolicy("folder")                        # what ppo-export --format=numpy wrote
outputs = policy(observation=array)                   # {"action": [B, ...], "distribution_logits": ...}

state = policy.initial_state(batch_size)              # policies with memory; {} for others
outputs = policy(observation=array, **state)
state = {name: outputs[name] for name in state}       # zeros again, for the rows where an episode starts
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np


def _softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _conv(x: np.ndarray, kernel: np.ndarray, strides: Sequence[int], pads: Sequence[int]) -> np.ndarray:
    x = np.pad(x, ((0, 0), pads[::2], pads[1::2], (0, 0))) if any(pads) else x
    sliding: Any = np.lib.stride_tricks.sliding_window_view
    windows = sliding(x, kernel.shape[2:], (1, 2))[:, :: strides[0], :: strides[1]]
    return np.tensordot(windows, kernel, ((3, 4, 5), (1, 2, 3)))


def _slice(x: np.ndarray, **where: Sequence[int]) -> np.ndarray:
    index = [slice(None)] * x.ndim
    for axis, *bounds in zip(where["axes"], where["starts"], where["ends"], where["steps"], strict=True):
        index[axis] = slice(*bounds)
    return x[tuple(index)]


def _elu(x: np.ndarray, alpha: float = 1.0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))).astype(x.dtype)


def _reduce(function: Any, x: np.ndarray, axes: Sequence[int], keepdims: int) -> np.ndarray:
    return np.asarray(function(x, axis=tuple(axes), keepdims=bool(keepdims)), x.dtype)


OPERATIONS: dict[str, Any] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Max": np.maximum, "Min": np.minimum,
    "Pow": np.power, "Neg": np.negative, "Abs": np.abs, "Sign": np.sign, "Sqrt": np.sqrt, "Reciprocal": np.reciprocal,
    "Exp": np.exp, "Log": np.log, "Sin": np.sin, "Cos": np.cos, "Tanh": np.tanh,
    "Sigmoid": lambda x: (np.tanh(x * x.dtype.type(0.5)) + x.dtype.type(1)) * x.dtype.type(0.5),
    "Softplus": lambda x: np.logaddexp(x, x.dtype.type(0)), "Relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "Elu": _elu, "Selu": partial(_elu, alpha=1.6732632423543772, scale=1.0507009873554805), "Softmax": _softmax,
    "Erf": lambda x: np.vectorize(math.erf, [x.dtype])(x), "Equal": np.equal, "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal, "Less": np.less, "LessOrEqual": np.less_equal, "And": np.logical_and,
    "Or": np.logical_or, "Not": np.logical_not, "Where": np.where, "Conv": _conv, "Slice": _slice,
    "MatMul": lambda a, b: np.dot(a, b) if b.ndim == 2 else np.matmul(a, b),
    "Reshape": lambda x, shape: x.reshape(shape), "Transpose": lambda x, perm: x.transpose(perm),
    "Concat": lambda *parts, axis: np.concatenate(parts, axis), "Cast": lambda x, to: x.astype(to),
    "Expand": lambda x, shape: np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape))),
    "Repeat": lambda row, source, axis: np.repeat(row, len(source), axis),
    "Einsum": lambda *parts, equation: np.einsum(equation, *parts),
    "Split": lambda x, axis, split: np.split(x, np.cumsum(split)[:-1], axis),
    "ArgMax": lambda x, axis, **_: x.argmax(axis), "Gather": lambda x, indices, axis: x.take(indices, axis),
    **{f"Reduce{name.title()}": partial(_reduce, getattr(np, name)) for name in ("sum", "mean", "max", "min")},
}  # fmt: skip


class NumpyPolicy:
    """Computes outputs by name; `outputs` names those that are wanted, all by default."""

    def __init__(self, folder: str | Path, outputs: Sequence[str] | None = None) -> None:
        self.document = json.loads((Path(folder) / "policy.json").read_text(encoding="utf-8"))
        self._outputs = {name: self.document["outputs"][name] for name in outputs or self.document["outputs"]}
        with np.load(Path(folder) / "policy.npz", allow_pickle=False) as archive:
            self._constants = dict(archive)
        needed = set(self._outputs.values())
        self._steps: list[Any] = []
        for operation, inputs, results, attributes in reversed(self.document["steps"]):
            if needed & set(results):
                needed |= set(inputs)
                call = partial(OPERATIONS[operation], **attributes) if attributes else OPERATIONS[operation]
                self._steps.insert(0, (call, inputs, results))

    def initial_state(self, batch_size: int) -> dict[str, np.ndarray]:
        """Zeros [B, ...] for each input that is a state."""
        states = {name: s for name, s in self.document["inputs"].items() if name.startswith("policy_state")}
        return {name: np.zeros([batch_size, *spec["shape"][1:]], spec["dtype"]) for name, spec in states.items()}

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs [B, ...] for inputs [B, ...] of the dtypes in policy.json."""
        values = {**self._constants, **inputs}
        for call, names, results in self._steps:
            found = call(*[values[name] for name in names])
            values.update(zip(results, found if len(results) > 1 else (found,), strict=True))
        return {name: values[operand] for name, operand in self._outputs.items()}
