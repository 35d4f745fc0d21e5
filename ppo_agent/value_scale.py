"""Value targets of mean 0 and variance 1 for the value network, whatever the returns are (PopArt).

Hado van Hasselt et al., 2016, "Learning values across many orders of magnitude", https://arxiv.org/abs/1602.07714.
"""

from __future__ import annotations

import tensorflow as tf
from tf_agents.networks import network

from ppo_agent.common.types import Tensor
from ppo_agent.maths import masking

# The least share of a new experience in the moments; the first ones count equally.
_RATE = 0.1
_SMALLEST_STD = 1e-3


class ValueScale(tf.Module):
    """Mean and standard deviation of returns, by which a value network's output is scaled.

    Where they change, the last layer is changed the other way, so that every prediction stays what it was.
    """

    def __init__(self, layer: tf.keras.layers.Dense) -> None:
        """Takes the layer that the network's output comes from; it is left alone until the first update."""
        super().__init__(name="value_scale")
        self._kernel, self._bias = layer.kernel, layer.bias
        self._count, self._mean, self._variance = (
            tf.Variable(value, trainable=False, dtype=tf.float32, name=name)
            for name, value in (("count", 0.0), ("mean", 0.0), ("variance", 1.0))
        )

    @property
    def mean(self) -> tf.Tensor:
        """Mean of the returns, a scalar."""
        return self._mean.read_value()

    @property
    def std(self) -> tf.Tensor:
        """Their standard deviation, a scalar."""
        return tf.maximum(tf.sqrt(self._variance), _SMALLEST_STD)

    def denormalized(self, output: Tensor) -> tf.Tensor:
        """Values [...] of a network's output [...]."""
        return self.mean + self.std * output

    def update(self, returns: Tensor, mask: Tensor) -> None:
        """Takes the returns of an experience into the moments, an exponential average.

        Args:
            returns: float32 of any shape.
            mask: bool, same shape, True for those that count.
        """
        mask = mask & tf.math.is_finite(returns)
        mean, variance = masking.masked_moments(returns, mask)
        share = tf.where(tf.reduce_any(mask), tf.maximum(_RATE, 1.0 / (self._count + 1.0)), 0.0)
        before, distance = (self.mean, self.std), mean - self._mean
        self._variance.assign((1.0 - share) * (self._variance + share * distance**2) + share * variance)
        self._mean.assign_add(share * distance)
        self._count.assign_add(tf.cast(share > 0, tf.float32))
        self._bias.assign((self._bias * before[1] + before[0] - self.mean) / self.std)
        self._kernel.assign(self._kernel * before[1] / self.std)


def make_value_scale(value_net: network.Network) -> ValueScale:
    """The scale of a value network whose variables exist.

    Raises:
        ValueError: its output comes from no linear layer that can be told.
    """
    dense = [part for part in value_net.submodules if isinstance(part, tf.keras.layers.Dense)]
    linear = tf.keras.activations.linear
    last = [d for d in dense if d.units == 1 and d.use_bias and d.activation in (None, linear)]
    if len(last) != 1:
        raise ValueError(
            "normalize_value_targets is True, expected False with a value_net that has not exactly one linear layer of "
            f"one output and a bias; {value_net.name} has {len(last)}."
        )
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise ValueError("normalize_value_targets is True, expected False under a tf.distribute strategy.")
    return ValueScale(last[0])
