"""TensorFlow's operations in ONNX's words.

Each entry takes the reader and a `tf.Operation` with known shapes, adds steps, and returns the name of its result, or
of all its results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.export.program.steps import UnsupportedError

# The class GraphReader, which imports this table.
Reader = Any
Lowering = Callable[[Reader, tf.Operation], Any]


def _same(name: str) -> Lowering:
    return lambda reader, operation: reader.add(name, *map(reader.operand, operation.inputs))


def _shape(tensor: tf.Tensor) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise UnsupportedError(f"the policy holds a {tensor.op.type} of unknown shape, expected a known one.")
    return tensor.shape.as_list()


def _axes(reader: Reader, tensor: tf.Tensor) -> list[int]:
    return [int(axis) for axis in np.atleast_1d(reader.value(tensor))]


def _typed(reader: Reader, value: float, tensor: tf.Tensor) -> str:
    return reader.literal(np.asarray(value, tensor.dtype.as_numpy_dtype))


def _reshape_to(reader: Reader, operand: str, before: list[int], after: list[int]) -> str:
    return operand if before == after else reader.add("Reshape", operand, shape=after)


def _reshape(reader: Reader, operation: tf.Operation) -> str:
    shapes = _shape(operation.inputs[0]), _shape(operation.outputs[0])
    return _reshape_to(reader, reader.operand(operation.inputs[0]), *shapes)


def _broadcast_to(reader: Reader, operation: tf.Operation) -> str:
    before, after = _shape(operation.inputs[0]), _shape(operation.outputs[0])
    operand = reader.operand(operation.inputs[0])
    if before == after:
        return operand
    # Rows come from the operand, what is known being broadcast already.
    same = [1] * (len(after) - len(before)) + before
    return reader.add("Expand", operand, shape=[1 if a == b else b for a, b in zip(same, after, strict=True)])


def _fill(reader: Reader, operation: tf.Operation) -> str:
    shape = _shape(operation.outputs[0])
    operand = reader.add("Reshape", reader.operand(operation.inputs[1]), shape=[1] * len(shape))
    return reader.add("Expand", operand, shape=shape)


def _transpose(reader: Reader, operation: tf.Operation) -> str:
    order, operand = _axes(reader, operation.inputs[1]), reader.operand(operation.inputs[0])
    return operand if order == sorted(order) else reader.add("Transpose", operand, perm=order)


def _matmul(first: str, second: str) -> Lowering:
    def lower(reader: Reader, operation: tf.Operation) -> str:
        operands = []
        for tensor, attribute in zip(operation.inputs, (first, second), strict=True):
            operand = reader.operand(tensor)
            if operation.get_attr(attribute):
                order = list(range(tensor.shape.rank))
                operand = reader.add("Transpose", operand, perm=[*order[:-2], order[-1], order[-2]])
            operands.append(operand)
        return reader.add("MatMul", *operands)

    return lower


def _einsum(reader: Reader, operation: tf.Operation) -> str:
    equation = operation.get_attr("equation").decode()
    return reader.add("Einsum", *map(reader.operand, operation.inputs), equation=equation)


def _bias_add(reader: Reader, operation: tf.Operation) -> str:
    _check_channels_last(operation)
    return reader.add("Add", *map(reader.operand, operation.inputs))


def _check_channels_last(operation: tf.Operation) -> None:
    order = operation.get_attr("data_format").decode()
    if order != "NHWC":
        raise UnsupportedError(f"the policy holds a {operation.type} in the order {order}, expected NHWC.")


def _conv(reader: Reader, operation: tf.Operation) -> str:
    """Without the transposes, which every format needs elsewhere."""
    _check_channels_last(operation)
    strides, dilations = (list(operation.get_attr(name))[1:3] for name in ("strides", "dilations"))
    image, kernel = operation.inputs
    size, kernel_size = _shape(image)[1:3], _shape(kernel)[:2]
    if dilations != [1, 1] or _shape(image)[3] != _shape(kernel)[2]:
        raise UnsupportedError("the policy holds a Conv2D with dilations or groups, expected one without.")
    pads = [0, 0, 0, 0]
    if operation.get_attr("padding") == b"SAME":
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(size, strides, kernel_size, strict=True)]
        pads = [total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2]
    elif operation.get_attr("padding") != b"VALID":
        raise UnsupportedError("the policy holds a Conv2D with explicit padding, expected SAME or VALID.")
    # ONNX's order of a kernel's dimensions: out, in, height, width.
    weights = reader.literal(np.ascontiguousarray(reader.value(kernel).transpose(3, 2, 0, 1)))
    return reader.add("Conv", reader.operand(image), weights, strides=strides, pads=pads)


def _fused_batch_norm(reader: Reader, operation: tf.Operation) -> list[str]:
    """Its first output only: Keras' layer normalisation is made of it."""
    order = operation.get_attr("data_format").decode()
    axis = order.index("C")
    axes = [i for i in range(4) if i != axis]
    x, *others = map(reader.operand, operation.inputs)
    size = _shape(operation.inputs[1])[0]
    shape = [size if i == axis else 1 for i in range(4)]
    is_training = operation.get_attr("is_training")
    used = others[:2] if is_training else others
    scale, offset, *moments = (reader.add("Reshape", operand, shape=shape) for operand in used)
    mean = reader.add("ReduceMean", x, axes=axes, keepdims=1) if is_training else moments[0]
    centred = reader.add("Sub", x, mean)
    squares = reader.add("Mul", centred, centred) if is_training else ""
    variance = reader.add("ReduceMean", squares, axes=axes, keepdims=1) if is_training else moments[1]
    epsilon = _typed(reader, operation.get_attr("epsilon"), operation.inputs[1])
    deviation = reader.add("Sqrt", reader.add("Add", variance, epsilon))
    normal = reader.add("Mul", reader.add("Div", centred, deviation), scale)
    return [reader.add("Add", normal, offset)] * len(operation.outputs)


