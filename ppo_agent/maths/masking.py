"""Which rows of an experience count, and moments over just those rows; under a tf.distribute strategy, of all replicas.

Rows follow TF-Agents' `Trajectory`: a *boundary row* (step type LAST, next step type FIRST) lies between two
episodes and holds the final observation of the first. Only a *transition*, a row whose action was carried out in the
environment, may reach a loss, its gradient, a statistic of rewards or of advantages.
"""

from __future__ import annotations

import tensorflow as tf
from tf_agents.trajectories import StepType

from ppo_agent.common import replicas
from ppo_agent.common.types import Nest, Tensor


def transition_mask(step_type: Tensor, next_step_type: Tensor) -> tf.Tensor:
    """Tells transitions from boundary and padding rows.

    Args:
        step_type: int32 step types, any shape.
        next_step_type: int32 step types that followed, same shape.

    Returns:
        A bool tensor of the same shape: False for boundary rows, for rows that no action led out of (next step type
        FIRST: zero padding, bootstrap rows), True elsewhere.
    """
    return (step_type != StepType.LAST) & (next_step_type != StepType.FIRST)


def observation_mask(step_type: Tensor, next_step_type: Tensor) -> tf.Tensor:
    """Tells rows that hold an observation of the environment from padding.

    The final observation of an episode stands in its boundary row and counts. A second boundary row in succession, and
    a first step that is followed by another first step, cannot come from an environment: that is padding.

    Args:
        step_type: int32 step types [B, T].
        next_step_type: int32 step types that followed [B, T].

    Returns:
        A bool tensor [B, T].
    """
    last = step_type == StepType.LAST
    previous_last = tf.pad(last, [[0, 0], [1, 0]])[:, :-1]
    zero_padding = (step_type == StepType.FIRST) & (next_step_type == StepType.FIRST)
    return ~((last & previous_last) | zero_padding)


def finite_rows(nest: Nest) -> tf.Tensor:
    """Tells rows without NaN and infinity.

    Args:
        nest: tensors [B, T, ...].

    Returns:
        A bool tensor [B, T].
    """

    def finite(tensor: tf.Tensor) -> tf.Tensor:
        if not tensor.dtype.is_floating:
            return tf.ones(tf.shape(tensor)[:2], tf.bool)
        return tf.reduce_all(tf.math.is_finite(tensor), axis=list(range(2, tensor.shape.rank)))

    return tf.reduce_all(tf.stack([finite(tensor) for tensor in tf.nest.flatten(nest)]), axis=0)


def balanced_weights(mask: Tensor) -> tf.Tensor:
    """Scales a mask so that a mean over all rows equals the mean over the valid rows.

    Args:
        mask: bool or float mask of any shape, N entries.

    Returns:
        float32 `mask * N / sum(mask)`, same shape; zeros where no row is valid. With several replicas, the mean over
        them of such means is that over the valid rows of all: N / sum(mask) is number of replicas * N / sum over all.
    """
    mask = tf.cast(mask, tf.float32)
    if replicas.count() == 1:
        return tf.math.divide_no_nan(mask, tf.reduce_mean(mask))
    num_rows = tf.cast(tf.size(mask), tf.float32)
    return tf.math.divide_no_nan(mask * num_rows, replicas.mean(tf.reduce_sum(mask)))


def masked_mean(values: Tensor, mask: Tensor) -> tf.Tensor:
    """Mean over the valid rows, exact where they are all equal.

    Args:
        values: float tensor of any shape; invalid entries may be anything, NaN included.
        mask: bool or float mask of the same shape.

    Returns:
        A scalar; 0 where no row is valid.
    """
    mean, _, _ = _moments_and_deviations(values, mask)
    return tf.cast(mean, tf.convert_to_tensor(values).dtype)


def mean_of_valid(values: Tensor, mask: Tensor) -> tf.Tensor:
    """`masked_mean` in half the operations, for values near zero, as metrics of every gradient step are.

    Args:
        values: float tensor of any shape; invalid entries may be anything, NaN included.
        mask: bool or float mask of the same shape.

    Returns:
        A scalar; 0 where no row is valid.
    """
    return _sum_over_count(tf.where(tf.cast(mask, tf.bool), values, tf.zeros_like(values)), mask)


