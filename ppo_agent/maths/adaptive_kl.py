"""What is adapted to how far an update moves the policy: the KL penalty's coefficient, the learning rate.

The coefficient is that of Schulman et al., 2017, https://arxiv.org/abs/1707.06347, section 4.
"""

from __future__ import annotations

import tensorflow as tf

from ppo_agent.common.types import Tensor

FACTOR = 1.5
SMALLEST, LARGEST = 1e-15, 1e17
SLOWEST, FASTEST = 1e-6, 1e-2


def update_factor(mean_kl: Tensor, target: float, tolerance: float) -> tf.Tensor:
    """What beta is multiplied by after an update of the policy.

    Args:
        mean_kl: scalar mean KL(old || new), in nats.
        target: desired KL, in nats.
        tolerance: relative width of the band around the target in which beta stays as it is.

    Returns:
        A scalar: 1.5 where the policy moved too far, 1 / 1.5 where it moved too little, else 1.
    """
    too_far = mean_kl > target * (1.0 + tolerance)
    too_little = mean_kl < target * (1.0 - tolerance)
    return tf.where(too_far, FACTOR, tf.where(too_little, 1.0 / FACTOR, 1.0))


def updated_beta(beta: Tensor, factor: Tensor) -> tf.Tensor:
    """Beta times the factor, kept within [1e-15, 1e17] so that it can always come back."""
    return tf.clip_by_value(beta * factor, SMALLEST, LARGEST)


def adapted_learning_rate(rate: Tensor, mean_kl: Tensor, target: float) -> tf.Tensor:
    """A learning rate for the next update: the rule of rl_games and skrl.

    Args:
        rate: scalar learning rate of the update that was made.
        mean_kl: scalar mean KL(old || new) over its gradient steps, in nats.
        target: desired KL, in nats.

    Returns:
        A scalar: the rate over 1.5 where the KL is above twice its target, times 1.5 where it is below half of it, kept
        within [1e-6, 1e-2]; else the rate as it is, as where the KL is not finite.
    """
    slower, faster = tf.maximum(rate / FACTOR, SLOWEST), tf.minimum(rate * FACTOR, FASTEST)
    return tf.where(mean_kl > 2.0 * target, slower, tf.where(mean_kl < 0.5 * target, faster, rate))