def _concat(reader: Reader, operation: tf.Operation) -> str:
    *parts, axis = operation.inputs
    return reader.add("Concat", *map(reader.operand, parts), axis=_axis(reader, axis, parts[0]))


def _axis(reader: Reader, axis: tf.Tensor, tensor: tf.Tensor) -> int:
    return int(reader.value(axis)) % max(1, tensor.shape.rank)


def _pack(reader: Reader, operation: tf.Operation) -> str:
    shape = _shape(operation.outputs[0])
    axis = operation.get_attr("axis") % len(shape)
    part = [1 if i == axis else size for i, size in enumerate(shape)]
    return reader.add(
        "Concat", *(reader.add("Reshape", reader.operand(x), shape=part) for x in operation.inputs), axis=axis
    )


def _unpack(reader: Reader, operation: tf.Operation) -> list[str]:
    tensor, shape = operation.inputs[0], _shape(operation.outputs[0])
    axis = operation.get_attr("axis") % tensor.shape.rank
    parts = _split_into(reader, reader.operand(tensor), axis, [1] * len(operation.outputs))
    return [reader.add("Reshape", part, shape=shape) for part in parts]


def _split_into(reader: Reader, operand: str, axis: int, sizes: list[int]) -> Any:
    if len(sizes) == 1:
        return [operand]
    return reader.add("Split", operand, count=len(sizes), axis=axis, split=sizes)


def _split(value: int, axis: int) -> Lowering:
    def lower(reader: Reader, operation: tf.Operation) -> Any:
        along = _axis(reader, operation.inputs[axis], operation.inputs[value])
        sizes = [_shape(part)[along] for part in operation.outputs]
        return _split_into(reader, reader.operand(operation.inputs[value]), along, sizes)

    return lower


def _cast(reader: Reader, operation: tf.Operation) -> str:
    operand, dtype = reader.operand(operation.inputs[0]), operation.outputs[0].dtype
    return operand if operation.inputs[0].dtype == dtype else reader.add("Cast", operand, to=dtype.name)


def _argmax(reader: Reader, operation: tf.Operation) -> str:
    tensor, axis = operation.inputs
    found = reader.add("ArgMax", reader.operand(tensor), axis=_axis(reader, axis, tensor), keepdims=0)
    dtype = operation.outputs[0].dtype.name
    return found if dtype == "int64" else reader.add("Cast", found, to=dtype)


def _reduction(name: str) -> Lowering:
    def lower(reader: Reader, operation: tf.Operation) -> str:
        tensor, axes = operation.inputs
        along = [axis % tensor.shape.rank for axis in _axes(reader, axes)]
        return reader.add(name, reader.operand(tensor), axes=along, keepdims=int(operation.get_attr("keep_dims")))

    return lower