def masked_moments(values: Tensor, mask: Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and (population) variance over the valid rows; of equal rows exactly their value and 0.

    Args:
        values: float tensor of any shape; invalid entries may be anything, NaN included.
        mask: bool or float mask of the same shape.

    Returns:
        Two scalars, mean and variance; zeros where no row is valid.
    """
    mean, _, variance = _moments_and_deviations(values, mask)
    dtype = tf.convert_to_tensor(values).dtype
    return tf.cast(mean, dtype), tf.cast(variance, dtype)


def normalize_advantages(advantages: Tensor, mask: Tensor, variance_epsilon: float = 1e-8) -> tf.Tensor:
    """Brings advantages to mean 0 and variance 1 over the valid rows; equal ones, of whatever size, to exactly 0.

    Args:
        advantages: float32 advantages of any shape.
        mask: bool or float mask of the same shape.
        variance_epsilon: added to the variance before its root is taken.

    Returns:
        `(advantages - mean) / sqrt(variance + epsilon)`, same shape, 0 in invalid rows.
    """
    _, deviations, variance = _moments_and_deviations(advantages, mask)
    normalized = deviations * tf.math.rsqrt(variance + variance_epsilon)
    return tf.cast(normalized, tf.convert_to_tensor(advantages).dtype)


def _moments_and_deviations(values: Tensor, mask: Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The mean of the valid rows, each row's distance from it, 0 in invalid rows, and the variance.

    In float64: a sum of float32 numbers far from zero loses more than their distances from each other, and their
    squares can be infinite. The sum of equal float32 numbers is exact there, so that their mean is exactly their value.
    """
    values, valid = tf.cast(values, tf.float64), tf.cast(mask, tf.bool)
    values = tf.where(valid, values, tf.zeros_like(values))
    count = tf.reduce_sum(tf.cast(valid, tf.float64))
    mean = tf.reduce_sum(values) / tf.maximum(count, 1.0)
    deviations = tf.where(valid, values - mean, tf.zeros_like(values))
    variance = tf.reduce_sum(tf.square(deviations)) / tf.maximum(count, 1.0)
    if replicas.count() > 1:
        mean, variance = _pooled(*tf.unstack(replicas.gathered(tf.stack([count, mean, variance])), axis=1))
        deviations = tf.where(valid, values - mean, tf.zeros_like(values))
    return mean, deviations, variance


def _pooled(counts: Tensor, means: Tensor, variances: Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of all replicas' rows, from the count, mean and variance of each replica's [R]."""
    total = tf.maximum(tf.reduce_sum(counts), 1.0)
    mean = tf.reduce_sum(counts * means) / total
    return mean, tf.reduce_sum(counts * (variances + tf.square(means - mean))) / total


def _sum_over_count(values: tf.Tensor, mask: Tensor) -> tf.Tensor:
    """Sum of all entries over the number of valid rows, 0 where there is none."""
    return _sum_over(*replicas.total((tf.reduce_sum(values), _count(mask))))


def _count(mask: Tensor) -> tf.Tensor:
    # In float32, as `balanced_weights` counts: XLA makes one operation of the two.
    return tf.reduce_sum(tf.cast(tf.cast(mask, tf.bool), tf.float32))


def _sum_over(total: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return total / tf.cast(tf.maximum(count, 1.0), total.dtype)


def replace_invalid_rows(nest: Nest, mask: Tensor) -> Nest:
    """Overwrites invalid rows with copies of the valid ones in turn, so that nothing in them can reach a gradient.

    A replica without a valid row takes another replica's.

    Zeros would not do: a standard deviation of 0 makes a log-probability infinite, and infinite times a weight of 0
    is NaN. Taken in turn, no row has a larger part in a mean over all of them than another, but for a remainder.

    Args:
        nest: tensors [B, T, ...].
        mask: bool mask [B, T].

    Returns:
        The same structure and shapes; without a valid row, copies of the first one.
    """
    shape, source = tf.shape(mask), _rows_in_turn(tf.reshape(mask, [-1]))

    def replace(tensor: tf.Tensor) -> tf.Tensor:
        replaced = tf.gather(tf.reshape(tensor, [-1, *tensor.shape[2:]]), source)
        return tf.ensure_shape(tf.reshape(replaced, tf.concat([shape, tensor.shape[2:]], axis=0)), tensor.shape)

    replaced = tf.nest.map_structure(replace, nest)
    return replaced if replicas.count() == 1 else _of_others_if_none(replaced, tf.reduce_any(mask))


def _of_others_if_none(nest: Nest, is_any: tf.Tensor) -> Nest:
    """All rows a copy of another replica's first row, unless there is a valid row here."""
    first = tf.nest.map_structure(lambda tensor: tf.convert_to_tensor(tensor)[0, 0], nest)
    other = replicas.from_any(first, is_any)
    return tf.nest.map_structure(lambda own, row: tf.where(is_any, own, row), nest, other)


def _rows_in_turn(mask: tf.Tensor) -> tf.Tensor:
    """Numbers of rows, int32 [n]: its own for each valid row of a mask [n], those of valid rows in turn for others."""
    rows, valid = tf.range(tf.size(mask)), tf.cast(mask, tf.int32)
    # The valid rows first, without the dynamic shape that XLA does not have.
    places = tf.where(mask, tf.cumsum(valid) - 1, -1)
    valid_rows = tf.math.unsorted_segment_sum(rows, places, tf.size(mask))
    turns = tf.cumsum(1 - valid, exclusive=True) % tf.maximum(tf.reduce_sum(valid), 1)
    return tf.where(mask, rows, tf.gather(valid_rows, turns))
