"""Discounted returns, generalized advantage estimation and lambda-returns: pure functions of tensors.

All of them are one linear recurrence, y_t = b_t + a_t * y_{t+1}, run backwards in time. `discount_t` is what the value
of the next state counts for: gamma times the environment's discount, 0 where the recursion has to stop.
"""

from __future__ import annotations

import tensorflow as tf

from ppo_agent.common.types import Tensor
from ppo_agent.maths import masking


def _backward_recurrence(a_t: Tensor, b_t: Tensor, y_final: Tensor) -> tf.Tensor:
    """Solves y_t = b_t + a_t * y_{t+1} with y_T = y_final, shapes [B, T] and [B].

    Doubles the span that every element has summed over in each round (Hillis and Steele, 1986), so that it takes
    log2(T) vector operations: a loop over single steps costs more than the whole gradient update. What lies behind a
    coefficient of 0 has no influence, NaN included.
    """
    num_steps = tf.shape(a_t)[1]

    def shifted(tensor: tf.Tensor, by: tf.Tensor, fill: float) -> tf.Tensor:
        return tf.pad(tensor[:, by:], [[0, 0], [0, by]], constant_values=fill)

    def double(by: tf.Tensor, a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return 2 * by, a * shifted(a, by, 1.0), b + _multiply_no_nan(shifted(b, by, 0.0), a)

    shape = tf.TensorShape([None, None])
    _, a_t, b_t = tf.while_loop(
        lambda by, *_: by < num_steps,
        double,
        [tf.constant(1), a_t, b_t],
        shape_invariants=[tf.TensorShape([]), shape, shape],
    )
    return b_t + _multiply_no_nan(y_final[:, tf.newaxis], a_t)


def discounted_returns(rewards: Tensor, discounts: Tensor, final_value: Tensor) -> tf.Tensor:
    """Monte-Carlo returns, G_t = r_t + discount_t * G_{t+1} with G_T = final_value.

    Args:
        rewards: float32 r_t [B, T].
        discounts: float32 discount_t [B, T].
        final_value: float32 value of the state after the last step [B].

    Returns:
        float32 returns [B, T].
    """
    return tf.ensure_shape(_backward_recurrence(discounts, rewards, final_value), rewards.shape)


def generalized_advantages(rewards: Tensor, discounts: Tensor, values: Tensor, lambda_: Tensor) -> tf.Tensor:
    """Generalized advantage estimation (Schulman et al., 2016, https://arxiv.org/abs/1506.02438, equation 16).

    delta_t = r_t + discount_t * V(s_{t+1}) - V(s_t);  A_t = delta_t + lambda * discount_t * A_{t+1};  A_T = 0.

    Args:
        rewards: float32 r_t [B, T].
        discounts: float32 discount_t [B, T].
        values: float32 V(s_0) .. V(s_T) [B, T + 1]; the last one is the value of the final observation.
        lambda_: scalar in [0, 1].

    Returns:
        float32 advantages [B, T].
    """
    next_values = _multiply_no_nan(values[:, 1:], discounts)
    delta_t = rewards + next_values - values[:, :-1]
    advantages = _backward_recurrence(lambda_ * discounts, delta_t, tf.zeros_like(values[:, 0]))
    return tf.ensure_shape(advantages, rewards.shape)


def running_returns(rewards: Tensor, discount: Tensor, is_first: Tensor, counts: Tensor, before: Tensor) -> tf.Tensor:
    """Discounted sums of the rewards of an episode so far, R_t = r_t + discount * R_{t-1}.

    Their variance is what `VecNormalize` of OpenAI's baselines and its successors divide rewards by.

    Args:
        rewards: float32 r_t [B, T]; anything where a row does not count, NaN included.
        discount: gamma, a scalar.
        is_first: bool [B, T], True on the first step of an episode, where the sum begins anew.
        counts: bool [B, T], False on rows that are no transition, which leave the sum as it is.
        before: float32 R of the step before the first row [B].

    Returns:
        float32 [B, T].
    """
    kept = tf.where(is_first, 0.0, tf.where(counts, discount, 1.0))
    added = tf.where(counts, rewards, 0.0)
    backwards = _backward_recurrence(tf.reverse(kept, [1]), tf.reverse(added, [1]), before)
    return tf.ensure_shape(tf.reverse(backwards, [1]), rewards.shape)


def cut_at_episode_ends(
    rewards: Tensor, discounts: Tensor, values: Tensor, episode_end: Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes every episode's last transition end the recursion, with the value of a truncated end put into its reward.

    An episode that a time limit cut short (discount > 0) would have gone on from its final observation: its reward
    gains `discount_t * V(s_{t+1})` (Pardo et al., 2018, https://arxiv.org/abs/1712.00378). A terminal end
    (discount 0) gains nothing. Either way the next row belongs to another episode, so its discount becomes 0.

    Args:
        rewards: float32 r_t [B, T].
        discounts: float32 discount_t [B, T].
        values: float32 V(s_0) .. V(s_T) [B, T + 1]. Behind an episode's last transition stands its final observation.
        episode_end: bool [B, T], True on the last transition of an episode.

    Returns:
        Rewards and discounts [B, T] for `discounted_returns` and `generalized_advantages`.
    """
    bootstrap = tf.where(episode_end, _multiply_no_nan(values[:, 1:], discounts), tf.zeros_like(rewards))
    return rewards + bootstrap, tf.where(episode_end, tf.zeros_like(discounts), discounts)


def explained_variance(returns: Tensor, values: Tensor, mask: Tensor) -> tf.Tensor:
    """Share of the returns' variance that the value function explains: 1 - Var(returns - values) / Var(returns).

    Args:
        returns: float32 returns, any shape.
        values: float32 value predictions, same shape.
        mask: bool or float mask of the valid rows, same shape.

    Returns:
        A scalar: 1 for perfect predictions, 0 for a constant, negative for worse; NaN where the returns do not vary.
    """
    returns, values = tf.cast(returns, tf.float64), tf.cast(values, tf.float64)
    _, return_variance = masking.masked_moments(returns, mask)
    _, residual_variance = masking.masked_moments(returns - values, mask)
    share = tf.math.divide_no_nan(residual_variance, return_variance)
    # 1, and 0 / 0 where they do not vary: no constant that is NaN, at which `tf.debugging.enable_check_numerics` stops.
    return tf.cast((1.0 - share) * (return_variance / return_variance), tf.float32)


def _multiply_no_nan(values: Tensor, discounts: Tensor) -> tf.Tensor:
    """`discounts * values`, exactly 0 where the discount is 0, although what lies beyond the end may be NaN."""
    return tf.where(discounts == 0, 0.0, discounts * values)