def _quantifier(name: str) -> Lowering:
    """All and any: the least and the largest of zeros and ones."""

    def lower(reader: Reader, operation: tf.Operation) -> str:
        tensor, axes = operation.inputs
        along = [axis % tensor.shape.rank for axis in _axes(reader, axes)]
        numbers = reader.add("Cast", reader.operand(tensor), to="int32")
        found = reader.add(name, numbers, axes=along, keepdims=int(operation.get_attr("keep_dims")))
        return reader.add("Cast", found, to="bool")

    return lower


def _gather(reader: Reader, operation: tf.Operation) -> str:
    if operation.get_attr("batch_dims"):
        raise UnsupportedError("the policy holds a GatherV2 with batch dimensions, expected one without.")
    tensor, indices, axis = operation.inputs
    return reader.add("Gather", reader.operand(tensor), reader.operand(indices), axis=_axis(reader, axis, tensor))


def _one_hot(reader: Reader, operation: tf.Operation) -> str:
    if operation.get_attr("axis") != -1:
        raise UnsupportedError("the policy holds a OneHot along another axis, expected the last one.")
    indices, depth, on, off = operation.inputs
    categories = reader.literal(np.arange(int(reader.value(depth)), dtype=indices.dtype.as_numpy_dtype))
    column = reader.add("Reshape", reader.operand(indices), shape=[*_shape(indices), 1])
    return reader.add("Where", reader.add("Equal", column, categories), reader.operand(on), reader.operand(off))


def _strided_slice(reader: Reader, operation: tf.Operation) -> str:
    tensor, shape = operation.inputs[0], _shape(operation.outputs[0])
    operand, parts = reader.operand(tensor), _parts(reader, operation)
    sizes = _shape(tensor)
    # What is left whole needs no slice.
    cut = [(axis, *part) for axis, part in parts.items() if part != (0, sizes[axis], 1)]
    if cut:
        axes, starts, ends, steps = (list(numbers) for numbers in zip(*cut, strict=True))
        operand = reader.add("Slice", operand, starts=starts, ends=ends, axes=axes, steps=steps)
    same_rank = not (operation.get_attr("new_axis_mask") or operation.get_attr("shrink_axis_mask"))
    return operand if same_rank else reader.add("Reshape", operand, shape=shape)


def _parts(reader: Reader, operation: tf.Operation) -> dict[int, tuple[int, int, int]]:
    """Start, end and step by axis of a slice."""
    names = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    masks = {name: operation.get_attr(f"{name}_mask") for name in names}
    sizes = _shape(operation.inputs[0])
    found: dict[int, Any] = {}
    entries = list(zip(*(_axes(reader, t) for t in operation.inputs[1:]), strict=True))
    for i, bounds in enumerate(entries):
        if masks["ellipsis"] >> i & 1:
            behind = sum(not masks["new_axis"] >> j & 1 for j in range(i + 1, len(entries)))
            found |= {axis: (0, sizes[axis], 1) for axis in range(len(found), len(sizes) - behind)}
            continue
        if masks["new_axis"] >> i & 1:
            continue
        begin, end, step = bounds
        size = sizes[len(found)]
        if masks["shrink_axis"] >> i & 1:
            part = slice(begin, begin + 1 if begin != -1 else None)
        else:
            part = slice(None if masks["begin"] >> i & 1 else begin, None if masks["end"] >> i & 1 else end, step)
        if step < 1:
            raise UnsupportedError("the policy holds a StridedSlice backwards, expected a positive step.")
        found[len(found)] = part.indices(size)
    return found


def _select(reader: Reader, operation: tf.Operation) -> str:
    condition, yes, no = operation.inputs
    if reader.is_known(condition):
        chosen = reader.value(condition)
        for tensor, is_whole in ((yes, chosen.all()), (no, not chosen.any())):
            if is_whole and tensor.shape == operation.outputs[0].shape:
                return reader.operand(tensor)
    return reader.add("Where", *map(reader.operand, operation.inputs))


def _leaky_relu(reader: Reader, operation: tf.Operation) -> str:
    alpha = operation.get_attr("alpha")
    x = reader.operand(operation.inputs[0])
    positive = reader.add("Greater", x, _typed(reader, 0, operation.inputs[0]))
    return reader.add("Where", positive, x, reader.add("Mul", x, _typed(reader, alpha, operation.inputs[0])))


