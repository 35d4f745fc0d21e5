"""TensorFlow's operations in NumPy, as far as policies of moderate size consist of them.

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

from . import numpy_functions as functions


class UnsupportedError(Exception):
    """An operation that is not known here, or in a form that is not."""


class Form(NamedTuple):
    """What an operation computes.

    Attributes:
        inputs: Numbers of the inputs that it needs; others only tell a shape or a seed.
        call: Function of their values. None if the result is the first input in another shape.
        takes_out: Whether `call` takes an array for the result as one more argument.
        is_elementwise: Whether it broadcasts its inputs and treats each element alike.
        is_view: Whether the result may share the memory of an input.
        noise: Kind and dtype of random numbers that `call` takes behind the inputs, of the shape `noise_shape`; None
            for none.
        noise_shape: See `noise`.
        shape: Of the result of `call`, if it is the output in another shape.
    """

    inputs: tuple[int, ...]
    call: Callable[..., Any] | None
    takes_out: bool = False
    is_elementwise: bool = False
    is_view: bool = False
    noise: str | None = None
    noise_shape: tuple[int, ...] = ()
    shape: tuple[int, ...] | None = None


def form_of(tensor: tf.Tensor) -> Form:
    """Returns how the operation behind a tensor computes it.

    Raises:
        UnsupportedError: The operation is not known here.
    """
    operation = tensor.op
    if operation.type in _PARTS:
        return _PARTS[operation.type](operation, tensor.value_index)
    if operation.type not in OPERATIONS:
        raise UnsupportedError(operation.type)
    return OPERATIONS[operation.type](operation)


def shape_of(tensor: tf.Tensor) -> tuple[int, ...]:
    """Returns the shape of a tensor.

    Raises:
        UnsupportedError: It depends on values.
    """
    if not tensor.shape.is_fully_defined():
        raise UnsupportedError(f"{tensor.op.type} of unknown shape")
    return tuple(tensor.shape.as_list())


def _elementwise(function: Callable[..., Array], takes_out: bool) -> Callable[[tf.Operation], Form]:
    return lambda operation: Form(tuple(range(len(operation.inputs))), function, takes_out, is_elementwise=True)


def _constant(operation: tf.Operation, index: int) -> Any:
    value = tf.get_static_value(operation.inputs[index])
    if value is None:
        raise UnsupportedError(f"{operation.type} that is no constant")
    return value


def _axes(operation: tf.Operation, index: int) -> tuple[int, ...]:
    return tuple(np.atleast_1d(_constant(operation, index)).tolist())


def _broadcast_to(operation: tf.Operation) -> Form:
    source, shape = shape_of(operation.inputs[0]), shape_of(operation.outputs[0])
    if np.prod(source) == np.prod(shape):
        return Form((0,), None)
    return Form((0,), lambda x: np.array(np.broadcast_to(x, shape)))


def _fill(operation: tf.Operation) -> Form:
    shape = shape_of(operation.outputs[0])
    return Form((1,), lambda value: np.full(shape, value))


def _transpose(operation: tf.Operation) -> Form:
    order, shape = _axes(operation, 1), shape_of(operation.inputs[0])
    moved = [axis for axis in order if shape[axis] != 1]
    if moved == sorted(moved):
        return Form((0,), None)
    return Form((0,), lambda x: x.transpose(order), is_view=True)


def _matmul(operation: tf.Operation) -> Form:
    a_t, b_t = operation.get_attr("transpose_a"), operation.get_attr("transpose_b")
    if not (a_t or b_t):
        return Form((0, 1), np.dot, takes_out=True)
    return Form((0, 1), lambda a, b: np.dot(a.T if a_t else a, b.T if b_t else b))


def _batch_matmul(operation: tf.Operation) -> Form:
    a_t, b_t = operation.get_attr("adj_x"), operation.get_attr("adj_y")
    return Form((0, 1), lambda a, b: np.matmul(a.swapaxes(-1, -2) if a_t else a, b.swapaxes(-1, -2) if b_t else b))


def _einsum(operation: tf.Operation) -> Form:
    equation = operation.get_attr("equation").decode()
    return Form(tuple(range(len(operation.inputs))), lambda *parts: np.einsum(equation, *parts), is_view=True)


def _fused_batch_norm(operation: tf.Operation, index: int) -> Form:
    """Its first output only: Keras' layer normalisation is made of it."""
    if index:
        raise UnsupportedError("FusedBatchNormV3 for its statistics")
    channels_last, is_training = operation.get_attr("data_format") == b"NHWC", operation.get_attr("is_training")
    axis = 3 if channels_last else 1
    axes, epsilon = tuple({0, 1, 2, 3} - {axis}), np.float32(operation.get_attr("epsilon"))
    shape = [-1 if i == axis else 1 for i in range(4)]

    def normalize(x: Array, scale: Array, offset: Array, mean: Array, variance: Array) -> Array:
        if is_training:
            mean, variance = x.mean(axes), x.var(axes)
        factor = scale / np.sqrt(variance + epsilon)
        return (x - mean.reshape(shape)) * factor.reshape(shape) + offset.reshape(shape)

    return Form((0, 1, 2, 3, 4), normalize)


