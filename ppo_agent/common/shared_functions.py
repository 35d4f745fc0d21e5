"""Functions that XLA compiles, under names that tell their contents, so that equal ones are compiled once.

TensorFlow gives every function that it traces a name of its own, and XLA keeps what it compiled by that name for as
long as the process lives: each of many equal agents would compile for seconds, and leave tens of megabytes behind.
Here a function whose operations are those of an earlier one gets that one's name. Variables are arguments of such a
function, so that it is the same whatever variables it is about; what differs otherwise, a constant for instance,
makes it another one.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.compiler.jit.ops import xla_ops
from tensorflow.python.eager import context

# What is about the way to a function, not about what it computes; some of it has names that are never the same twice.
_OF_THE_TRACE = ("_gradient_op_type", "backward_function_name", "forward_function_name", "_user_specified_name")
_lock = threading.Lock()


def shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function for calls within a graph that is being built; XLA compiles it unless it compiled an equal one.

    Args:
        function: of nests of tensors; it may use variables, and tensors of the graph around it.

    Returns:
        The function of the same arguments. Called eagerly, it is compiled by itself.
    """

    def call(*arguments: Any) -> Any:
        if tf.executing_eagerly():
            return tf.function(function, jit_compile=True, autograph=False)(*arguments)
        compiled = tf.function(_of_leaves(function, arguments), jit_compile=True, autograph=False)
        leaves = _leaves(arguments)
        traced = compiled.get_concrete_function(*leaves)
        return _launched(traced, _define(traced, resources_last=True), leaves)

    return call


class SharedProgram:
    """A function that XLA compiles unless it compiled an equal one, traced once, for calls within graphs.

    Attributes:
        graph: the graph that was traced.
        name: the same for equal ones.
    """

    def __init__(self, function: Callable[..., Any], specs: tuple[Any, ...]) -> None:
        """Traces the function; compiles nothing yet.

        Args:
            function: of nests of tensors.
            specs: TensorSpecs of what it will be called with.
        """
        self._compiled = tf.function(_of_leaves(function, specs), jit_compile=True, autograph=False)
        self._specs = _leaves(specs)
        self._traced = self._compiled.get_concrete_function(*self._specs)
        self.graph: Any = self._traced.graph
        self.name = _define(self._traced, resources_last=True)

    def translate(self) -> None:
        """Has XLA translate it, without running it.

        Raises:
            OpError, ValueError, TypeError: XLA cannot.
        """
        examples = [tf.zeros(spec.shape, spec.dtype) for spec in self._specs]
        self._compiled.experimental_get_compiler_ir(*examples)(stage="hlo")

    def __call__(self, *arguments: Any) -> Any:
        """Calls it with tensors as those it was traced for; eagerly only where TensorFlow runs all functions so."""
        if tf.executing_eagerly():
            return self._traced(*map(tf.convert_to_tensor, tf.nest.flatten(arguments)))
        return _launched(self._traced, self.name, _leaves(arguments))


def _launched(traced: Any, name: str, leaves: list[Any]) -> Any:
    """Puts a call of a concrete function that XLA compiles into the graph that is being built.

    Args:
        traced: the concrete function.
        name: under which it is defined, with resources last.
        leaves: its arguments.
    """
    graph: Any = tf.compat.v1.get_default_graph()
    inputs = [graph.capture(tensor) for tensor in (*leaves, *traced.captured_inputs)]
    # Not a call with the attribute _XlaMustCompile: for each graph around it, TensorFlow would instantiate what is
    # called once more, and never let go of it.
    outputs = xla_ops.xla_launch(
        constants=[],
        args=[x for x in inputs if x.dtype != tf.resource],
        resources=[x for x in inputs if x.dtype == tf.resource],
        Tresults=[output.dtype for output in traced.outputs],
        function=name,
    )
    for tensor, output in zip(outputs, traced.outputs, strict=True):
        tensor.set_shape(output.shape)
    return tf.nest.pack_sequence_as(traced.structured_outputs, outputs, expand_composites=True)


class SharedCall:
    """A traced function that is called eagerly, by the name of its contents; in all else as a concrete function.

    Of equal ones TensorFlow instantiates one: it never lets go of what it makes of a function around one of XLA's.

    Attributes:
        graph: the graph that was traced.
    """

    def __init__(self, function: Callable[..., Any], specs: tuple[Any, ...]) -> None:
        """Traces the function.

        Args:
            function: of nests of tensors.
            specs: TensorSpecs of what it will be called with.
        """
        traced = tf.function(_of_leaves(function, specs), autograph=False).get_concrete_function(*_leaves(specs))
        self.graph: Any = traced.graph
        # What is called in Python has another name each time.
        self._own = traced if _calls_python(traced) else None
        self._name = b"" if self._own else _define(traced).encode()
        self._captured, self._num_outputs = list(traced.captured_inputs), len(traced.outputs)
        self._structure = tf.nest.map_structure(lambda _: None, traced.structured_outputs)

    @property
    def captured_inputs(self) -> list[tf.Tensor]:
        """What it uses of what is around it: handles of variables."""
        return self._captured

    def set_external_captures(self, captures: Sequence[tf.Tensor]) -> None:
        """Lets it use other variables in the place of its own."""
        self._captured = list(captures)
        if self._own is not None:
            self._own.set_external_captures(self._captured)

    def __call__(self, *arguments: Any) -> Any:
        """Calls it with tensors as those that it was traced for."""
        if self._own is not None:
            return self._own(*_leaves(arguments))
        inputs = [*_leaves(arguments), *self._captured]
        outputs = context.context().call_function(self._name, inputs, self._num_outputs)
        return tf.nest.pack_sequence_as(self._structure, outputs)


