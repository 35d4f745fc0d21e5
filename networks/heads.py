"""From features to action distributions, one head for each leaf of the action spec.

A head maps features [N, F] to parameters [N, ...] and parameters to a distribution, in two steps, so that the
caller can reshape the parameters to [B, T, ...] in between. The distributions are the leanest of TensorFlow
Probability's that survive TF-Agents' round trip through a replay buffer: `Independent(Normal)` traces three times
faster than `MultivariateNormalDiag`, and has a third of its graph operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.specs import tensor_spec

from ppo_agent.common import action_masks
from ppo_agent.common.specs import num_categories

from . import action_distributions, initializers, masked_network

Parameters = dict[str, tf.Tensor]

# Keeps densities finite when a state-dependent standard deviation shrinks.
MIN_STD = 1e-4
# How many numbers the dtype of a squashed action needs between its bounds.
MIN_STEPS = 2**10
# What the layer of one discrete action may have as outputs.
MAX_LOGITS = 2**20


def make_heads(
    action_spec: Any,
    seeds: initializers.SeedSource,
    initial_log_std: float = 0.0,
    state_dependent_std: bool = False,
    squash: bool = False,
    mask_spec: tf.TypeSpec | None = None,
    gain: float = initializers.POLICY_GAIN,
) -> list[NormalHead | CategoricalHead]:
    """The heads for a nest of action specs, in tf.nest's order; arguments as of `ActorNetwork`.

    Raises:
        ValueError: for a spec that no head fits, or a mask that does not fit the actions, with the reason.
    """
    specs = tf.nest.flatten(action_spec)
    leaf_indices: Sequence[np.ndarray | None] = [None] * len(specs)
    for i, spec in enumerate(specs):
        _check_spec(spec, f"head_{i}")
    if mask_spec is not None:
        layout = action_masks.MaskLayout(action_spec)
        layout.check_spec(mask_spec)
        leaf_indices = layout.leaf_indices
    heads: list[NormalHead | CategoricalHead] = []
    for i, (spec, indices) in enumerate(zip(specs, leaf_indices, strict=True)):
        if spec.dtype.is_floating:
            heads.append(NormalHead(spec, initial_log_std, seeds(), f"head_{i}", state_dependent_std, squash, gain))
        else:
            heads.append(CategoricalHead(spec, seeds(), f"head_{i}", indices, gain))
    return heads


def _check_spec(spec: tf.TypeSpec, name: str) -> None:
    name = spec.name or name
    if not spec.shape.is_fully_defined():
        raise ValueError(f"action_spec: shape {spec.shape} of {name} must be fully defined.")
    if spec.shape.num_elements() == 0:
        raise ValueError(f"action_spec: shape {spec.shape} of {name} is empty, expected at least one component.")
    if spec.dtype.is_floating:
        return
    if not spec.dtype.is_integer:
        raise ValueError(f"action_spec: {name} has dtype {spec.dtype.name}, expected a float or integer.")
    if not tensor_spec.is_bounded(spec):
        raise ValueError(f"action_spec: integer action {name} has no bounds, expected some.")


class NormalHead(tf.keras.layers.Layer):
    """Independent normals for a float action of any shape, as they are or squashed to the action's bounds by tanh.

    The standard deviation, that before the squashing, is a trained variable, or with `state_dependent_std` softplus of
    an affine function of the features; `initial_log_std` is the natural logarithm of the first one.

    Raises:
        ValueError: if `squash` is set and the action has no finite bounds.
    """

    def __init__(
        self,
        spec: tf.TypeSpec,
        initial_log_std: float,
        seed: int,
        name: str,
        state_dependent_std: bool = False,
        squash: bool = False,
        gain: float = initializers.POLICY_GAIN,
    ) -> None:
        super().__init__(name=name)
        self.spec = spec
        self.bounds = _finite_bounds(spec, name) if squash else None
        self._initial_log_std = initial_log_std
        size = spec.shape.num_elements()
        self.mean_layer = initializers.dense(size, gain, seed, name="mean")
        self.std_layer = None
        if state_dependent_std:
            # softplus of this bias is the first standard deviation.
            bias = _inverse_softplus(max(math.exp(initial_log_std) - MIN_STD, MIN_STD))
            self.std_layer = initializers.dense(size, gain, seed + 1, name="std", bias=bias)

    def build(self, input_shape: Any) -> None:
        """Creates the standard deviation's variable if it does not depend on the features."""
        if self.std_layer is None:
            initializer = tf.keras.initializers.Constant(self._initial_log_std)
            self.log_std = self.add_weight("log_std", (self.mean_layer.units,), tf.float32, initializer=initializer)
        super().build(input_shape)

    def call(self, features: tf.Tensor) -> Parameters:
        """Returns `loc` and `scale`, each [N, *action shape], of features [N, F]."""
        loc = self.mean_layer(features)
        if self.std_layer is None:
            scale = tf.broadcast_to(tf.exp(self.log_std), tf.shape(loc))
        else:
            scale = tf.nn.softplus(self.std_layer(features)) + MIN_STD
        return {"loc": self._to_action(loc), "scale": self._to_action(scale)}

    def _to_action(self, flat: tf.Tensor) -> tf.Tensor:
        shaped = flat if self.spec.shape.rank == 1 else tf.reshape(flat, [-1, *self.spec.shape])
        return tf.cast(shaped, self.spec.dtype)

    def distribution(self, parameters: Parameters) -> tfp.distributions.Distribution:
        """Returns the distribution with the action's shape as event shape."""
        if self.bounds is None:
            normal = tfp.distributions.Normal(**parameters)
        else:
            normal = action_distributions.SquashedNormal(**parameters, low=self.bounds[0], high=self.bounds[1])
        return _to_event(normal, self.spec.shape.rank)