def _bias_add(operation: tf.Operation) -> Form:
    if operation.get_attr("data_format") != b"NHWC":
        raise UnsupportedError("BiasAdd in another order")
    return Form((0, 1), np.add, takes_out=True, is_elementwise=True)


def _select(operation: tf.Operation) -> Form:
    condition, shape = (shape_of(operation.inputs[i]) for i in (0, 1))
    if operation.type == "Select" and condition != shape:  # The condition chooses rows.
        column = condition + (1,) * (len(shape) - len(condition))
        return Form((0, 1, 2), lambda c, a, b: np.where(c.reshape(column), a, b))
    return Form((0, 1, 2), np.where, is_elementwise=True)


def _concat(operation: tf.Operation) -> Form:
    count = len(operation.inputs) - 1
    axis = int(_constant(operation, count))
    return Form(tuple(range(count)), lambda *parts: np.concatenate(parts, axis=axis))


def _pack(operation: tf.Operation) -> Form:
    axis = operation.get_attr("axis")
    if len(operation.inputs) == 1:
        return Form((0,), None)
    return Form(tuple(range(len(operation.inputs))), lambda *parts: np.stack(parts, axis=axis))


def _unpack(operation: tf.Operation, index: int) -> Form:
    key = (slice(None),) * (operation.get_attr("axis") % len(shape_of(operation.inputs[0]))) + (index,)
    return Form((0,), lambda x: x[key], is_view=True)


def _split(operation: tf.Operation, index: int) -> Form:
    """`Split` has its axis before the value, `SplitV` behind."""
    value, axis_input = (1, 0) if operation.type == "Split" else (0, 2)
    axis = int(_constant(operation, axis_input)) % len(shape_of(operation.inputs[value]))
    ends = np.cumsum([shape_of(part)[axis] for part in operation.outputs]).tolist()
    key = (slice(None),) * axis + (slice([0, *ends][index], ends[index]),)
    return Form((value,), lambda x: x[key], is_view=True)


def _cast(operation: tf.Operation) -> Form:
    dtype = operation.outputs[0].dtype.as_numpy_dtype
    return Form((0,), lambda x: x.astype(dtype), is_elementwise=True)


def _argmax(operation: tf.Operation) -> Form:
    axis, dtype = int(_constant(operation, 1)), operation.outputs[0].dtype.as_numpy_dtype
    return Form((0,), lambda x: x.argmax(axis).astype(dtype, copy=False))


def _reduction(function: np.ufunc) -> Callable[[tf.Operation], Form]:
    def make(operation: tf.Operation) -> Form:
        axes, keeps = _axes(operation, 1), operation.get_attr("keep_dims")
        # NumPy would add integers up to longer ones.
        dtype = operation.outputs[0].dtype.as_numpy_dtype
        return Form((0,), lambda x: function.reduce(x, axes, dtype, None, keeps))

    return make


def _mean(operation: tf.Operation) -> Form:
    axes, keeps = _axes(operation, 1), operation.get_attr("keep_dims")
    return Form((0,), lambda x: np.asarray(np.mean(x, axis=axes, keepdims=keeps), x.dtype))


def _gather(operation: tf.Operation) -> Form:
    if operation.get_attr("batch_dims"):
        raise UnsupportedError("GatherV2 with batch dimensions")
    axis = int(_constant(operation, 2))

    def take(x: Array, indices: Array) -> Array:
        if indices.size and indices.min() < 0:  # NumPy would count from the end.
            raise IndexError(f"index {indices.min()} is out of bounds")
        return x.take(indices, axis)

    return Form((0, 1), take)


def _one_hot(operation: tf.Operation) -> Form:
    if operation.get_attr("axis") != -1:
        raise UnsupportedError("OneHot along another axis")
    values, dtype = np.arange(int(_constant(operation, 1))), operation.outputs[0].dtype.as_numpy_dtype
    return Form((0, 2, 3), lambda indices, on, off: np.where(indices[..., np.newaxis] == values, on, off).astype(dtype))


def _strided_slice(operation: tf.Operation) -> Form:
    masks = {
        name: operation.get_attr(f"{name}_mask") for name in ("begin", "end", "new_axis", "shrink_axis", "ellipsis")
    }
    bounds = list(zip(*(_axes(operation, k) for k in (1, 2, 3)), strict=True))
    index: list[Any] = []
    for i, (begin, end, stride) in enumerate(bounds):
        has = {name: bool(mask >> i & 1) for name, mask in masks.items()}
        if has["ellipsis"]:
            index.append(...)
        elif has["new_axis"]:
            index.append(np.newaxis)
        elif has["shrink_axis"]:
            index.append(begin)
        else:
            index.append(slice(None if has["begin"] else begin, None if has["end"] else end, stride))
    key = tuple(index)
    source, result = shape_of(operation.inputs[0]), shape_of(operation.outputs[0])
    if np.prod(source) == np.prod(result) and all(stride == 1 for _, _, stride in bounds):
        return Form((0,), None)  # Nothing is left out.
    return Form((0,), lambda x: x[key], is_view=True)


