"""The adaptive coefficient of the KL penalty (Schulman et al., 2017, https://arxiv.org/abs/1707.06347, section 4)."""

from __future__ import annotations

import tensorflow as tf

from ppo_agent.common.types import Tensor

FACTOR = 1.5
SMALLEST, LARGEST = 1e-15, 1e17


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
