"""TensorFlow's operations in NumPy, as far as small policies consist of them.

Each entry of `OPERATIONS` takes a `tf.Operation` whose shapes are known and returns which of its inputs it needs and a
function of their values. What an operation does to shapes is read off its output, so that graphs which compute shapes
need not be evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Array

# Klambauer et al., 2017, https://arxiv.org/abs/1706.02515.
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


class UnsupportedError(Exception):
    """An operation that is not known here, or in a form that is not."""


class Form(NamedTuple):
    """What an operation computes.

    Attributes:
        inputs: numbers of the inputs that it needs; others only tell a shape or a seed.
        call: function of their values; returns a list if the operation has several outputs.
        noise: kind and shape of random numbers that `call` takes as its last argument; None for none.
    """

    inputs: tuple[int, ...]
    call: Callable[..., Any]
    noise: tuple[str, tuple[int, ...]] | None = None


def form_of(operation: tf.Operation) -> Form:
    """Returns what an operation computes.

    Raises:
        UnsupportedError: It is not known here.
    """
    make = OPERATIONS.get(operation.type)
    if make is None:
        raise UnsupportedError(operation.type)
    return make(operation)


def _elementwise(function: Callable[..., Array]) -> Callable[[tf.Operation], Form]:
    return lambda operation: Form(tuple(range(len(operation.inputs))), function)


def _shape(tensor: tf.Tensor) -> tuple[int, ...]:
    if not tensor.shape.is_fully_defined():
        raise UnsupportedError(f"{tensor.op.type} of unknown shape")
    return tuple(tensor.shape.as_list())


def _constant(operation: tf.Operation, index: int) -> Any:
    value = tf.get_static_value(operation.inputs[index])
    if value is None:
        raise UnsupportedError(f"{operation.type} that is no constant")
    return value


def _axes(operation: tf.Operation, index: int) -> tuple[int, ...]:
    return tuple(np.atleast_1d(_constant(operation, index)).tolist())


def _reshape(operation: tf.Operation) -> Form:
    shape = _shape(operation.outputs[0])
    return Form((0,), lambda x: x.reshape(shape))


def _broadcast_to(operation: tf.Operation) -> Form:
    shape = _shape(operation.outputs[0])
    return Form((0,), lambda x: np.ascontiguousarray(np.broadcast_to(x, shape)))


def _fill(operation: tf.Operation) -> Form:
    shape = _shape(operation.outputs[0])
    return Form((1,), lambda value: np.full(shape, value))


def _transpose(operation: tf.Operation) -> Form:
    order = _axes(operation, 1)
    return Form((0,), lambda x: x.transpose(order))


def _matmul(operation: tf.Operation) -> Form:
    a_t, b_t = operation.get_attr("transpose_a"), operation.get_attr("transpose_b")
    if not (a_t or b_t):
        return Form((0, 1), np.dot)
    return Form((0, 1), lambda a, b: np.dot(a.T if a_t else a, b.T if b_t else b))


def _batch_matmul(operation: tf.Operation) -> Form:
    a_t, b_t = operation.get_attr("adj_x"), operation.get_attr("adj_y")
    return Form((0, 1), lambda a, b: np.matmul(a.swapaxes(-1, -2) if a_t else a, b.swapaxes(-1, -2) if b_t else b))


def _einsum(operation: tf.Operation) -> Form:
    equation = operation.get_attr("equation").decode()
    return Form(tuple(range(len(operation.inputs))), lambda *parts: np.einsum(equation, *parts))


def _fused_batch_norm(operation: tf.Operation) -> Form:
    """Its first output only: Keras' layer normalisation is made of it."""
    channels_last, is_training = operation.get_attr("data_format") == b"NHWC", operation.get_attr("is_training")
    axis = 3 if channels_last else 1
    axes, epsilon = tuple({0, 1, 2, 3} - {axis}), np.float32(operation.get_attr("epsilon"))
    shape = [-1 if i == axis else 1 for i in range(4)]

    def normalize(x: Array, scale: Array, offset: Array, mean: Array, variance: Array) -> list[Array]:
        if is_training:
            mean, variance = x.mean(axes), x.var(axes)
        factor = scale / np.sqrt(variance + epsilon)
        return [(x - mean.reshape(shape)) * factor.reshape(shape) + offset.reshape(shape)]

    return Form((0, 1, 2, 3, 4), normalize)


