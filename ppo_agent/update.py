"""The update of the parameters: one gradient step, and the loop over epochs and minibatches.

Everything here runs inside one compiled function. Shapes inside the loop do not depend on the data: a minibatch has a
fixed number of rows, of which the last may be filled up with rows that do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.agents.tf_agent import LossInfo

from ppo_agent.preprocessing import TrainingBatch

Tensor = Any
Metrics = dict[str, tf.Tensor]

_ROWS_PER_SPARE_ROW = 32


class StepResult(NamedTuple):
    """What one gradient step reports, from before it changed the parameters.

    Attributes:
        loss_info: losses of the minibatch.
        metrics: further scalars by name.
    """

    loss_info: LossInfo
    metrics: Metrics


class Minibatches(NamedTuple):
    """How the rows of a batch are dealt out.

    Attributes:
        size: rows per minibatch at most; None takes the whole batch as it is.
        order: int32 [num_epochs, at least number of rows + size]: for every epoch the rows in the order of use; entries
            from `num_rows` on are never used.
        num_rows: int32 scalar, number of rows to use in an epoch.
        count: number of minibatches per epoch, an int32 scalar.
    """

    size: int | None
    order: Tensor
    num_rows: Tensor
    count: Tensor

    @property
    def num_steps(self) -> Tensor:
        """Number of gradient steps over all epochs."""
        return self.order.shape[0] * self.count


def whole_batch(num_epochs: int) -> Minibatches:
    """The plan of one gradient step per epoch from all rows as they are."""
    return Minibatches(None, tf.zeros([num_epochs, 0], tf.int32), tf.constant(0), tf.constant(1))


def shuffled_rows(rows: Tensor, num_epochs: int, seed: Tensor) -> tf.Tensor:
    """Puts rows into a new random order for every epoch.

    Args:
        rows: int32 row numbers [n].
        num_epochs: number of orders.
        seed: int [2]; equal seeds give equal orders.

    Returns:
        int32 [num_epochs, n].
    """
    keys = tf.random.stateless_uniform([num_epochs, tf.size(rows)], seed)
    return tf.gather(rows, tf.argsort(keys, axis=1))


def make_minibatches(
    row_mask: Tensor, size: int, num_epochs: int, seed: Tensor, count: int | None = None
) -> Minibatches:
    """Deals the valid rows out over as few minibatches as possible, all within one row of the same size.

    Args:
        row_mask: bool [B], True for rows to use.
        size: rows per minibatch; up to 1/32 more where the rows would not suffice for another minibatch otherwise.
        num_epochs: passes over the rows.
        seed: see `shuffled_rows`.
        count: number of minibatches, if it must not depend on the data; enough for all rows.

    Returns:
        The plan.
    """
    rows = tf.cast(tf.where(row_mask)[:, 0], tf.int32)
    num_rows = tf.size(rows)
    # A rollout of several environments overshoots its number of steps by a few: not worth a gradient step of their own.
    slack = size // _ROWS_PER_SPARE_ROW
    unused = tf.size(row_mask) - num_rows + size + slack
    order = tf.pad(shuffled_rows(rows, num_epochs, seed), [[0, 0], [0, unused]])
    needed = tf.maximum((num_rows - slack + size - 1) // size, 1)
    return Minibatches(size + slack, order, num_rows, needed if count is None else tf.constant(count))


def select_minibatch(batch: TrainingBatch, minibatches: Minibatches, index: Tensor) -> TrainingBatch:
    """Gathers the rows of one gradient step.

    Args:
        batch: all rows [B, T, ...].
        minibatches: the plan.
        index: number of the gradient step, counted over all epochs.

    Returns:
        The minibatch [size, T, ...]; its mask is False in rows that only fill it up.
    """
    if minibatches.size is None:
        return batch
    epoch, number = index // minibatches.count, index % minibatches.count
    share, remainder = minibatches.num_rows // minibatches.count, minibatches.num_rows % minibatches.count
    start = number * share + tf.minimum(number, remainder)
    used = tf.range(minibatches.size) < share + tf.cast(number < remainder, tf.int32)
    # Not tf.slice: XLA takes its bounds for constants and compiles anew for every number of rows.
    rows = tf.gather(tf.gather(minibatches.order, epoch), start + tf.range(minibatches.size))
    minibatch = tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), batch)
    return minibatch._replace(mask=minibatch.mask & used[:, tf.newaxis])


def gradient_step(
    loss: Callable[[], StepResult],
    variables: Sequence[tf.Variable],
    optimizer: Any,
    gradient_clipping: float,
) -> tuple[StepResult, list[tuple[Tensor, tf.Variable]]]:
    """Moves the variables against the gradient of the loss.

    Args:
        loss: evaluates the loss on a minibatch.
        variables: what to move.
        optimizer: a tf.keras, legacy tf.keras or tf.compat.v1 optimizer.
        gradient_clipping: bound of the gradients' global norm; 0 for none.

    Returns:
        What `loss` returned, with `gradient_norm` (before clipping) among the metrics, and the gradients applied.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        result = loss()
    gradients = tape.gradient(result.loss_info.loss, variables)
    norm = tf.linalg.global_norm(gradients)
    if gradient_clipping > 0:
        gradients, _ = tf.clip_by_global_norm(gradients, gradient_clipping, use_norm=norm)
    gradients_and_variables = list(zip(gradients, variables, strict=True))
    optimizer.apply_gradients(gradients_and_variables)
    return StepResult(result.loss_info, result.metrics | {"gradient_norm": norm}), gradients_and_variables


def run_epochs(
    step: Callable[[Tensor], tf.Tensor],
    num_steps: Tensor,
    num_scalars: int,
    goes_on: Callable[[tf.Tensor], tf.Tensor] = lambda _: tf.constant(True),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes gradient steps in a loop whose size in the graph does not depend on their number.

    Args:
        step: takes the gradient step with the given number and returns what it reports, float32 [num_scalars].
        num_steps: how many at most, an int32 scalar of at least 1.
        num_scalars: how many scalars a step reports.
        goes_on: tells from the report of a step (zeros before the first one) whether another one follows.

    Returns:
        The report of the last step and the mean of all reports, each float32 [num_scalars].
    """

    def body(index: tf.Tensor, _: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        report = step(index)
        return index + 1, report, total + report

    nothing = tf.zeros([num_scalars])
    taken, last, total = tf.while_loop(
        lambda index, last, _: (index < num_steps) & goes_on(last), body, [tf.constant(0), nothing, nothing]
    )
    return last, total / tf.cast(taken, tf.float32)


def run_unrolled(step: Callable[[Tensor], tf.Tensor], minibatches: Minibatches) -> tuple[tf.Tensor, tf.Tensor]:
    """`run_epochs` without a loop in the graph, for replicas that synchronise in every step.

    Args:
        step: takes the gradient step with the given number and returns what it reports.
        minibatches: the plan; the number of its rows must be known while tracing.

    Returns:
        The report of the last step and the mean of all reports.
    """
    count = tf.get_static_value(minibatches.count)
    if count is None:
        raise ValueError(
            "experience has an unknown number of steps, expected a known one under a tf.distribute strategy."
        )
    reports = [step(tf.constant(index)) for index in range(minibatches.order.shape[0] * count)]
    return reports[-1], tf.add_n(reports) / len(reports)
