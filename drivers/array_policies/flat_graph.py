"""A traced function as one graph of operations, without functions inside, and with variables as its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.grappler import tf_optimizer

from .numpy_operations import UnsupportedError

# What may have a state without having an effect.
_HARMLESS = {"Placeholder", "ReadVariableOp", "Assert"}


class FlatGraph(NamedTuple):
    """The graph of a function.

    Attributes:
        graph_def: Of `graph`.
        graph: Holds all tensors named here.
        arguments: The function's arguments, flat.
        captured: By name of the placeholder that stands for its value: a variable or an eager tensor.
        outputs: The function's results, flat.
        conditions: bool scalars; where one is false, the function raises.
    """

    graph_def: Any
    graph: tf.Graph
    arguments: list[tf.Tensor]
    captured: dict[str, Any]
    outputs: list[tf.Tensor]
    conditions: list[tf.Tensor]


def flatten(function: Any) -> FlatGraph:
    """Returns the graph of `tf.function`'s concrete function.

    Raises:
        UnsupportedError: It has an effect beyond its results, or reads a resource that is no variable.
    """
    graph_def, captured = _read_variables(inline(function), _sources(function))
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    conditions = [condition for op in graph.get_operations() for condition in _conditions(op)]
    count = len(function.inputs) - len(function.captured_inputs)
    arguments, outputs = (
        [graph.get_tensor_by_name(tensor.name) for tensor in tensors]
        for tensors in (function.inputs[:count], function.outputs)
    )
    return FlatGraph(graph_def, graph, arguments, captured, outputs, conditions)


def subgraph(graph_def: Any, names: Iterable[str]) -> Any:
    """Returns what the nodes of these names need; the order of execution is left out, because nothing has an effect."""
    nodes = {node.name: node for node in graph_def.node}
    part = type(graph_def)(versions=graph_def.versions, library=graph_def.library)
    waiting, needed = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        node = part.node.add()
        node.CopyFrom(nodes[name])
        del node.input[:]
        node.input.extend(source for source in nodes[name].input if not source.startswith("^"))
        waiting += [source.split(":")[0] for source in node.input]
    return part


def inline(function: Any) -> Any:
    """Returns the graph with the bodies of called functions in place of the calls; conditionals stay as they are."""
    meta_graph = tf.compat.v1.MetaGraphDef(graph_def=function.graph.as_graph_def())
    definitions = meta_graph.graph_def.library.function
    for node in [*meta_graph.graph_def.node, *(node for f in definitions for node in f.node_def)]:
        node.attr.pop("_lower_using_switch_merge", None)
    for definition in definitions:
        definition.attr.pop("api_implements", None)  # Keras' layers have a second body for GPUs.
    kept = [tensor.name for tensor in [*function.inputs, *function.outputs]]
    kept += [operation.name for operation in function.graph.control_outputs]
    meta_graph.collection_def["train_op"].node_list.value.extend(kept)
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    config.graph_options.rewrite_options.optimizers.append("function")
    return tf_optimizer.OptimizeGraph(config, meta_graph)


def _sources(function: Any) -> dict[str, Any]:
    """What stands behind each placeholder that is no argument."""
    variables = {id(variable.handle): variable for variable in function.variables}
    inner = function.inputs[len(function.inputs) - len(function.captured_inputs) :]
    captured = zip(inner, function.captured_inputs, strict=True)
    return {tensor.op.name: variables.get(id(value), value) for tensor, value in captured}


def _read_variables(graph_def: Any, sources: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Returns the graph with placeholders instead of reading variables, and what they stand for."""
    nodes = {node.name: node for node in graph_def.node}
    captured = {name: value for name, value in sources.items() if tf.is_tensor(value) and value.dtype != tf.resource}

    def variable_of(name: str) -> tf.Variable:
        while nodes[name].op == "Identity":
            name = nodes[name].input[0].split(":")[0]
        if not isinstance(sources.get(name), tf.Variable):
            raise UnsupportedError("a resource that is no variable")
        return sources[name]

    result = type(graph_def)(versions=graph_def.versions, library=graph_def.library)
    for node in graph_def.node:
        if node.op == "ReadVariableOp":
            captured[node.name] = variable_of(node.input[0])
            result.node.append(_placeholder(node.name, captured[node.name]))
        elif node.op == "ResourceGather":
            table = f"{node.name}/table"
            captured[table] = variable_of(node.input[0])
            result.node.extend([_placeholder(table, captured[table]), *_gather(node, table)])
        else:
            result.node.append(node)
    return result, captured


def _placeholder(name: str, variable: tf.Variable) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op="Placeholder")
    node.attr["dtype"].type = variable.dtype.as_datatype_enum
    node.attr["shape"].shape.CopyFrom(variable.shape.as_proto())
    return node


def _gather(node: Any, table: str) -> list[Any]:
    """`GatherV2` of the rows of a table, as a `ResourceGather` reads them from a variable."""
    axis = tf.compat.v1.NodeDef(name=f"{node.name}/axis", op="Const")
    axis.attr["dtype"].type = tf.int32.as_datatype_enum
    axis.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0, tf.int32))
    gather = tf.compat.v1.NodeDef(name=node.name, op="GatherV2", input=[table, node.input[1], axis.name])
    gather.attr["Tparams"].CopyFrom(node.attr["dtype"])
    gather.attr["Tindices"].CopyFrom(node.attr["Tindices"])
    gather.attr["Taxis"].type = tf.int32.as_datatype_enum
    gather.attr["batch_dims"].i = node.attr["batch_dims"].i
    return [axis, gather]


def _conditions(operation: tf.Operation) -> list[tf.Tensor]:
    """What an operation asserts.

    Raises:
        UnsupportedError: It has another effect.
    """
    if operation.type == "Assert" or _is_guard(operation):
        return [operation.inputs[0]]
    if operation.op_def.is_stateful and operation.type not in _HARMLESS:
        raise UnsupportedError(operation.type)
    return []


def _is_guard(operation: tf.Operation) -> bool:
    """Whether it is what `tf.debugging.Assert` makes: a conditional that asserts if its condition is false."""
    if operation.type not in ("If", "StatelessIf"):
        return False
    library = {f.signature.name: f for f in operation.graph.as_graph_def().library.function}
    then, other = (library[operation.get_attr(branch).name] for branch in ("then_branch", "else_branch"))
    kinds, other_kinds = ({node.op for node in branch.node_def} for branch in (then, other))
    plain = {"Const", "Identity", "NoOp", "Placeholder"}
    return kinds <= plain and "Assert" in other_kinds and other_kinds <= plain | {"Assert"}
