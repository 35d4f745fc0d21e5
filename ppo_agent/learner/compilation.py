"""Chooses how an update is compiled, and keeps what was compiled."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import Trajectory

from ppo_agent.common import compilation_cache, custom_gradients, program_space, shared_functions, summary_groups
from ppo_agent.common.types import Tensor
from ppo_agent.learner import batches, legacies, replica_steps
from ppo_agent.learner.interface import UpdateOutcome
from ppo_agent.learner.schedule_feed import Fed
from ppo_agent.learner.update import Update

_logger = logging.getLogger(__name__)

compilation_cache.start()

# Multiplications of a forward pass up to which XLA compiles the faster gradient step on a CPU.
XLA_WORK_LIMIT = 2**24
_RECURRENT_FACTOR = 4
# Steps of a sequence, or short sequences, that XLA sees at least.
_SHORTEST = 32
# Pixels for each position of a convolution, roughly: the first stride of the usual networks is 4 by 4.
_PIXELS_PER_POSITION = 16
# What TensorFlow raises where XLA lacks an operation or cannot tell a shape.
_COMPILER_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)


class CompiledUpdate:
    """Calls an update as one compiled function, traced once.

    The number of time steps is left open while tracing, so that episodes of any length use the same trace. XLA, which
    compiles for every shape, is given rows padded to one of few capacities.

    Attributes:
        update: what is called.
        heir: takes over what an equal agent's update has compiled; None for nothing.
    """

    def __init__(self, update: Update, work_per_row: Callable[[], int]) -> None:
        """Takes the update, and a function that tells how many multiplications the networks take for an observation."""
        self.update, self._config = update, update.config
        self._work_per_row = functools.cache(work_per_row)
        self._functions: dict[Any, Any] = {}
        self._compiled: set[Any] = set()
        self._xla_is_refused = False
        self.heir: legacies.Heir | None = None

    def __call__(self, trajectory: Trajectory, weights: Tensor | None) -> UpdateOutcome:
        """Runs the update.

        Args:
            trajectory: checked experience [B, T, ...].
            weights: importance weights or None.

        Raises:
            ValueError: the agent belongs to a tf.distribute strategy, and this is called neither in its `run` nor
                outside of all strategies and functions.
        """
        is_mirrored = self.update.is_mirrored
        is_alone = not tf.distribute.has_strategy() and tf.executing_eagerly()
        if is_mirrored and not is_alone:
            replica_steps.check_context(self.update.trained_variables())
        if self.update.is_distributed():
            return self.update(trajectory, weights)
        outcome = self._run_here(trajectory, weights)
        if is_mirrored and is_alone:
            replica_steps.copy_to_all(self.update.changed_variables())
        return outcome

    def _run_here(self, trajectory: Trajectory, weights: Tensor | None) -> UpdateOutcome:
        if self._may_leave_out_summaries() and not tf.summary.should_record_summaries():
            with summary_groups.off():
                return self._run(trajectory, weights)
        return self._run(trajectory, weights)

    def close(self) -> None:
        """Leaves what is compiled to an equal agent; nothing is lost but time if this one is used again."""
        if self.heir is not None:
            self.heir.close(self)

    def _may_leave_out_summaries(self) -> bool:
        """Whether XLA could compile the update if it were not for debug summaries."""
        is_eager = tf.executing_eagerly() and not summary_groups.are_off()
        return is_eager and self._config.minibatch_size is not None and self.update.has_debug_summaries

    def _run(self, trajectory: Trajectory, weights: Tensor | None) -> UpdateOutcome:
        batch_size, length = trajectory.step_type.shape
        if not tf.executing_eagerly():
            return self._become_part(trajectory, weights)
        if self.heir is not None and not self._functions:
            self.heir.take(self)
        jit, fed = self._wants_xla(length), self.update.feed.read()
        if not jit:
            return self._call(trajectory, weights, fed, None, jit=False)
        return self._call_with_xla(trajectory, weights, fed, self._capacity(batch_size, length))

    def _become_part(self, trajectory: Trajectory, weights: Tensor | None) -> UpdateOutcome:
        """Runs the update within the caller's own tf.function, as TF-Agents' learners call it."""
        jit = self._wants_xla(trajectory.step_type.shape[1]) and self._has_room()
        return self.update(trajectory, weights, None, jit)

    def _call_with_xla(self, trajectory: Trajectory, weights: Tensor | None, fed: Fed, capacity: int) -> UpdateOutcome:
        """Runs the update with XLA, and without where XLA cannot or where a gradient step has to be skipped."""
        is_first = (self._key(trajectory, weights, fed, capacity, True), capacity) not in self._compiled
        if is_first and not self._has_room():
            return self._call(trajectory, weights, fed, None, jit=False)
        try:
            outcome = self._call(trajectory, weights, fed, capacity, jit=True)
        except _COMPILER_ERRORS as error:
            if not is_first:
                raise
            # XLA compiles in the first call. What it reports there cannot be told from an error of the update itself,
            # which occurs again in a plain graph.
            outcome = self._call(trajectory, weights, fed, None, jit=False)
            self._refuse_xla(str(error).splitlines()[0])
            return outcome
        if outcome.is_undone:
            return self._call(trajectory, weights, fed, None, jit=False)
        return outcome

    def _has_room(self) -> bool:
        """Whether the process can hold another program of XLA's; refuses XLA if not."""
        is_left = program_space.is_left()
        if not is_left:
            self._refuse_xla(program_space.FULL)
        return is_left

    def _refuse_xla(self, reason: str) -> None:
        self._xla_is_refused = True
        _logger.warning("XLA cannot compile this update (%s); it runs without XLA.", reason)

    def _call(
        self, trajectory: Trajectory, weights: Tensor | None, fed: Fed, capacity: int | None, jit: bool
    ) -> UpdateOutcome:
        weights = batches.as_weights(weights, trajectory.step_type)
        key = self._key(trajectory, weights, fed, capacity, jit)
        arguments = (trajectory, weights, None if capacity is None else tf.constant(capacity), fed.values)

        def update(
            trajectory: Trajectory, weights: Tensor | None, capacity: Tensor | None, values: Tensor | None
        ) -> UpdateOutcome:
            with self.update.feed.feeding(Fed(fed.names, values)):
                return self.update(trajectory, weights, capacity, jit)

        if key not in self._functions:
            self._functions[key] = _traced(update, _open_time(arguments), jit)
            if self.heir is not None:
                self.heir.note(self, key)
        if jit and (key, capacity) not in self._compiled:
            outcome = compilation_cache.call(self._functions[key], *arguments)
            self._compiled.add((key, capacity))
            return outcome
        return self._functions[key](*arguments)

    def _key(self, trajectory: Trajectory, weights: Tensor | None, fed: Fed, capacity: int | None, jit: bool) -> Any:
        rank = None if weights is None else np.ndim(weights)
        return trajectory.step_type.shape[0], rank, capacity is None, jit, summary_groups.are_off(), fed.names

    def _wants_xla(self, length: int | None) -> bool:
        size, is_recurrent = self._config.minibatch_size, self.update.is_recurrent
        if self._xla_is_refused:
            return False
        if self._config.jit_compile is not None:
            return bool(self._config.jit_compile)
        # XLA pads minibatches, which what a network keeps of its batches should not see.
        if self.update.needs_plain_graph or size is None or self.update.has_network_state:
            return False
        rows = size * (self._config.sequence_length or length or 1) if is_recurrent else size
        return xla_is_faster(rows, self._work_per_row(), is_recurrent)

    def _capacity(self, batch_size: int, length: int) -> int:
        """To how many rows, or steps of a row, XLA sees the experience padded."""
        if not self.update.is_recurrent:
            return padded_capacity(batch_size * length)
        if self._config.sequence_length is None:
            return padded_length(length)
        return padded_capacity(batch_size * -(-length // self._config.sequence_length), _SHORTEST)


def padded_capacity(size: int, smallest: int = 4096, factor: int = 4) -> int:
    """The smallest of few capacities that holds `size`: `smallest` times a power of `factor`."""
    capacity = smallest
    while capacity < size:
        capacity *= factor
    return capacity


def padded_length(length: int) -> int:
    """The same for the steps of a sequence, which a recurrent network takes one by one: a finer choice pays there."""
    capacity = padded_capacity(length, _SHORTEST, 2)
    between = capacity * 3 // 4
    return between if capacity > _SHORTEST and length <= between else capacity


def xla_is_faster(rows_per_step: int, work_per_row: int, is_recurrent: bool = False) -> bool:
    """Whether XLA on the CPU is expected to beat the graph executor.

    Args:
        rows_per_step: time steps in a gradient step.
        work_per_row: multiplications for each, see `work_per_row`.
        is_recurrent: whether networks go through the time steps one by one: many small operations, which XLA joins.
    """
    limit = _RECURRENT_FACTOR * XLA_WORK_LIMIT if is_recurrent else XLA_WORK_LIMIT
    return rows_per_step * work_per_row <= limit


def work_per_row(variables: Iterable[tf.Variable], observation_spec: Any) -> int:
    """About how many multiplications the networks take for one observation.

    Every parameter counts once, those of a convolution once for every position in the largest image.

    Args:
        variables: of the networks.
        observation_spec: nest of specs, without batch dimensions.
    """
    shapes = [leaf.shape.as_list() for leaf in tf.nest.flatten(observation_spec)]
    pixels = max((math.prod(sorted(shape)[-2:]) for shape in shapes if len(shape) > 2), default=0)
    positions = max(1, pixels // _PIXELS_PER_POSITION)
    return sum(math.prod(v.shape) * (positions if v.shape.rank == 4 else 1) for v in variables)


def _traced(update: Callable[..., UpdateOutcome], specs: tuple[Any, ...], jit: bool) -> Callable[..., UpdateOutcome]:
    """The update as a function that TensorFlow executes; where XLA compiles, one for all equal agents."""
    with custom_gradients.forgotten():
        if jit:
            return shared_functions.SharedCall(update, specs)
        traced: Callable[..., UpdateOutcome] = tf.function(update, autograph=False).get_concrete_function(*specs)
        return traced


def _open_time(arguments: Any) -> Any:
    """Specs of the arguments in which the time dimension of [B, T, ...] tensors is unknown."""

    def spec(tensor: tf.Tensor | None) -> tf.TensorSpec | None:
        if tensor is None:
            return None
        shape = tensor.shape.as_list()
        return tf.TensorSpec([*shape[:1], None, *shape[2:]] if len(shape) > 1 else shape, tensor.dtype)

    return tf.nest.map_structure(spec, arguments)
