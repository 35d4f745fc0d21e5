"""From features to action distributions, one head for each leaf of the action spec.

A head maps features [N, F] to parameters [N, ...] and parameters to a distribution, in two steps, so that the
caller can reshape the parameters to [B, T, ...] in between. The distributions are the leanest of TensorFlow
Probability's that survive TF-Agents' round trip through a replay buffer: `Independent(Normal)` traces three times
faster than `MultivariateNormalDiag`, and has a third of its graph operations.
"""

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.specs import tensor_spec

from ppo_agent.networks import distributions, initializers

# Logit of an impossible category. Its probability is exactly 0 in float32, while its log-probability, and with it
# the entropy, the KL divergence and their gradients, stays finite, which minus infinity would not give.
IMPOSSIBLE_LOGIT = -1e9

Parameters = dict[str, tf.Tensor]


def make_head(
    spec: tensor_spec.BoundedTensorSpec, initial_log_std: float, seed: int, name: str
) -> "NormalHead | CategoricalHead":
    """The head for one action leaf: normal for floating-point actions, categorical for bounded integers.

    Raises:
        ValueError: for a spec that no head fits, with the reason.
    """
    if not spec.shape.is_fully_defined():
        raise ValueError(f"action_spec: shape {spec.shape} of {spec.name or name} must be fully defined.")
    if spec.dtype.is_floating:
        return NormalHead(spec, initial_log_std, seed, name)
    if not spec.dtype.is_integer:
        raise ValueError(f"action_spec: {spec.name or name} has dtype {spec.dtype.name}, expected a float or integer.")
    if not tensor_spec.is_bounded(spec):
        raise ValueError(f"action_spec: integer action {spec.name or name} has no bounds, expected some.")
    return CategoricalHead(spec, seed, name)


class NormalHead(tf.keras.layers.Layer):
    """Independent normals, the standard deviation a trained variable that does not depend on the observation.

    Args:
        spec: float action of any shape.
        initial_log_std: natural logarithm of the first standard deviation.
        seed: of the kernel.
        name: of the layer.
    """

    def __init__(self, spec: tf.TypeSpec, initial_log_std: float, seed: int, name: str) -> None:
        super().__init__(name=name)
        self.spec = spec
        size = int(np.prod(spec.shape.as_list()))
        self.mean_layer = initializers.dense(size, initializers.POLICY_GAIN, seed, name="mean")
        self.log_std = self.add_weight(
            "log_std", (size,), tf.float32, initializer=tf.keras.initializers.Constant(initial_log_std)
        )

    def call(self, features: tf.Tensor) -> Parameters:
        """Returns `loc` and `scale`, each [N, *action shape], of features [N, F]."""
        loc = self.mean_layer(features)
        scale = tf.broadcast_to(tf.exp(self.log_std), tf.shape(loc))
        return {"loc": self._to_action(loc), "scale": self._to_action(scale)}

    def _to_action(self, flat: tf.Tensor) -> tf.Tensor:
        shaped = flat if self.spec.shape.rank == 1 else tf.reshape(flat, [-1, *self.spec.shape])
        return tf.cast(shaped, self.spec.dtype)

    def distribution(self, parameters: Parameters) -> tfp.distributions.Distribution:
        """Returns the distribution with the action's shape as event shape."""
        return _to_event(tfp.distributions.Normal(**parameters), self.spec.shape.rank)


class CategoricalHead(tf.keras.layers.Layer):
    """One categorical for every component of an integer action, each with a number of categories of its own.

    The components are one batched categorical. Components with fewer categories than the largest are padded with
    categories of probability zero.

    Args:
        spec: bounded integer action of any shape.
        seed: of the kernel.
        name: of the layer.

    Raises:
        ValueError: if a maximum lies below its minimum.
    """

    def __init__(self, spec: tensor_spec.BoundedTensorSpec, seed: int, name: str) -> None:
        super().__init__(name=name)
        self.spec = spec
        self.minimum = np.broadcast_to(spec.minimum, spec.shape.as_list()).astype(np.int64)
        self.num_categories = np.broadcast_to(spec.maximum, spec.shape.as_list()).astype(np.int64) - self.minimum + 1
        if np.any(self.num_categories < 1):
            raise ValueError(
                f"action_spec: {spec.name or name} has maximum {spec.maximum} below minimum {spec.minimum}."
            )
        self.logits_shape = (*self.num_categories.shape, int(self.num_categories.max()))
        self.possible = np.arange(self.logits_shape[-1]) < self.num_categories[..., np.newaxis]
        self.logits_layer = initializers.dense(
            int(np.prod(self.logits_shape)), initializers.POLICY_GAIN, seed, name="logits"
        )

    def call(self, features: tf.Tensor) -> Parameters:
        """Returns `logits` [N, *action shape, largest number of categories] of features [N, F]."""
        logits = self.logits_layer(features)
        if len(self.logits_shape) > 1:
            logits = tf.reshape(logits, [-1, *self.logits_shape])
        if not self.possible.all():
            logits = tf.where(self.possible, logits, IMPOSSIBLE_LOGIT)
        return {"logits": logits}

    def distribution(self, parameters: Parameters) -> tfp.distributions.Distribution:
        """Returns the distribution with the action's shape as event shape."""
        return _to_event(self._categorical(parameters["logits"]), self.spec.shape.rank)

    def _categorical(self, logits: tf.Tensor) -> tfp.distributions.Distribution:
        if not self.minimum.any():
            return tfp.distributions.Categorical(logits=logits, dtype=self.spec.dtype)
        # Nested tuples, because the parameters of a distribution must be comparable with ==.
        return distributions.OffsetCategorical(logits, _to_tuples(self.minimum.tolist()), self.spec.dtype)


def _to_event(distribution: tfp.distributions.Distribution, rank: int) -> tfp.distributions.Distribution:
    """Declares the last `rank` batch dimensions to be one event."""
    return tfp.distributions.Independent(distribution, reinterpreted_batch_ndims=rank) if rank else distribution


def _to_tuples(value: Any) -> Any:
    return tuple(_to_tuples(item) for item in value) if isinstance(value, list) else value
