"""How the rows of a batch are dealt out over gradient steps.

Shapes do not depend on the data: a minibatch has a fixed number of rows, of which the last may be filled up with rows
that do not count.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from ppo_agent.common import replicas
from ppo_agent.common.types import Tensor
from ppo_agent.config import PPOConfig
from ppo_agent.learner import batches
from ppo_agent.learner.batches import TrainingBatch

_ROWS_PER_SPARE_ROW = 32


class Minibatches(NamedTuple):
    """How the rows of a batch are dealt out.

    Attributes:
        size: rows per minibatch at most; None takes the whole batch as it is.
        is_padded: whether every minibatch has `size` rows, as XLA needs it, or as many as there are for it.
        order: int32 [num_epochs, at least number of rows + size]: for every epoch the rows in the order of use; entries
            from `num_rows` on are never used. With several replicas it is that of the rows of all, -1 for others' rows.
        num_rows: int32 scalar, number of rows to use in an epoch.
        count: number of minibatches per epoch, an int32 scalar.
    """

    size: int | None
    is_padded: bool
    order: Tensor
    num_rows: Tensor
    count: Tensor


def whole_batch(num_epochs: int) -> Minibatches:
    """The plan of one gradient step per epoch from all rows as they are."""
    return Minibatches(None, False, tf.zeros([num_epochs, 0], tf.int32), tf.constant(0), tf.constant(1))


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
    row_mask: Tensor,
    size: int,
    num_epochs: int,
    seed: Tensor,
    count: Tensor | None = None,
    *,
    is_padded: bool = True,
) -> Minibatches:
    """Deals the valid rows out over as few minibatches as possible, all within one row of the same size.

    Args:
        row_mask: bool [B], True for rows to use.
        size: rows per minibatch; up to 1/32 more where the rows would not suffice for another minibatch otherwise.
        num_epochs: passes over the rows.
        seed: see `shuffled_rows`.
        count: number of minibatches, if it must not depend on the data. Rows that do not fit in are dropped, others in
            every epoch.
        is_padded: see `Minibatches`.

    Returns:
        The plan.
    """
    rows, unused = _rows_of_all(row_mask)
    num_rows = tf.size(rows)
    # A rollout of several environments overshoots its number of steps by a few: not worth a gradient step of their own.
    slack = size // _ROWS_PER_SPARE_ROW
    order = tf.pad(shuffled_rows(rows, num_epochs, seed), [[0, 0], [0, unused + size + slack]])
    needed = tf.maximum((num_rows - slack + size - 1) // size, 1)
    if count is None:
        return Minibatches(size + slack, is_padded, order, num_rows, needed)
    return Minibatches(size, is_padded, order, tf.minimum(num_rows, count * size), tf.convert_to_tensor(count))


def _rows_of_all(row_mask: Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Numbers of the rows to use, and how many are not used; of all replicas, in their order, -1 for others' rows."""
    rows = tf.cast(tf.where(row_mask)[:, 0], tf.int32)
    num_rows = tf.size(rows)
    unused = tf.size(row_mask) - num_rows
    if replicas.count() == 1:
        return rows, unused
    counts, unused = replicas.gathered(num_rows), replicas.total(unused)
    before = tf.reduce_sum(tf.where(tf.range(replicas.count()) < replicas.index(), counts, 0))
    after = tf.reduce_sum(counts) - before - num_rows
    return tf.pad(rows, [[before, after]], constant_values=-1), unused


def select_minibatch(batch: TrainingBatch, minibatches: Minibatches, index: Tensor) -> TrainingBatch:
    """Gathers the rows of one gradient step.

    Args:
        batch: all rows [B, T, ...].
        minibatches: the plan.
        index: number of the gradient step, counted over all epochs.

    Returns:
        The minibatch [size, T, ...], or with less rows; with several replicas, what this one has of it. Rows that only
        fill it up are copies of the others in turn, so that statistics over the rows of a minibatch are about those of
        the others; the mask is False there.
    """
    if minibatches.size is None:
        return batch
    epoch, number = index // minibatches.count, index % minibatches.count
    share, remainder = minibatches.num_rows // minibatches.count, minibatches.num_rows % minibatches.count
    start = number * share + tf.minimum(number, remainder)
    num_used = share + tf.cast(number < remainder, tf.int32)
    # Not tf.slice: XLA takes its bounds for constants and compiles again for every number of rows.
    places = tf.range(minibatches.size if minibatches.is_padded else num_used)
    rows = tf.gather(tf.gather(minibatches.order, epoch), start + places % tf.maximum(num_used, 1))
    counts = places < num_used
    if replicas.count() > 1:
        rows = tf.boolean_mask(rows, counts & (rows >= 0))
        # At least one, because there is no mean over none.
        counts = tf.range(tf.maximum(tf.size(rows), 1)) < tf.size(rows)
        rows = tf.pad(rows, [[0, tf.size(counts) - tf.size(rows)]])
    minibatch = tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), batch)
    return minibatch._replace(mask=minibatch.mask & counts[:, tf.newaxis])


def deal_out(
    batch: TrainingBatch,
    config: PPOConfig,
    seed: Tensor,
    *,
    is_recurrent: bool,
    capacity: Tensor | None = None,
    is_padded: bool = False,
    drops_remainder: bool = False,
    leaves_out_invalid: bool = False,
) -> tuple[TrainingBatch, Minibatches]:
    """Makes rows of a batch, and a plan of gradient steps from them.

    Args:
        batch: [B, T, ...].
        config: sizes of minibatches and sequences, number of epochs.
        seed: see `shuffled_rows`.
        is_recurrent: whether rows are sequences, otherwise they are single steps.
        capacity: rows, or steps of a row where whole rows are sequences, are padded to so many, so that a changing
            experience keeps its compiled shape.
        is_padded: see `Minibatches`.
        drops_remainder: whether it is that of the full minibatches which all rows would make, valid or not, as in
            TF-Agents' PPOLearner.
        leaves_out_invalid: whether single steps that do not count are taken out of a batch that is used as a whole.

    Returns:
        The rows and the plan.
    """
    size = config.minibatch_size
    present = rows_of(batch, config, is_recurrent=is_recurrent, leaves_out_invalid=leaves_out_invalid)
    if size is None:
        return present, whole_batch(config.num_epochs)
    rows = padded(present, config, capacity, is_recurrent=is_recurrent)
    count = tf.shape(present.mask)[0] // size if drops_remainder else None
    row_mask = tf.reduce_any(rows.mask, axis=1)
    return rows, make_minibatches(row_mask, size, config.num_epochs, seed, count, is_padded=is_padded)


def rows_of(batch: TrainingBatch, config: PPOConfig, *, is_recurrent: bool, leaves_out_invalid: bool) -> TrainingBatch:
    """What minibatches of a batch are made of: sequences or single steps; without minibatches as it is, or cut."""
    if is_recurrent:
        return batches.cut_into_sequences(batch, config.sequence_length)
    if config.minibatch_size is not None:
        return batches.flatten_time(batch)
    return batches.valid_steps(batch) if leaves_out_invalid else batch


def padded(rows: TrainingBatch, config: PPOConfig, capacity: Tensor | None, *, is_recurrent: bool) -> TrainingBatch:
    """Rows, or their steps where whole rows are sequences, padded to a capacity; see `deal_out`."""
    if capacity is None or config.minibatch_size is None:
        return rows
    pads_time = is_recurrent and config.sequence_length is None
    return batches.pad_rows(rows, axis=1 if pads_time else 0, size=capacity)