def _composed(compose: Callable[..., str]) -> Lowering:
    """Of simpler operations; `compose` takes `reader.add`, what makes a number of the operands' dtype, and these."""

    def lower(reader: Reader, operation: tf.Operation) -> str:
        operands = list(map(reader.operand, operation.inputs))
        return compose(reader.add, lambda value: _typed(reader, value, operation.inputs[0]), *operands)

    return lower


def _squared_difference(add: Any, _: Any, a: str, b: str) -> str:
    difference = add("Sub", a, b)
    return add("Mul", difference, difference)


def _log_softmax(add: Any, _: Any, x: str) -> str:
    shifted = add("Sub", x, add("ReduceMax", x, axes=[-1], keepdims=1))
    return add("Sub", shifted, add("Log", add("ReduceSum", add("Exp", shifted), axes=[-1], keepdims=1)))


_SAME = {
    "Add": "Add", "AddV2": "Add", "Sub": "Sub", "Mul": "Mul", "RealDiv": "Div", "Maximum": "Max", "Minimum": "Min",
    "Pow": "Pow", "Neg": "Neg", "Abs": "Abs", "Sign": "Sign", "Sqrt": "Sqrt", "Reciprocal": "Reciprocal", "Exp": "Exp",
    "Log": "Log", "Sin": "Sin", "Cos": "Cos", "Tanh": "Tanh", "Sigmoid": "Sigmoid", "Softplus": "Softplus",
    "Relu": "Relu", "Erf": "Erf", "Softmax": "Softmax", "Equal": "Equal", "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual", "Less": "Less", "LessEqual": "LessOrEqual", "LogicalAnd": "And",
    "LogicalOr": "Or", "LogicalNot": "Not", "Elu": "Elu", "Selu": "Selu",
}  # fmt: skip
LOWERINGS: dict[str, Lowering] = {name: _same(onnx) for name, onnx in _SAME.items()}
LOWERINGS |= {
    "Reshape": _reshape, "ExpandDims": _reshape, "Squeeze": _reshape, "BroadcastTo": _broadcast_to, "Fill": _fill,
    "Transpose": _transpose, "MatMul": _matmul("transpose_a", "transpose_b"), "Einsum": _einsum,
    "BatchMatMulV2": _matmul("adj_x", "adj_y"), "BiasAdd": _bias_add, "Conv2D": _conv,
    "FusedBatchNormV3": _fused_batch_norm, "ConcatV2": _concat, "Pack": _pack, "Unpack": _unpack,
    "Split": _split(1, 0), "SplitV": _split(0, 2), "Cast": _cast, "ArgMax": _argmax, "Sum": _reduction("ReduceSum"),
    "Mean": _reduction("ReduceMean"), "Max": _reduction("ReduceMax"), "Min": _reduction("ReduceMin"),
    "All": _quantifier("ReduceMin"), "Any": _quantifier("ReduceMax"), "GatherV2": _gather, "OneHot": _one_hot,
    "StridedSlice": _strided_slice, "Select": _select, "SelectV2": _select, "LeakyRelu": _leaky_relu,
    "Square": _composed(lambda add, _, x: add("Mul", x, x)),
    "SquaredDifference": _composed(_squared_difference),
    "Rsqrt": _composed(lambda add, _, x: add("Reciprocal", add("Sqrt", x))),
    "NotEqual": _composed(lambda add, _, a, b: add("Not", add("Equal", a, b))),
    "Expm1": _composed(lambda add, number, x: add("Sub", add("Exp", x), number(1))),
    "Log1p": _composed(lambda add, number, x: add("Log", add("Add", x, number(1)))),
    "Erfc": _composed(lambda add, number, x: add("Sub", number(1), add("Erf", x))),
    "Relu6": _composed(lambda add, number, x: add("Min", add("Relu", x), number(6))),
    "Softsign": _composed(lambda add, number, x: add("Div", x, add("Add", add("Abs", x), number(1)))),
    "ClipByValue": _composed(lambda add, _, x, low, high: add("Min", add("Max", x, low), high)),
    "LogSoftmax": _composed(_log_softmax),
}  # fmt: skip
