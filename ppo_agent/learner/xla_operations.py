"""Tells whether XLA compiles a function, from its operations, for calls within a graph of the caller's own.

There an error of the compiler comes when nobody can catch it and take the plain graph instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Those of dense, convolutional and TF-Agents' own networks with the usual distributions and optimisers.
_NAMES = """
Abs AddN AddV2 All Any ArgMax Assert AssignAddVariableOp AssignSubVariableOp AssignVariableOp AvgPool AvgPoolGrad
BiasAdd BiasAddGrad BroadcastGradientArgs BroadcastTo Cast ConcatV2 Const Conv2D Conv2DBackpropFilter
Conv2DBackpropInput DivNoNan Elu EluGrad Equal Exp ExpandDims Expm1 Fill FloorDiv FloorMod GatherV2 Greater
GreaterEqual Identity IdentityN If InvertPermutation IsFinite L2Loss LeakyRelu LeakyReluGrad Less LessEqual Log
Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool MaxPoolGrad Maximum Mean Min Minimum Mul
MulNoNan Neg NoOp NotEqual OneHot OnesLike Pack PartitionedCall Placeholder Pow Prod Range Rank ReadVariableOp
RealDiv Reciprocal Relu ReluGrad Reshape ResourceApplyAdam ResourceApplyGradientDescent ResourceApplyKerasMomentum
ResourceApplyMomentum ResourceApplyRMSProp Rsqrt RsqrtGrad Select SelectV2 Selu SeluGrad Shape Sigmoid SigmoidGrad
Sign Slice Softmax Softplus SoftplusGrad SparseSoftmaxCrossEntropyWithLogits Sqrt SqrtGrad Square
SquaredDifference Squeeze StatefulPartitionedCall StatelessIf StatelessWhile StopGradient StridedSlice
StridedSliceGrad Sub Sum Tanh TanhGrad Tile Transpose Unpack While ZerosLike
"""
_KNOWN = frozenset(_NAMES.split())


def are_known(function: Any) -> bool:
    """Whether XLA is known to compile all operations of a concrete function, those of nested functions included."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for nested in graph.library.function for node in nested.node_def)]
    return all(node.op in _KNOWN and not _has_strings(node) for node in nodes)


def compiled(
    function: Callable[..., Any], arguments: tuple[Any, ...], jit: bool, checks_operations: bool
) -> Callable[..., Any]:
    """A function that XLA compiles, with `checks_operations` only if it is known to have its operations."""
    if checks_operations and jit:
        plain = tf.function(function, autograph=False).get_concrete_function(*arguments)
        jit = are_known(plain)
    result: Callable[..., Any] = tf.function(function, jit_compile=jit, autograph=False)
    return result


def _has_strings(node: Any) -> bool:
    """Whether an operation is one on strings; those of assertions, which XLA leaves out, are constants."""
    kinds = [node.attr[name].type for name in ("T", "dtype") if name in node.attr and node.op != "Const"]
    return tf.string.as_datatype_enum in kinds
