"""Streaming normalisation of observations and rewards."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.utils import common, tensor_normalizer

from ppo_agent.common import action_masks, replicas
from ppo_agent.common.nest_checks import NestCheck
from ppo_agent.common.specs import as_float
from ppo_agent.common.types import Nest

_EXACT_IN_FLOAT32 = (
    tf.float32, tf.float16, tf.bfloat16, tf.bool, tf.int8, tf.uint8, tf.int16, tf.uint16,
)  # fmt: skip

# Float64 does not hold each of their values.
_LONG = (tf.int64, tf.uint64)
# Differences up to it are in the range of int64, also where float64 rounds them.
_LARGEST_DIFFERENCE = 2.0**62
# The largest numbers of their ranges that float64 holds.
_RANGES = {tf.int64: (-(2.0**63), 2.0**63 - 2.0**10), tf.uint64: (0.0, 2.0**64 - 2.0**11)}


class StreamingNormalizer(tensor_normalizer.StreamingTensorNormalizer):
    """TF-Agents' normaliser by the mean and variance of all it has seen, for any dtype and any number of rows.

    Integers (counts) are normalised to float32 instead of being rounded back to integers, and an update with no rows
    changes nothing instead of making the statistics NaN. Each component of a leaf has statistics of its own: entries
    that are NaN or infinite are left out, and so are updates that float32 cannot hold, without touching the others.

    The statistics are exact for numbers far from zero, such as time stamps: sums are made in float64, what float32
    rounds off the mean is kept in a variable of its own, and the mean is subtracted before a number is rounded to
    float32. The reference's first count of 1e-8 counts as an observation of the mean, not of zero: (1e9)^2 * 1e-8 would
    be the greater part of the variance of time stamps.

    Attributes:
        normalizes: a bool for every leaf, in tf.nest's order; a leaf with False has no statistics and stays as it is.
    """

    def __init__(
        self, spec: Nest, scope: str = "normalize_tensor", *, normalizes: Sequence[bool] | None = None
    ) -> None:
        """Creates the statistics.

        Args:
            spec: nest of TensorSpecs of single entries, without batch dimensions.
            scope: name scope of the variables.
            normalizes: which leaves are normalised; None for all.
        """
        count = len(tf.nest.flatten(spec))
        self.normalizes = (True,) * count if normalizes is None else tuple(normalizes)
        self._whole_spec = spec
        self._check = NestCheck("tensor", spec)
        chosen = spec if all(self.normalizes) else self._chosen(spec)
        super().__init__(tf.nest.map_structure(as_float, chosen), scope=scope)

    @property
    def variables(self) -> tuple[Nest, ...]:
        """Count, mean, sum of squared deviations and its carry, as TF-Agents has them, and the mean's carry."""
        return (*super().variables, tf.nest.pack_sequence_as(self._tensor_spec, self._avg_carry))

    def output_spec(self) -> Nest:
        """The spec of what `normalize` returns: float32 in place of normalised integers."""
        return self._put_back(self._whole_spec, tf.nest.flatten(self._tensor_spec))

    def reset(self) -> list[tf.Tensor]:
        """Forgets everything."""
        return super().reset() + [carry.assign(tf.zeros_like(carry)) for carry in self._avg_carry]

    def update(self, tensor: Nest, outer_dims: tuple[int, ...] = (0,)) -> tf.Operation:
        """Takes rows into the statistics; `outer_dims` are found by comparing with the spec."""
        return tf.group(self._update_ops(self._checked(tensor), outer_dims))

    def normalize(
        self, tensor: Nest, clip_value: float = 5.0, center_mean: bool = True, variance_epsilon: float = 1e-3
    ) -> Nest:
        """Returns `clip((tensor - mean) / sqrt(variance + variance_epsilon), -clip_value, clip_value)`.

        Args:
            tensor: nest of tensors of the spec with any batch dimensions in front.
            clip_value: bound of the result; 0 for none.
            center_mean: False leaves the mean in.
            variance_epsilon: added to the variance.

        Returns:
            The same structure and shapes; float32 where an integer was normalised.
        """
        with tf.name_scope(self._scope + "/normalize"):
            normalized = [
                self._normalize_leaf(i, value, center_mean, variance_epsilon)
                for i, value in enumerate(self._checked(tensor))
            ]
            if clip_value > 0:
                normalized = [tf.clip_by_value(value, -clip_value, clip_value) for value in normalized]
        return self._put_back(tensor, normalized)

    def _create_variables(self) -> None:
        super()._create_variables()
        # What `_avg` lacks of the mean. TF-Agents' own variables keep their dtypes, for those who read them.
        self._avg_carry = [
            common.create_variable(f"avg_carry_{i}", 0, spec.shape, tf.float64, trainable=False)
            for i, spec in enumerate(self._flat_variable_spec)
        ]

    def _chosen(self, nest: Nest) -> list[Any]:
        """The leaves that are normalised."""
        return [leaf for leaf, chosen in zip(tf.nest.flatten(nest), self.normalizes, strict=True) if chosen]

    def _put_back(self, nest: Nest, chosen: Sequence[Any]) -> Nest:
        """The nest with its normalised leaves replaced."""
        new = iter(chosen)
        leaves = [next(new) if c else leaf for leaf, c in zip(tf.nest.flatten(nest), self.normalizes, strict=True)]
        return tf.nest.pack_sequence_as(nest, leaves)

    def _checked(self, tensor: Nest) -> list[tf.Tensor]:
        """The leaves that are normalised, after a check of structure and shapes, in their own dtypes."""
        self._check.check_shapes(tensor, ...)
        return [tf.convert_to_tensor(leaf) for leaf in self._chosen(tensor)]

    def _normalize_leaf(self, i: int, value: tf.Tensor, center_mean: bool, variance_epsilon: float) -> tf.Tensor:
        mean, carry = self._avg[i], self._avg_carry[i]
        scale = tf.math.rsqrt(self._m2[i] / self._count[i] + variance_epsilon)
        if not center_mean:
            return tf.cast(value, mean.dtype) * scale
        if value.dtype in _EXACT_IN_FLOAT32:
            return (tf.cast(value, mean.dtype) - mean) * scale - tf.cast(carry, mean.dtype) * scale
        return tf.cast(_distance(value, mean) - carry, mean.dtype) * scale

    def _update_ops(self, tensors: Sequence[tf.Tensor], outer_dims: tuple[int, ...]) -> list[tf.Operation]:
        del outer_dims
        operations = []
        for i, (rows, spec) in enumerate(zip(tensors, self._flat_variable_spec, strict=True)):
            operations += self._update_leaf(i, tf.reshape(rows, tf.concat([[-1], spec.shape], axis=0)))
        return operations

    def _update_leaf(self, i: int, rows: tf.Tensor) -> list[tf.Operation]:
        """Merges rows [n, ...] of all replicas into the i-th leaf's statistics, component by component."""
        variables = (self._count[i], self._avg[i], self._avg_carry[i], self._m2[i], self._m2_carry[i])
        before = Statistics(*(tf.cast(variable, tf.float64) for variable in variables))
        after = merged(before, of_all_replicas(statistics_of(rows)))
        mean, m2 = tf.cast(after.mean + after.mean_carry, variables[1].dtype), tf.cast(after.m2, variables[3].dtype)
        values = (
            after.count,
            mean,
            after.mean - tf.cast(mean, tf.float64) + after.mean_carry,
            m2,
            tf.cast(m2, tf.float64) - after.m2,
        )
        # Squares of finite numbers can be too large for the variables.
        changes = (after.count > before.count) & tf.math.is_finite(mean) & tf.math.is_finite(m2)
        return [
            variable.assign(tf.where(changes, tf.cast(value, variable.dtype), variable))
            for value, variable in zip(values, variables, strict=True)
        ]


