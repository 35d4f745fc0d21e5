"""The terms of the PPO objective as pure functions: per-step losses, and scalars made of them.

Shapes are written [...]: any number of batch dimensions, usually [B, T]. Every per-step loss is meant for a weighted
mean; masks and importance weights are applied there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import tensorflow as tf

from ppo_agent.common.types import Tensor

# Beyond any clip; its exponential, 5e34, is finite in float32.
LARGEST_LOG_RATIO = 80.0


class SurrogateMetrics(NamedTuple):
    """What the surrogate loss is made of, per step.

    Attributes:
        importance_ratio: pi_new(a|s) / pi_old(a|s) [...].
        clipped_ratio: the ratio within [1 - epsilon, 1 + epsilon] [...].
        objective: ratio times advantage [...].
        clipped_objective: clipped ratio times advantage [...].
    """

    importance_ratio: tf.Tensor
    clipped_ratio: tf.Tensor
    objective: tf.Tensor
    clipped_objective: tf.Tensor


def surrogate_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clipping: Tensor | None, dual_clipping: float = 0.0
) -> tuple[tf.Tensor, SurrogateMetrics]:
    """Negative clipped surrogate objective (Schulman et al., 2017, https://arxiv.org/abs/1707.06347, equation 7).

    L_t = -min(ratio_t * A_t, clip(ratio_t, 1 - epsilon, 1 + epsilon) * A_t); without clipping -ratio_t * A_t. With dual
    clipping c (Ye et al., 2020, https://arxiv.org/abs/1912.09729) at most -c * A_t where A_t < 0.

    Where the loss is constant (beyond the clip with a positive advantage, and with an advantage of 0), so is the ratio
    from `LARGEST_LOG_RATIO` on: an infinite one would turn a gradient of 0 into NaN. A negative advantage pushes back
    from any ratio, an infinite one included, unless dual clipping bounds it.

    Args:
        log_probs: log-probabilities of the actions under the current policy [...].
        old_log_probs: the same under the policy that collected them [...].
        advantages: advantages A_t [...].
        clipping: epsilon, a number or a scalar; None turns clipping off.
        dual_clipping: c, above 1; 0 turns it off.

    Returns:
        Per-step loss [...] and its parts.
    """
    log_ratio, advantages = tf.convert_to_tensor(log_probs - old_log_probs), tf.convert_to_tensor(advantages)
    is_constant = advantages == 0 if clipping is None else advantages >= 0
    is_constant |= dual_clipping > 0
    ratio = tf.exp(tf.where(is_constant, tf.minimum(log_ratio, LARGEST_LOG_RATIO), log_ratio))
    clipped_ratio = ratio if clipping is None else tf.clip_by_value(ratio, 1.0 - clipping, 1.0 + clipping)
    objective = ratio * advantages
    clipped_objective = clipped_ratio * advantages
    metrics = SurrogateMetrics(ratio, clipped_ratio, objective, clipped_objective)
    least = tf.minimum(objective, clipped_objective)
    if dual_clipping > 0:
        least = tf.where(advantages < 0, tf.maximum(least, dual_clipping * advantages), least)
    return -least, metrics


def clipped(importance_ratio: Tensor, clipping: Tensor) -> tf.Tensor:
    """Tells (1.0 or 0.0) where the ratio lies outside [1 - clipping, 1 + clipping], shape [...]."""
    return tf.cast(tf.abs(importance_ratio - 1.0) > clipping, tf.float32)


def approximate_kl(log_probs: Tensor, old_log_probs: Tensor) -> tf.Tensor:
    """Per-sample estimate of KL(old || new), low in variance and never negative: (ratio - 1) - log(ratio).

    John Schulman, "Approximating KL divergence" (2020), estimator k3, for samples of the old policy.

    Args:
        log_probs: log-probabilities under the new policy [...].
        old_log_probs: log-probabilities under the old policy [...].

    Returns:
        Estimates [...].
    """
    log_ratio = tf.convert_to_tensor(log_probs - old_log_probs)
    # Where the ratio is infinite its logarithm does not matter; subtracted from it, it could make NaN.
    subtracted = tf.where(log_ratio > LARGEST_LOG_RATIO, tf.zeros_like(log_ratio), log_ratio)
    return tf.math.expm1(log_ratio) - subtracted


def value_loss(values: Tensor, returns: Tensor, old_values: Tensor | None = None, clipping: Tensor = 0.0) -> tf.Tensor:
    """Squared error of the value predictions, optionally the worse of clipped and unclipped predictions.

    L_t = (G_t - V_t)^2, or with clipping max of that and (G_t - (V_old_t + clip(V_t - V_old_t, -c, c)))^2.

    Args:
        values: current predictions V_t [...].
        returns: targets G_t [...].
        old_values: predictions when the data was collected [...]; needed with clipping.
        clipping: c, a number or a scalar; the number 0 turns clipping off.

    Returns:
        Per-step loss [...].

    Raises:
        ValueError: clipping without old_values.
    """
    error = tf.math.squared_difference(returns, values)
    if isinstance(clipping, (int, float)) and clipping <= 0:
        return error
    if old_values is None:
        raise ValueError("old_value_predictions is None, but value_clipping needs the predictions of the old values.")
    clipped_values = old_values + tf.clip_by_value(values - old_values, -clipping, clipping)
    return tf.maximum(error, tf.math.squared_difference(returns, clipped_values))


def weighted_mean(per_step_loss: Tensor, weights: Tensor) -> tf.Tensor:
    """Mean over all entries of `per_step_loss * weights`: a scalar."""
    return tf.reduce_mean(per_step_loss * weights)


def kl_cutoff_loss(mean_kl: Tensor, cutoff: float, coefficient: float) -> tf.Tensor:
    """Squared penalty on a mean KL divergence beyond a threshold: coefficient * max(mean_kl - cutoff, 0)^2.

    Args:
        mean_kl: scalar mean KL(old || new).
        cutoff: threshold, in nats.
        coefficient: factor of the square.

    Returns:
        A scalar.
    """
    return coefficient * tf.square(tf.maximum(mean_kl - cutoff, 0.0))


def l2_loss(variables: Iterable[tf.Variable], coefficient: float) -> tf.Tensor:
    """Weight decay: coefficient * sum of squares of all entries of all variables, a scalar."""
    squares = [tf.reduce_sum(tf.square(variable)) for variable in variables]
    return coefficient * tf.add_n(squares) if squares else tf.constant(0.0)
