"""Value targets of mean 0 and variance 1 for the value network, whatever the returns are (PopArt).

Hado van Hasselt et al., 2016, "Learning values across many orders of magnitude", https://arxiv.org/abs/1602.07714.
"""

from __future__ import annotations

import tensorflow as tf
from tf_agents.networks import network

from ppo_agent.common import replicas
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
        return _std(self._variance)

    def denormalized(self, output: Tensor) -> tf.Tensor:
        """Values [...] of a network's output [...]."""
        return self.mean + self.std * output

    def update(self, returns: Tensor, mask: Tensor) -> None:
        """Takes the returns of an experience into the moments, an exponential average.

        Under a tf.distribute strategy, the returns of all replicas.

        Args:
            returns: float32 of any shape.
            mask: bool, same shape, True for those that count.
        """
        mask = mask & tf.math.is_finite(returns)
        is_any = replicas.total(tf.reduce_sum(tf.cast(mask, tf.float32))) > 0
        share = tf.where(is_any, tf.maximum(_RATE, 1.0 / (self._count + 1.0)), 0.0)
        mean, variance = self._averaged(returns, mask, tf.cast(share, tf.float64))
        # Squares of finite returns can be too large for the variable, and would stay in it.
        is_taken = (share > 0) & tf.math.is_finite(variance)
        self._move_to(tf.where(is_taken, mean, self._mean), tf.where(is_taken, variance, self._variance))
        replicas.assign(self._count, self._count + tf.cast(is_taken, tf.float32))

    def _averaged(self, returns: Tensor, mask: Tensor, share: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The moments with those of an experience in them, computed in float64, of which `share` has its part."""
        new_mean, new_variance = masking.masked_moments(tf.cast(returns, tf.float64), mask)
        mean, variance = tf.cast(self._mean, tf.float64), tf.cast(self._variance, tf.float64)
        distance = new_mean - mean
        variance = (1.0 - share) * (variance + share * distance**2) + share * new_variance
        return tf.cast(mean + share * distance, tf.float32), tf.cast(variance, tf.float32)

    def _move_to(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Changes the moments, and the layer the other way."""
        std = _std(variance)
        bias, kernel = (self._bias * self.std + self.mean - mean) / std, self._kernel * self.std / std
        pairs = ((self._bias, bias), (self._kernel, kernel), (self._mean, mean), (self._variance, variance))
        for variable, value in pairs:
            replicas.assign(variable, value)


def _std(variance: Tensor) -> tf.Tensor:
    return tf.maximum(tf.sqrt(variance), _SMALLEST_STD)


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
    return ValueScale(last[0])