def _of_leaves(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """The function of the tensors in its arguments alone, in tf.nest's order, whatever that of a dict."""
    flat = [None if _is_leaf(leaf) else (leaf,) for leaf in tf.nest.flatten(arguments)]
    structure = tf.nest.map_structure(lambda _: None, arguments)

    def of_leaves(*leaves: tf.Tensor) -> Any:
        given = iter(leaves)
        filled = [next(given) if static is None else static[0] for static in flat]
        return function(*tf.nest.pack_sequence_as(structure, filled))

    return of_leaves


def _leaves(nest: Any) -> list[Any]:
    return [leaf for leaf in tf.nest.flatten(nest) if _is_leaf(leaf)]


def _is_leaf(value: Any) -> bool:
    return tf.is_tensor(value) or isinstance(value, tf.TypeSpec)


def _calls_python(traced: Any) -> bool:
    graph = traced.graph.as_graph_def()
    nodes = [*graph.node, *(node for nested in graph.library.function for node in nested.node_def)]
    return any("PyFunc" in node.op for node in nodes)


def _define(traced: Any, *, resources_last: bool = False) -> str:
    """Makes a traced function known under the name of its contents, with those that it calls; returns the name.

    They stay for as long as the process lives, as what XLA made of them does.

    Args:
        traced: a concrete function.
        resources_last: whether arguments that are resources become the last ones; else they stay where they are.
    """
    nested = {f.signature.name: f for f in traced.graph.as_graph_def().library.function}
    definition = _with_resources_last(traced.function_def) if resources_last else traced.function_def
    return _Definitions(nested).define(definition)


class _Definitions:
    """Defines functions under the names of their contents."""

    def __init__(self, functions: dict[str, Any]) -> None:
        self._functions = functions
        self._names: dict[str, str] = {}

    def define(self, function: Any) -> str:
        """Defines a function and, before it, those that it calls; returns its name."""
        plain = _without_trace(function)
        for node in plain.node_def:
            for attribute in node.attr.values():
                for called in (attribute.func, *attribute.list.func):
                    if called.name:
                        called.name = self._named(called.name)
        name = f"ppo_agent_{hashlib.sha256(plain.SerializeToString(deterministic=True)).hexdigest()}"
        plain.signature.name = name
        with _lock:
            if not context.context().has_function(name):
                context.context().add_function_def(plain)
        return name

    def _named(self, name: str) -> str:
        if name in self._functions and name not in self._names:
            self._names[name] = self.define(self._functions[name])
        return self._names.get(name, name)


def _with_resources_last(function: Any) -> Any:
    """A copy of a function's definition with its arguments in another order; those of one kind stay in theirs."""
    ordered, arguments = type(function)(), function.signature.input_arg
    ordered.CopyFrom(function)
    order = sorted(range(len(arguments)), key=lambda i: arguments[i].type == tf.resource.as_datatype_enum)
    ordered.signature.ClearField("input_arg")
    ordered.ClearField("arg_attr")
    ordered.ClearField("resource_arg_unique_id")
    ordered.signature.input_arg.extend(arguments[i] for i in order)
    for position, i in enumerate(order):
        if i in function.arg_attr:
            ordered.arg_attr[position].CopyFrom(function.arg_attr[i])
        if i in function.resource_arg_unique_id:
            ordered.resource_arg_unique_id[position] = function.resource_arg_unique_id[i]
    return ordered


def _without_trace(function: Any) -> Any:
    """A copy of a function's definition without its name, and without what is about how it was traced."""
    plain = type(function)()
    plain.CopyFrom(function)
    plain.signature.name = ""
    arguments = {argument.name: f"argument_{i}" for i, argument in enumerate(plain.signature.input_arg)}
    for argument in plain.signature.input_arg:
        argument.name = arguments[argument.name]
    for node in plain.node_def:
        node.ClearField("experimental_debug_info")
        _drop(node.attr)
        node.input[:] = [_renamed(name, arguments) for name in node.input]
    for attributes in plain.arg_attr.values():
        _drop(attributes.attr)
    # They bear the number of the tensor that they are.
    returned = [plain.ret.pop(result.name) for result in plain.signature.output_arg]
    for i, (result, value) in enumerate(zip(plain.signature.output_arg, returned, strict=True)):
        result.name = f"result_{i}"
        plain.ret[result.name] = _renamed(value, arguments)
    _drop(plain.attr)
    return plain


def _drop(attributes: Any) -> None:
    for name in _OF_THE_TRACE:
        if name in attributes:
            del attributes[name]


def _renamed(name: str, arguments: dict[str, str]) -> str:
    """An input of a node with the new name of the argument that it is, if it is one."""
    control = "^" if name.startswith("^") else ""
    return control + arguments.get(name[len(control) :], name[len(control) :])