class Statistics(NamedTuple):
    """What is known of each component, all float64 of the shape of one entry.

    Attributes:
        count: of entries.
        mean: of them, but for `mean_carry`.
        mean_carry: what is to be added to `mean`.
        m2: sum of squared deviations from the mean, but for `m2_carry`.
        m2_carry: what is to be subtracted from `m2`, as Kahan's summation has it.
    """

    count: tf.Tensor
    mean: tf.Tensor
    mean_carry: tf.Tensor
    m2: tf.Tensor
    m2_carry: tf.Tensor


def statistics_of(rows: tf.Tensor) -> Statistics:
    """Statistics of the finite entries of rows [n, ...] of any dtype of numbers."""
    if rows.dtype not in _LONG:
        rows = tf.cast(rows, tf.float64)
    is_finite = tf.math.is_finite(tf.cast(rows, tf.float64))
    zeros = tf.zeros_like(is_finite, tf.float64)
    count = tf.reduce_sum(tf.cast(is_finite, tf.float64), axis=0)
    smallest = tf.reduce_min(tf.where(is_finite, rows, rows.dtype.max), axis=0)
    # From the smallest one, because a sum of large numbers loses their small differences.
    distances = tf.where(is_finite, _distance(rows, smallest), zeros)
    mean_distance = tf.math.divide_no_nan(tf.reduce_sum(distances, axis=0), count)
    m2 = tf.reduce_sum(tf.where(is_finite, tf.math.squared_difference(distances, mean_distance), zeros), axis=0)
    mean = tf.cast(smallest, tf.float64)
    return Statistics(count, mean, _distance(smallest, mean) + mean_distance, m2, tf.zeros_like(m2))


