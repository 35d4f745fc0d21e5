"""What is made of a policy's trace, made once for equal traces.

A policy is traced anew for each driver: a kept trace would not see what has changed in its Python attributes since. But
what calls a function as one operation stays in TensorFlow's memory for good, some 0.4 MB of it, so that a program that
makes one driver after the other would grow. Traces are the same most of the time, and then so is what calls them.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf
from tf_agents.policies import tf_policy

from ppo_agent.common import host_calls
from ppo_agent.common.types import Nest

from .flat_graph import inline

T = TypeVar("T")

# Of each policy, what was made of its last trace with each signature, beside that trace and its identity.
_made: weakref.WeakKeyDictionary[tf_policy.TFPolicy, dict[str, tuple[Any, Any, Any]]] = weakref.WeakKeyDictionary()


def trace(function: Callable[..., Nest], example: tuple[Nest, ...]) -> Any:
    """Returns the concrete function for arguments like an example, nests of arrays."""
    signature = host_calls.specs_of(example)
    return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()


def made_once(policy: tf_policy.TFPolicy, traced: Any, purpose: str, make: Callable[[], T]) -> T:
    """Returns what `make` returns, or what it returned for the policy's last trace if that was the same.

    Args:
        policy: That was traced. What is made must not refer to it.
        traced: Its concrete function.
        purpose: What tells apart what is made of one trace.
        make: Makes something that the trace alone decides.
    """
    key = f"{purpose} {traced.structured_input_signature}"
    identity, of_policy = _identity(traced), _made.setdefault(policy, {})
    if key not in of_policy or of_policy[key][0] != identity:
        # The trace is kept, because what it captured is identified by its address.
        of_policy[key] = (identity, traced, make())
    return of_policy[key][2]


def _identity(traced: Any) -> tuple[bytes, list[int]]:
    """Returns what is equal for traces of the same operations on the same variables."""
    content = _with_plain_names(inline(traced)).SerializeToString(deterministic=True)
    return content, list(map(id, traced.captured_inputs))


def _with_plain_names(graph_def: Any) -> Any:
    """Returns a graph whose functions, which TensorFlow counts through the whole process, are numbered from 0."""
    functions = sorted(graph_def.library.function, key=lambda function: _natural(function.signature.name))
    numbers = {function.signature.name: str(number) for number, function in enumerate(functions)}
    for node in [*graph_def.node, *(node for function in functions for node in function.node_def)]:
        node.ClearField("experimental_debug_info")
        for called in (called for attr in node.attr.values() for called in (attr.func, *attr.list.func)):
            if called.name in numbers:
                called.name = numbers[called.name]
    for function in functions:
        function.signature.name = numbers[function.signature.name]
    del graph_def.library.function[:]
    graph_def.library.function.extend(functions)
    return graph_def


def _natural(name: str) -> list[str | int]:
    """Returns what sorts names by the numbers in them: 99 before 100."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