def _bias_add(operation: tf.Operation) -> Form:
    if operation.get_attr("data_format") != b"NHWC":
        raise UnsupportedError("BiasAdd in another order")
    return Form((0, 1), np.add)


def _concat(operation: tf.Operation) -> Form:
    count = len(operation.inputs) - 1
    axis = int(_constant(operation, count))
    return Form(tuple(range(count)), lambda *parts: np.concatenate(parts, axis=axis))


def _pack(operation: tf.Operation) -> Form:
    axis = operation.get_attr("axis")
    return Form(tuple(range(len(operation.inputs))), lambda *parts: np.stack(parts, axis=axis))


def _unpack(operation: tf.Operation) -> Form:
    axis = operation.get_attr("axis")
    return Form((0,), lambda x: np.moveaxis(x, axis, 0))


def _split(operation: tf.Operation) -> Form:
    count, axis = operation.get_attr("num_split"), int(_constant(operation, 0))
    return Form((1,), lambda x: np.split(x, count, axis))


def _split_by_sizes(operation: tf.Operation) -> Form:
    axis = int(_constant(operation, 2))
    ends = np.cumsum([_shape(part)[axis] for part in operation.outputs])
    return Form((0,), lambda x: np.split(x, ends[:-1], axis))


def _identities(operation: tf.Operation) -> Form:
    return Form(tuple(range(len(operation.inputs))), lambda *x: x)


def _cast(operation: tf.Operation) -> Form:
    dtype = operation.outputs[0].dtype.as_numpy_dtype
    return Form((0,), lambda x: x.astype(dtype))


def _argmax(operation: tf.Operation) -> Form:
    axis, dtype = int(_constant(operation, 1)), operation.outputs[0].dtype.as_numpy_dtype
    return Form((0,), lambda x: x.argmax(axis).astype(dtype, copy=False))


def _reduction(function: Callable[..., Array]) -> Callable[[tf.Operation], Form]:
    def make(operation: tf.Operation) -> Form:
        axes, keeps = _axes(operation, 1), operation.get_attr("keep_dims")
        # NumPy would add integers up to longer ones.
        return Form((0,), lambda x: np.asarray(function(x, axis=axes, keepdims=keeps), x.dtype))

    return make


def _gather(operation: tf.Operation) -> Form:
    if operation.get_attr("batch_dims"):
        raise UnsupportedError("GatherV2 with batch dimensions")
    axis = int(_constant(operation, 2))
    return Form((0, 1), lambda x, indices: x.take(indices, axis))


def _one_hot(operation: tf.Operation) -> Form:
    if operation.get_attr("axis") != -1:
        raise UnsupportedError("OneHot along another axis")
    values, dtype = np.arange(int(_constant(operation, 1))), operation.outputs[0].dtype.as_numpy_dtype
    return Form((0, 2, 3), lambda indices, on, off: np.where(indices[..., np.newaxis] == values, on, off).astype(dtype))


def _strided_slice(operation: tf.Operation) -> Form:
    if operation.get_attr("ellipsis_mask"):
        raise UnsupportedError("StridedSlice with an ellipsis")
    masks = {name: operation.get_attr(f"{name}_mask") for name in ("begin", "end", "new_axis", "shrink_axis")}
    index: list[Any] = []
    for i, (begin, end, stride) in enumerate(zip(*(_axes(operation, k) for k in (1, 2, 3)), strict=True)):
        has = {name: bool(mask >> i & 1) for name, mask in masks.items()}
        if has["new_axis"]:
            index.append(np.newaxis)
        elif has["shrink_axis"]:
            index.append(begin)
        else:
            index.append(slice(None if has["begin"] else begin, None if has["end"] else end, stride))
    key = tuple(index)
    return Form((0,), lambda x: x[key])


def _leaky_relu(operation: tf.Operation) -> Form:
    alpha = np.float32(operation.get_attr("alpha"))
    return Form((0,), lambda x: np.where(x > 0, x, alpha * x))


def _sigmoid(x: Array) -> Array:
    half = x.dtype.type(0.5)
    return half + half * np.tanh(half * x)


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, x.dtype.type(0))


def _elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _erf(x: Array) -> Array:
    """Abramowitz and Stegun, Handbook of Mathematical Functions, formula 7.1.26, to 1.5e-7."""
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x, dtype=np.float64))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return (np.sign(x) * (1.0 - series * np.exp(-np.square(x, dtype=np.float64)))).astype(x.dtype)