def _distance(values: tf.Tensor, origin: tf.Tensor) -> tf.Tensor:
    """`values - origin`, float64: of long integers too, of which float64 does not hold every one."""
    start, whole = tf.cast(origin, tf.float64), origin
    rough = tf.cast(values, tf.float64) - start
    if values.dtype not in _LONG:
        return rough
    if origin.dtype.is_floating:
        whole = tf.cast(tf.clip_by_value(start, *_RANGES[values.dtype]), values.dtype)
    rest = start - tf.cast(whole, tf.float64)
    # Modulo 2^64, as whole numbers are subtracted, a larger one could be any other.
    is_exact = tf.abs(rough) <= _LARGEST_DIFFERENCE
    return tf.where(is_exact, tf.cast(tf.cast(values - whole, tf.int64), tf.float64) - rest, rough)


def of_all_replicas(own: Statistics) -> Statistics:
    """Statistics of the entries of all replicas of a tf.distribute strategy, the same on each of them."""
    return own if replicas.count() == 1 else pooled(replicas.gathered(own))


def pooled(parts: Statistics) -> Statistics:
    """Statistics of all parts [R, ...] together, in whatever order; those with a count of 0 have no part in it."""
    is_any = parts.count > 0
    smallest = tf.reduce_min(tf.where(is_any, parts.mean, tf.float64.max), axis=0)
    distances = tf.where(is_any, (parts.mean - smallest) + parts.mean_carry, tf.zeros_like(parts.mean))
    count = tf.reduce_sum(parts.count, axis=0)
    mean_distance = tf.math.divide_no_nan(tf.reduce_sum(distances * parts.count, axis=0), count)
    between = parts.count * tf.math.squared_difference(distances, mean_distance)
    m2 = tf.reduce_sum(tf.where(is_any, parts.m2 - parts.m2_carry, tf.zeros_like(parts.m2)) + between, axis=0)
    return Statistics(count, smallest, mean_distance, m2, tf.zeros_like(m2))


def merged(old: Statistics, new: Statistics) -> Statistics:
    """Statistics of both (Chan, Golub and LeVeque, 1983, "Algorithms for computing the sample variance").

    An old count below 1 stands for no entry, whatever the old mean.
    """
    is_first, total = old.count < 1.0, old.count + new.count
    delta = (new.mean - old.mean) + (new.mean_carry - old.mean_carry)
    moved = old.mean_carry + delta * new.count / total
    between = tf.where(is_first, tf.zeros_like(delta), tf.square(delta) * old.count * new.count / total)
    return Statistics(
        total,
        tf.where(is_first, new.mean, old.mean),
        tf.where(is_first, new.mean_carry, moved),
        old.m2 + (new.m2 + between - old.m2_carry),
        tf.zeros_like(old.m2),
    )


def make_observation_normalizer(
    observation_spec: Nest, network_spec: Nest | None = None, splitter: action_masks.Splitter | None = None
) -> StreamingNormalizer | None:
    """A normaliser of what the networks take as floating-point numbers.

    Categories and images stay as they are for a network that takes integers there, action masks always.

    Args:
        observation_spec: nest of specs, without batch dimensions.
        network_spec: what the networks were built for, without the action mask; None if they do not tell.
        splitter: where the mask is, see `action_masks.split`.

    Returns:
        The normaliser, None if there is nothing to normalise.
    """
    # Copies, because one spec may stand for several leaves.
    leaves = [copy.copy(leaf) for leaf in tf.nest.flatten(observation_spec)]
    seen, _ = action_masks.split(tf.nest.pack_sequence_as(observation_spec, leaves), splitter)
    # A network for another structure is refused elsewhere.
    flat_seen, flat_taken = tf.nest.flatten(seen), tf.nest.flatten(network_spec)
    taken = flat_taken if network_spec is not None and len(flat_taken) == len(flat_seen) else [None] * len(flat_seen)
    chosen = {id(leaf) for leaf, spec in zip(flat_seen, taken, strict=True) if spec is None or spec.dtype.is_floating}
    normalizes = [id(leaf) in chosen for leaf in leaves]
    if not any(normalizes):
        return None
    return StreamingNormalizer(observation_spec, "normalize_observations", normalizes=normalizes)
