"""The update of the parameters: one gradient step, and the loop over epochs and minibatches.

Everything here runs inside one compiled function. Shapes inside the loop do not depend on the data: a minibatch has a
fixed number of rows, of which the last may be filled up with rows that do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.agents.tf_agent import LossInfo

from ppo_agent.common.types import Tensor
from ppo_agent.learner.batches import TrainingBatch

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


class EpochsResult(NamedTuple):
    """What the gradient steps of a call reported.

    Attributes:
        last: report of the last step that was not skipped, float32 [num_scalars]; NaN if all were.
        means: means over the steps that were not skipped.
        taken: number of steps, skipped ones included.
        skipped: number of steps that were skipped because their loss or gradient was not finite.
        skipped_in_a_row: how many of them were the last ones, those of earlier calls included.
    """

    last: tf.Tensor
    means: tf.Tensor
    taken: Tensor
    skipped: Tensor
    skipped_in_a_row: Tensor


def gradient_step(
    loss: Callable[[], StepResult],
    variables: Sequence[tf.Variable],
    optimizer: Any,
    gradient_clipping: float,
    guard: str = "skip",
) -> tuple[StepResult, list[tuple[Tensor, tf.Variable]], tf.Tensor]:
    """Moves the variables against the gradient of the loss if both are finite.

    Args:
        loss: evaluates the loss on a minibatch.
        variables: what to move.
        optimizer: a tf.keras, legacy tf.keras or tf.compat.v1 optimizer.
        gradient_clipping: bound of the gradients' global norm; 0 for none.
        guard: what becomes of a gradient that is not finite. 'skip': nothing changes. 'agree': where one replica of a
            tf.distribute strategy has none that is finite, all of them apply one of zeros, because they must not part;
            what is left is the optimiser's own momentum. 'none': it is applied, for callers that undo that.

    Returns:
        What `loss` returned, with `gradient_norm` (before clipping) among the metrics; the gradients; and whether all
        was finite, a bool scalar.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        result = loss()
    gradients = tape.gradient(result.loss_info.loss, variables)
    norm = tf.linalg.global_norm(gradients)
    if gradient_clipping > 0:
        gradients, _ = tf.clip_by_global_norm(gradients, gradient_clipping, use_norm=norm)
    # The norm is finite only if all of them are.
    is_sound = tf.math.is_finite(result.loss_info.loss) & tf.math.is_finite(norm)
    if guard == "agree":
        is_sound, gradients = _agreed(is_sound, gradients)
    gradients_and_variables = list(zip(gradients, variables, strict=True))
    if guard == "skip":
        _apply_if(is_sound, optimizer, gradients_and_variables)
    else:
        optimizer.apply_gradients(gradients_and_variables)
    metrics = result.metrics | {"gradient_norm": norm}
    return StepResult(result.loss_info, metrics), gradients_and_variables, is_sound


def _apply_if(is_sound: tf.Tensor, optimizer: Any, gradients_and_variables: Sequence[tuple[Tensor, Any]]) -> None:
    def apply() -> tf.Tensor:
        optimizer.apply_gradients(gradients_and_variables)
        return tf.constant(0)

    tf.cond(is_sound, apply, lambda: tf.constant(0))


def _agreed(is_sound: tf.Tensor, gradients: Sequence[Tensor]) -> tuple[tf.Tensor, list[Tensor]]:
    """Whether the gradients of all replicas are sound, and the gradients, zeros if they are not."""
    context = tf.distribute.get_replica_context()
    is_sound = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(~is_sound, tf.int32)) == 0
    return is_sound, [None if g is None else tf.where(is_sound, g, tf.zeros_like(g)) for g in gradients]


def run_epochs(
    step: Callable[[Tensor], tuple[tf.Tensor, tf.Tensor]],
    num_steps: Tensor,
    num_scalars: int,
    goes_on: Callable[[tf.Tensor], tf.Tensor] = lambda _: tf.constant(True),
    skipped_before: Tensor = 0,
    most_skipped: int = 0,
) -> EpochsResult:
    """Takes gradient steps in a loop whose size in the graph does not depend on their number.

    Args:
        step: takes the gradient step with the given number and returns what it reports, float32 [num_scalars], and
            whether it changed anything: a step that did not is one that was skipped.
        num_steps: how many at most, an int32 scalar of at least 1.
        num_scalars: how many scalars a step reports.
        goes_on: tells from the report of a step (zeros before the first one) whether another one follows.
        skipped_before: how many steps in a row were skipped before.
        most_skipped: no further step follows so many skipped ones in a row; 0 for any number.

    Returns:
        What the steps reported.
    """

    def body(index: tf.Tensor, last: tf.Tensor, total: tf.Tensor, skipped: tf.Tensor, in_a_row: tf.Tensor) -> tuple:
        report, is_sound = step(index)
        return (
            index + 1,
            tf.where(is_sound, report, last),
            total + tf.where(is_sound, report, tf.zeros_like(report)),
            skipped + tf.cast(~is_sound, tf.int32),
            tf.where(is_sound, 0, in_a_row + 1),
        )

    def more(index: tf.Tensor, last: tf.Tensor, _: tf.Tensor, skipped: tf.Tensor, in_a_row: tf.Tensor) -> tf.Tensor:
        del skipped
        follows = (index < num_steps) & goes_on(last)
        return follows & (in_a_row < most_skipped) if most_skipped else follows

    nothing, zero = tf.zeros([num_scalars]), tf.constant(0)
    # A call that comes after the limit was reached has its chance.
    before = tf.cast(skipped_before, tf.int32)
    before = tf.minimum(before, most_skipped - 1) if most_skipped else before
    taken, last, total, skipped, in_a_row = tf.while_loop(more, body, [zero, nothing, nothing, zero, before])
    last = tf.where(skipped < taken, last, float("nan"))
    return EpochsResult(last, total / tf.cast(taken - skipped, tf.float32), taken, skipped, in_a_row)


def put_back(variables: Sequence[tf.Variable], values: Sequence[tf.Tensor], condition: tf.Tensor) -> None:
    """Gives the variables the values that they had, where the condition holds."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(tf.where(condition, value, variable))


def run_unrolled(
    step: Callable[[Tensor], tuple[tf.Tensor, tf.Tensor]], minibatches: Minibatches, skipped_before: Tensor = 0
) -> EpochsResult:
    """`run_epochs` without a loop in the graph, for replicas that synchronise in every step; it takes all steps.

    Args:
        step: see `run_epochs`.
        minibatches: the plan; the number of its rows must be known while tracing.
        skipped_before: how many steps in a row were skipped before.

    Returns:
        What the steps reported.
    """
    count = tf.get_static_value(minibatches.count)
    if count is None:
        raise ValueError(
            "experience has an unknown number of steps, expected a known one under a tf.distribute strategy."
        )
    reports, sound = zip(*(step(tf.constant(i)) for i in range(minibatches.order.shape[0] * count)), strict=True)
    in_a_row = tf.cast(skipped_before, tf.int32)
    last, total = tf.fill(reports[0].shape, float("nan")), tf.zeros_like(reports[0])
    for report, is_sound in zip(reports, sound, strict=True):
        in_a_row = tf.where(is_sound, 0, in_a_row + 1)
        last = tf.where(is_sound, report, last)
        total += tf.where(is_sound, report, tf.zeros_like(report))
    skipped = tf.add_n([tf.cast(~is_sound, tf.int32) for is_sound in sound])
    taken = tf.constant(len(reports))
    return EpochsResult(last, total / tf.cast(taken - skipped, tf.float32), taken, skipped, in_a_row)