def _leaky_relu(operation: tf.Operation) -> Form:
    alpha = np.float32(operation.get_attr("alpha"))
    return Form((0,), lambda x: np.where(x > 0, x, alpha * x), is_elementwise=True)


def _random(kind: str) -> Callable[[tf.Operation], Form]:
    def make(operation: tf.Operation) -> Form:
        dtype = operation.outputs[0].dtype
        if dtype not in (tf.float32, tf.float64):
            raise UnsupportedError(f"{operation.type} of {dtype.name}")
        return Form((), None, noise=f"{kind} {dtype.name}", noise_shape=shape_of(operation.outputs[0]))

    return make


def _multinomial(operation: tf.Operation) -> Form:
    """One sample for each row, by the Gumbel-max trick."""
    if int(_constant(operation, 1)) != 1 or operation.inputs[0].dtype != tf.float32:
        raise UnsupportedError("StatelessMultinomial of several samples or of another dtype")
    shape, dtype = shape_of(operation.inputs[0]), operation.outputs[0].dtype.as_numpy_dtype
    sums = np.empty(shape, np.float32)

    def sample(logits: Array, gumbel: Array) -> Array:
        return np.add(logits, gumbel, sums).argmax(1).astype(dtype, copy=False)

    return Form((0,), sample, noise="gumbel float32", noise_shape=shape, shape=shape[:1])


# Operations that NumPy or `numpy_functions` has as functions that take an array for the result,
_INTO: dict[str, Callable[..., Any]] = {
    "Add": np.add, "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply, "RealDiv": np.divide,
    "Maximum": np.maximum, "Minimum": np.minimum, "Pow": np.power, "SquaredDifference": functions.squared_difference,
    "Neg": np.negative, "Abs": np.abs, "Sign": np.sign, "Square": np.square, "Sqrt": np.sqrt,
    "Rsqrt": functions.reciprocal_root, "Reciprocal": np.reciprocal, "Exp": np.exp, "Expm1": np.expm1, "Log": np.log,
    "Log1p": np.log1p, "Sin": np.sin, "Cos": np.cos, "Tanh": np.tanh, "Sigmoid": functions.sigmoid,
    "Softplus": functions.softplus, "Softsign": functions.softsign, "Relu": functions.relu, "Relu6": functions.relu6,
    "ClipByValue": functions.clip, "Equal": np.equal, "NotEqual": np.not_equal, "Greater": np.greater,
    "GreaterEqual": np.greater_equal, "Less": np.less, "LessEqual": np.less_equal, "LogicalAnd": np.logical_and,
    "LogicalOr": np.logical_or, "LogicalNot": np.logical_not, "IsNan": np.isnan, "IsFinite": np.isfinite,
    "IsInf": np.isinf, "Floor": np.floor, "FloorMod": np.remainder,
}  # fmt: skip
# and as functions that do not.
_FRESH: dict[str, Callable[..., Any]] = {
    "Elu": functions.elu, "Selu": functions.selu, "Erf": functions.erf, "Erfc": functions.erfc,
    "ZerosLike": np.zeros_like, "OnesLike": np.ones_like,
}  # fmt: skip
_SAME = ("Identity", "StopGradient", "PreventGradient", "Snapshot", "Reshape", "ExpandDims", "Squeeze")
OPERATIONS: dict[str, Callable[[tf.Operation], Form]] = {
    **{name: _elementwise(function, True) for name, function in _INTO.items()},
    **{name: _elementwise(function, False) for name, function in _FRESH.items()},
    **dict.fromkeys(_SAME, lambda _: Form((0,), None)),
}
OPERATIONS |= {
    "BroadcastTo": _broadcast_to, "Fill": _fill, "Softmax": lambda _: Form((0,), functions.softmax),
    "LogSoftmax": lambda _: Form((0,), functions.log_softmax), "Select": _select, "SelectV2": _select,
    "Transpose": _transpose, "MatMul": _matmul, "BatchMatMulV2": _batch_matmul, "Einsum": _einsum,
    "BiasAdd": _bias_add, "ConcatV2": _concat, "Pack": _pack,
    "Cast": _cast,
    "ArgMax": _argmax, "Sum": _reduction(np.add), "Max": _reduction(np.maximum), "Min": _reduction(np.minimum),
    "All": _reduction(np.logical_and), "Any": _reduction(np.logical_or), "Mean": _mean, "GatherV2": _gather,
    "OneHot": _one_hot, "StridedSlice": _strided_slice, "LeakyRelu": _leaky_relu,
    "StatelessRandomNormalV2": _random("normal"), "StatelessRandomUniformV2": _random("uniform"),
    "StatelessMultinomial": _multinomial,
}  # fmt: skip
# Those with several outputs; called with the number of one.
_PARTS: dict[str, Callable[[tf.Operation, int], Form]] = {
    "FusedBatchNormV3": _fused_batch_norm, "Unpack": _unpack, "Split": _split, "SplitV": _split,
    "IdentityN": lambda _, index: Form((index,), None),
}  # fmt: skip
KNOWN = frozenset(OPERATIONS) | frozenset(_PARTS)
