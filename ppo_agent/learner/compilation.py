"""Chooses how an update is compiled, and keeps what was compiled."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf
from tf_agents.trajectories import Trajectory

from ppo_agent.common import compilation_cache
from ppo_agent.common.types import Tensor
from ppo_agent.learner.batches import as_weights

_logger = logging.getLogger(__name__)

compilation_cache.start()

# Multiplications of a forward pass up to which XLA compiles the faster gradient step on a CPU.
XLA_WORK_LIMIT = 2**24
_RECURRENT_FACTOR = 4
# Pixels for each position of a convolution, roughly: the first stride of the usual networks is 4 by 4.
_PIXELS_PER_POSITION = 16


class UpdateCompiler:
    """Calls an update as one compiled function, traced once.

    The number of time steps is left open while tracing, so that episodes of any length use the same trace. XLA, which
    compiles for every shape, is given rows padded to one of few capacities.
    """

    def __init__(self, update: Callable[..., Any]) -> None:
        """Takes `update(trajectory, weights, capacity, jit)`."""
        self._update = update
        self._functions: dict[Any, Any] = {}
        self._compiled: set[Any] = set()
        self._jit_refused = False

    def __call__(self, trajectory: Trajectory, weights: Tensor | None, capacity: int | None, jit: bool) -> Any:
        """Runs the update.

        Args:
            trajectory: checked experience [B, T, ...].
            weights: importance weights or None.
            capacity: number of rows that XLA shall see; None for as many as there are.
            jit: whether XLA compiles the gradient steps.

        Returns:
            What the update returns.
        """
        if not tf.executing_eagerly():  # The caller's own tf.function: become part of it.
            return self._update(trajectory, weights, None, jit and not self._jit_refused)
        if not jit or self._jit_refused:
            return self._call(trajectory, weights, None, False)
        try:
            return self._call(trajectory, weights, capacity, True)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not _is_compiler_error(error):
                raise
            self._jit_refused = True
            _logger.warning("XLA cannot compile this update (%s); it runs without XLA.", str(error).splitlines()[0])
            return self._call(trajectory, weights, None, False)

    def _call(self, trajectory: Trajectory, weights: Tensor | None, capacity: int | None, jit: bool) -> Any:
        weights = as_weights(weights, trajectory.step_type)
        rows = capacity
        capacity = None if capacity is None else tf.constant(capacity)
        key = (trajectory.step_type.shape[0], None if weights is None else weights.shape.rank, capacity is None, jit)
        if key not in self._functions:
            function = tf.function(lambda *arguments: self._update(*arguments, jit), autograph=False)
            self._functions[key] = function.get_concrete_function(*_open_time((trajectory, weights, capacity)))
        if jit and (*key, rows) not in self._compiled:
            self._compiled.add((*key, rows))
            return compilation_cache.call(self._functions[key], trajectory, weights, capacity)
        return self._functions[key](trajectory, weights, capacity)


def padded_capacity(size: int, smallest: int = 4096, factor: int = 4) -> int:
    """The smallest of few capacities that holds `size`: `smallest` times a power of `factor`."""
    capacity = smallest
    while capacity < size:
        capacity *= factor
    return capacity


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


def _open_time(arguments: Any) -> Any:
    """Specs of the arguments in which the time dimension of [B, T, ...] tensors is unknown."""

    def spec(tensor: tf.Tensor | None) -> tf.TensorSpec | None:
        if tensor is None:
            return None
        shape = tensor.shape.as_list()
        return tf.TensorSpec([*shape[:1], None, *shape[2:]] if len(shape) > 1 else shape, tensor.dtype)

    return tf.nest.map_structure(spec, arguments)


def _is_compiler_error(error: tf.errors.OpError) -> bool:
    return any(word in str(error) for word in ("XLA", "xla", "compil", "Compil"))
