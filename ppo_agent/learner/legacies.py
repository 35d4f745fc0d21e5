"""What an agent's update has compiled, for the use of equal agents that come after it in this process.

A search makes one agent after the other, and tracing and compiling the update takes most of a small training. A traced
function holds no agent, only the handles of its variables, which are exchanged here for another agent's.
"""

from __future__ import annotations

import collections
import threading
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

if TYPE_CHECKING:
    from ppo_agent.learner.compilation import CompiledUpdate

Variables = Callable[[], Mapping[str, tf.Variable]]

# Of so many kinds of agents; each legacy keeps the variables of one agent, and a graph or two.
MOST_LEGACIES = 8


class _Traced(NamedTuple):
    """A traced function.

    Attributes:
        function: concrete.
        roles: name of the variable that each captured input is the handle of.
    """

    function: Any
    roles: Sequence[str]


class _Legacy:
    """What an update leaves: it is free when its owner is closed or gone."""

    def __init__(self, owner: CompiledUpdate) -> None:
        self.owner, self.is_closed = weakref.ref(owner), False
        self.compiled, self.xla_is_refused = owner._compiled, owner._xla_is_refused
        self.skipped_minibatch = owner.update.skipped_minibatch
        self.traced: dict[Hashable, _Traced] = {}

    @property
    def is_free(self) -> bool:
        return self.is_closed or self.owner() is None


_legacies: collections.OrderedDict[Hashable, _Legacy] = collections.OrderedDict()
_lock = threading.RLock()


class Heir:
    """Takes over what the update of an equal agent has compiled, and leaves it to the next one.

    One agent at a time: as long as one is in use, equal ones compile for themselves.
    """

    def __init__(self, key: Hashable, variables: Variables) -> None:
        """Takes what is equal.

        Args:
            key: of the agent: equal keys must mean equal updates, but for the values of variables.
            variables: all that an update reads or changes, by names that equal agents have in common.
        """
        self._key, self._variables = key, variables

    def take(self, update: CompiledUpdate) -> None:
        """Takes over what is free, into an update that has compiled nothing yet."""
        with _lock:
            legacy = _legacies.get(self._key)
            if legacy is None or not legacy.is_free:
                return
            del _legacies[self._key]
            if (former := legacy.owner()) is not None:
                former._functions, former._compiled = {}, set()
            variables = self._variables()
            if all(role in variables for traced in legacy.traced.values() for role in traced.roles):
                self._exchange(legacy, update, variables)

    def _exchange(self, legacy: _Legacy, update: CompiledUpdate, variables: Mapping[str, tf.Variable]) -> None:
        for key, traced in legacy.traced.items():
            used = [variables[role] for role in traced.roles]
            traced.function.set_external_captures([variable.handle for variable in used])
            traced.function.graph.variables = used
            update._functions[key] = traced.function
        update._compiled, update._xla_is_refused = legacy.compiled, legacy.xla_is_refused
        update.update.skipped_minibatch = legacy.skipped_minibatch
        own = _legacies[self._key] = _Legacy(update)
        own.traced = legacy.traced

    def note(self, update: CompiledUpdate, key: Hashable) -> None:
        """Takes note of a function that was traced, if another agent's variables can take the place of its own."""
        function = update._functions[key]
        roles = self._roles(function)
        with _lock:
            legacy = _legacies.get(self._key)
            if legacy is None or (legacy.is_free and legacy.owner() is not update):
                legacy = _legacies[self._key] = _Legacy(update)
                while len(_legacies) > MOST_LEGACIES:
                    _legacies.popitem(last=False)
            if legacy.owner() is update:
                legacy.is_closed = False
                if roles is not None:
                    legacy.traced[key] = _Traced(function, roles)

    def close(self, update: CompiledUpdate) -> None:
        """The owner needs it no more; should it be used again, it compiles again."""
        with _lock:
            legacy = _legacies.get(self._key)
            if legacy is not None and legacy.owner() is update:
                legacy.xla_is_refused, legacy.is_closed = update._xla_is_refused, True

    def _roles(self, function: Any) -> list[str] | None:
        names = {id(variable.handle): name for name, variable in self._variables().items()}
        roles = [names.get(id(captured)) for captured in function.captured_inputs]
        nodes = (node for part in function.graph.as_graph_def().library.function for node in part.node_def)
        # An operation's seed stands in the graph, and is another one for another agent.
        if None in roles or any("seed2" in node.attr for node in nodes):
            return None
        return [role for role in roles if role is not None]
