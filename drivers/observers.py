"""Gives a rollout to observers, each in the way that costs least.

- An object with `add_rollout` (this package's replay buffer and metrics) gets the whole rollout in one call. The
  observer is the object itself or its bound method `add_batch`.
- TF-Agents' own metrics and replay buffers get the rows one after the other inside one graph loop; its
  `TFUniformReplayBuffer` gets them in one write, as if they had come one after the other.
- Any other callable gets the rows one after the other, eagerly; inside a user's `tf.function`, in the graph loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.metrics import tf_metric
from tf_agents.replay_buffers import replay_buffer
from tf_agents.trajectories import policy_step

from ppo_agent.common import host_calls
from ppo_agent.common.own_functions import own_function
from ppo_agent.common.types import Nest

from .replay_buffer import tf_agents_rows
from .rollouts.rollout import Rollout, to_trajectory

Observer = Callable[[Any], Any]


class Observed(NamedTuple):
    """What observers get of a rollout, arrays or tensors; () where no observer asks for it.

    Attributes:
        num_steps: T.
        rows: `Trajectory` [B, T, ...], or [B, T + 1, ...] with a bootstrap row.
        steps: `Trajectory` [B, T, ...].
        transitions: (time_step, policy_step, next_time_step), each [B, T, ...].
    """

    num_steps: Any
    rows: Nest
    steps: Nest
    transitions: Nest


class Observers:
    """The observers of a driver."""

    def __init__(
        self, observers: Sequence[Observer], transition_observers: Sequence[Observer], bootstrap_row: bool
    ) -> None:
        """Sorts the observers.

        Args:
            observers: Get `Trajectory` rows [B, ...].
            transition_observers: Get (time_step, policy_step, next_time_step) [B, ...].
            bootstrap_row: Whether a row with the final time step follows each rollout. Metrics of TF-Agents, which
                would count it as a step, and transition observers do not get it.
        """
        self._bootstrap_row = bootstrap_row
        self._bulk = [method for method in map(_add_rollout, observers) if method]
        rest = [observer for observer in observers if not _add_rollout(observer)]
        self._metrics = _RowLoop([observer for observer in rest if isinstance(observer, tf_metric.TFStepMetric)])
        self._others = _RowLoop([observer for observer in rest if not isinstance(observer, tf_metric.TFStepMetric)])
        self._transitions = _RowLoop(transition_observers)

    def prepare(self, rollout: Rollout) -> Observed:
        """Returns what `observe` takes, for a rollout of T >= 1 steps, arrays or, in a graph, tensors."""
        num_steps = rollout.time_steps.step_type.shape[1]
        if num_steps is None:
            num_steps = tf.shape(rollout.time_steps.step_type)[1]
        rows = to_trajectory(rollout, self._bootstrap_row) if self._bulk or self._others else ()
        steps = to_trajectory(rollout, False) if self._metrics else ()
        return Observed(num_steps - 1, rows, steps, _to_transitions(rollout) if self._transitions else ())

    def observe(self, observed: Observed) -> None:
        """Passes on what was prepared, arrays or eager tensors, or tensors inside a graph."""
        for add_rollout in self._bulk:
            if tf.executing_eagerly():
                add_rollout(observed.rows)
            else:
                host_calls.call_on_host(_without_result(add_rollout), observed.rows)
        if self._metrics:
            self._metrics(observed.steps)
        if self._others:
            self._others(observed.rows)
        if self._transitions:
            self._transitions(observed.transitions)


class _RowLoop:
    """Calls observers with one row [B, ...] after the other of a nest [B, T, ...]."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._in_graph = [observer for observer in observers if _belongs_in_graph(observer)]
        self._eager = [observer for observer in observers if not _belongs_in_graph(observer)]
        self._graph_loop: Callable[[Nest], None] | None = None

    def __bool__(self) -> bool:
        return bool(self._in_graph or self._eager)

    def __call__(self, rows: Nest) -> None:
        """Goes through the rows, eagerly or, in a graph, with operations that do so."""
        if not tf.executing_eagerly():
            _loop_in_graph([*self._in_graph, *self._eager], rows)
            return
        if self._in_graph:
            self._replay(rows)
        if self._eager:
            arrays = host_calls.to_arrays(rows)
            for index in range(tf.nest.flatten(arrays)[0].shape[1]):
                row = tf.nest.map_structure(lambda x, i=index: tf.convert_to_tensor(x[:, i]), arrays)
                for observer in self._eager:
                    observer(row)

    def _replay(self, rows: Nest) -> None:
        """Runs the graph loop, which is traced once for all lengths T."""
        if self._graph_loop is None:
            signature = tf.nest.map_structure(_any_length, rows)
            self._graph_loop = own_function(
                lambda values: _loop_in_graph(self._in_graph, values), input_signature=[signature]
            )
        self._graph_loop(rows)


def _add_rollout(observer: Observer) -> Callable[[Nest], None] | None:
    """Returns the method that takes whole rollouts, if the observer has one."""
    owner = getattr(observer, "__self__", observer)
    is_add_batch = owner is observer or getattr(observer, "__name__", "") == "add_batch"
    return getattr(owner, "add_rollout", None) if is_add_batch else None


def _without_result(function: Callable[[Nest], Any]) -> Callable[[Nest], Nest]:
    def call(argument: Nest) -> tuple:
        function(argument)
        return ()

    return call


def _belongs_in_graph(observer: Observer) -> bool:
    """Returns whether the observer is a TF-Agents metric or the method of a TF-Agents replay buffer."""
    owner = getattr(observer, "__self__", None)
    return isinstance(observer, tf_metric.TFStepMetric) or isinstance(owner, replay_buffer.ReplayBuffer)


def _any_length(value: Any) -> tf.TensorSpec:
    batch_size, _, *rest = value.shape
    return tf.TensorSpec([batch_size, None, *rest], value.dtype)


def _loop_in_graph(observers: Sequence[Observer], rows: Nest) -> None:
    """Writes the rows where that can be done at once, and then goes through them for the other observers."""
    writers = [tf_agents_rows.writer_of(observer) for observer in observers]
    for write in filter(None, writers):
        write(rows)
    observers = [observer for observer, write in zip(observers, writers, strict=True) if write is None]
    if not observers:
        return

    def body(index: tf.Tensor) -> tf.Tensor:
        row = tf.nest.map_structure(lambda x: x[:, index], rows)
        for observer in observers:
            observer(row)
        return index + 1

    length = tf.shape(tf.nest.flatten(rows)[0])[1]
    tf.while_loop(lambda index: index < length, body, [tf.constant(0)], parallel_iterations=1, name="observers")


def _to_transitions(rollout: Rollout) -> tuple[Nest, policy_step.PolicyStep, Nest]:
    """Returns (time_step, policy_step, next_time_step), each [B, T, ...]."""
    before = tf.nest.map_structure(lambda x: x[:, :-1], rollout.time_steps)
    after = tf.nest.map_structure(lambda x: x[:, 1:], rollout.time_steps)
    return before, policy_step.PolicyStep(rollout.action, rollout.policy_state, rollout.policy_info), after