def _finite_bounds(spec: tf.TypeSpec, name: str) -> tuple[Any, Any]:
    """Lower and upper bound: numbers, or nested tuples where they differ, comparable with ==.

    Raises:
        ValueError: if there are none, or they leave no range.
    """
    name = spec.name or name
    if not tensor_spec.is_bounded(spec):
        raise ValueError(f"squash: action {name} has no bounds, expected finite ones to squash it to.")
    dtype = spec.dtype.as_numpy_dtype
    low, high = (np.broadcast_to(bound, spec.shape.as_list()).astype(dtype) for bound in (spec.minimum, spec.maximum))
    # TF-Agents writes "unbounded" as the largest numbers of the dtype; the range overflows even where they are halved.
    with np.errstate(over="ignore", invalid="ignore"):
        extent = high - low
    limit = np.finfo(dtype).max / 2
    if not (np.isfinite(extent).all() and (np.abs(low) < limit).all() and (np.abs(high) < limit).all()):
        raise ValueError(
            f"squash: action {name} has bounds {spec.minimum} to {spec.maximum}, expected finite ones to squash it to."
        )
    if (extent <= 0).any():
        raise ValueError(f"squash: action {name} has maximum {spec.maximum} not above minimum {spec.minimum}.")
    if (action_distributions.num_steps(low, high) < MIN_STEPS).any():
        raise ValueError(
            f"squash: action {name} has bounds {spec.minimum} to {spec.maximum}, expected at least {MIN_STEPS} "
            f"{spec.dtype.name} numbers between them; shift or scale the action in the environment."
        )
    return _to_parameter(low), _to_parameter(high)


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))


class CategoricalHead(tf.keras.layers.Layer):
    """One categorical for every component of a bounded integer action, each with a number of categories of its own.

    The components are one batched categorical. Components with fewer categories than the largest are padded with
    categories of probability zero. `mask_indices` tells where they stand in the mask, see `action_masks.MaskLayout`.

    Raises:
        ValueError: if a maximum lies below its minimum, or there are more than `MAX_LOGITS` categories.
    """

    def __init__(
        self,
        spec: tensor_spec.BoundedTensorSpec,
        seed: int,
        name: str,
        mask_indices: np.ndarray | None = None,
        gain: float = initializers.POLICY_GAIN,
    ) -> None:
        super().__init__(name=name)
        self.spec = spec
        self.num_categories = num_categories(spec)
        _check_categories(spec, self.num_categories, spec.name or name)
        self.minimum = np.broadcast_to(spec.minimum, spec.shape.as_list()).astype(np.int64)
        self.logits_shape = (*self.num_categories.shape, int(self.num_categories.max()))
        self.possible = np.arange(self.logits_shape[-1]) < self.num_categories[..., np.newaxis]
        self.mask_indices = mask_indices
        self.logits_layer = initializers.dense(int(np.prod(self.logits_shape)), gain, seed, name="logits")

    def call(self, features: tf.Tensor, action_mask: tf.Tensor | None = None) -> Parameters:
        """Returns `logits` [N, *action shape, most categories] of features [N, F] and a mask, bool [N, size]."""
        logits = self.logits_layer(features)
        if len(self.logits_shape) > 1:
            logits = tf.reshape(logits, [-1, *self.logits_shape])
        if action_mask is not None and self.mask_indices is not None:
            allowed = action_masks.gather(action_mask, self.mask_indices)
            logits = tf.where(allowed, logits, masked_network.impossible_logits(self.possible))
        elif not self.possible.all():
            logits = tf.where(self.possible, logits, masked_network.IMPOSSIBLE_LOGIT)
        return {"logits": logits}

    def distribution(self, parameters: Parameters) -> tfp.distributions.Distribution:
        """Returns the distribution with the action's shape as event shape."""
        return _to_event(self._categorical(parameters["logits"]), self.spec.shape.rank)

    def _categorical(self, logits: tf.Tensor) -> tfp.distributions.Distribution:
        if not self.minimum.any() and self.spec.dtype in (tf.int32, tf.int64):
            return tfp.distributions.Categorical(logits=logits, dtype=self.spec.dtype)
        return action_distributions.OffsetCategorical(logits, _to_tuples(self.minimum.tolist()), self.spec.dtype)


def _check_categories(spec: tensor_spec.BoundedTensorSpec, counts: np.ndarray, name: str) -> None:
    if (counts < 1).any():
        raise ValueError(f"action_spec: {name} has maximum {spec.maximum} below minimum {spec.minimum}.")
    if int(counts.max()) * counts.size > MAX_LOGITS:
        raise ValueError(
            f"action_spec: {name} has values from {spec.minimum} to {spec.maximum}, expected at most {MAX_LOGITS} in "
            "all: a discrete action takes one output of the network for each."
        )


def _to_event(distribution: tfp.distributions.Distribution, rank: int) -> tfp.distributions.Distribution:
    """Declares the last `rank` batch dimensions to be one event."""
    return tfp.distributions.Independent(distribution, reinterpreted_batch_ndims=rank) if rank else distribution


def _to_parameter(value: np.ndarray) -> Any:
    """One number if all are equal, else nested tuples."""
    return float(value.flat[0]) if (value == value.flat[0]).all() else _to_tuples(value.tolist())


def _to_tuples(value: Any) -> Any:
    """Nested tuples of nested lists, because the parameters of a distribution must be comparable with ==."""
    return tuple(_to_tuples(item) for item in value) if isinstance(value, list) else value