def _selu(x: Array) -> Array:
    return x.dtype.type(_SELU_SCALE) * np.where(x > 0, x, x.dtype.type(_SELU_ALPHA) * np.expm1(np.minimum(x, 0)))


def _softmax(x: Array) -> Array:
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _random(kind: str) -> Callable[[tf.Operation], Form]:
    def make(operation: tf.Operation) -> Form:
        if operation.outputs[0].dtype != tf.float32:
            raise UnsupportedError(f"{operation.type} of another dtype")
        return Form((), lambda noise: noise, (kind, _shape(operation.outputs[0])))

    return make


def _multinomial(operation: tf.Operation) -> Form:
    """One sample for each row, by the Gumbel-max trick."""
    if int(_constant(operation, 1)) != 1:
        raise UnsupportedError("StatelessMultinomial of several samples")
    dtype = operation.outputs[0].dtype.as_numpy_dtype

    def sample(logits: Array, gumbel: Array) -> Array:
        return (logits + gumbel).argmax(-1)[:, np.newaxis].astype(dtype, copy=False)

    return Form((0,), sample, ("gumbel", _shape(operation.inputs[0])))


def _as_is(x: Array) -> Array:
    return x


def _reciprocal_root(x: Array) -> Array:
    return x.dtype.type(1) / np.sqrt(x)


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Identity": _as_is, "StopGradient": _as_is, "PreventGradient": _as_is, "Snapshot": _as_is,
    "Add": np.add, "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply, "RealDiv": np.divide,
    "Maximum": np.maximum, "Minimum": np.minimum, "Pow": np.power, "SquaredDifference": lambda a, b: (a - b) ** 2,
    "Neg": np.negative, "Abs": np.abs, "Sign": np.sign, "Square": np.square, "Sqrt": np.sqrt,
    "Rsqrt": _reciprocal_root, "Reciprocal": np.reciprocal, "Exp": np.exp, "Expm1": np.expm1, "Log": np.log,
    "Log1p": np.log1p, "Sin": np.sin, "Cos": np.cos, "Tanh": np.tanh, "Sigmoid": _sigmoid, "Softplus": _softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)), "Relu": lambda x: np.maximum(x, 0),
    "Relu6": lambda x: np.clip(x, 0, 6), "Elu": _elu, "Selu": _selu, "Erf": _erf, "Erfc": lambda x: 1 - _erf(x),
    "Softmax": _softmax, "LogSoftmax": _log_softmax, "ClipByValue": np.clip, "Select": np.where, "SelectV2": np.where,
    "Equal": np.equal, "NotEqual": np.not_equal, "Greater": np.greater, "GreaterEqual": np.greater_equal,
    "Less": np.less, "LessEqual": np.less_equal, "LogicalAnd": np.logical_and, "LogicalOr": np.logical_or,
    "LogicalNot": np.logical_not, "ZerosLike": np.zeros_like, "OnesLike": np.ones_like,
}  # fmt: skip
OPERATIONS: dict[str, Callable[[tf.Operation], Form]] = {
    name: _elementwise(function) for name, function in _ELEMENTWISE.items()
}
OPERATIONS |= {
    "Reshape": _reshape, "ExpandDims": _reshape, "Squeeze": _reshape, "BroadcastTo": _broadcast_to, "Fill": _fill,
    "Transpose": _transpose, "MatMul": _matmul, "BatchMatMulV2": _batch_matmul, "Einsum": _einsum,
    "FusedBatchNormV3": _fused_batch_norm, "BiasAdd": _bias_add, "ConcatV2": _concat, "Pack": _pack,
    "Unpack": _unpack, "Split": _split, "SplitV": _split_by_sizes, "IdentityN": _identities, "Cast": _cast,
    "ArgMax": _argmax, "Sum": _reduction(np.sum), "Mean": _reduction(np.mean), "Max": _reduction(np.max),
    "Min": _reduction(np.min), "All": _reduction(np.all), "Any": _reduction(np.any), "GatherV2": _gather,
    "OneHot": _one_hot, "StridedSlice": _strided_slice, "LeakyRelu": _leaky_relu,
    "StatelessRandomNormalV2": _random("normal"), "StatelessRandomUniformV2": _random("uniform"),
    "StatelessMultinomial": _multinomial,
}  # fmt: skip
