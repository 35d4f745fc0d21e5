"""Nested action distributions: log-probability, entropy, KL divergence, and the way to and from their parameters.

Actions may be any nest. The components are independent given the observation, so the leaves' log-probabilities,
entropies and divergences add up.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.distributions import utils as distribution_utils
from tf_agents.networks import network
from tf_agents.specs import distribution_spec
from tf_agents.utils import nest_utils

from ppo_agent.common.types import Nest, Tensor


def log_probability(distributions: Nest, actions: Nest, outer_rank: int) -> tf.Tensor:
    """Log-probability (density) of nested actions.

    Args:
        distributions: nest of TFP distributions with `outer_rank` batch dimensions in front.
        actions: nest of actions, same structure.
        outer_rank: number of batch dimensions, 2 for [B, T].

    Returns:
        float32 log-probabilities, shape of the batch dimensions.
    """
    nest_utils.assert_same_structure(distributions, actions)
    pairs = zip(tf.nest.flatten(distributions), tf.nest.flatten(actions), strict=True)
    return tf.add_n([_sum_inner(d.log_prob(_as_event(action)), outer_rank) for d, action in pairs])


def _as_event(action: Tensor) -> Tensor:
    """An action in a dtype that TensorFlow Probability's Categorical takes: int8 and others are none."""
    dtype = tf.as_dtype(action.dtype)
    return tf.cast(action, tf.int64) if dtype.is_integer and dtype not in (tf.int32, tf.int64) else action


def entropy(distributions: Nest, outer_rank: int) -> tf.Tensor | None:
    """Entropy of nested distributions, in nats.

    Args:
        distributions: nest of TFP distributions with `outer_rank` batch dimensions in front.
        outer_rank: number of batch dimensions.

    Returns:
        float32 entropies, shape of the batch dimensions. Leaves with no closed form are left out; None if all are.
    """
    entropies = [_entropy_or_none(d) for d in tf.nest.flatten(distributions)]
    known = [_sum_inner(e, outer_rank) for e in entropies if e is not None]
    return tf.add_n(known) if known else None


def kl_divergence(old_distributions: Nest, new_distributions: Nest, outer_rank: int) -> tf.Tensor:
    """KL(old || new) of nested distributions, in nats.

    Args:
        old_distributions: nest of TFP distributions with `outer_rank` batch dimensions in front.
        new_distributions: the same structure.
        outer_rank: number of batch dimensions.

    Returns:
        float32 divergences, shape of the batch dimensions.
    """
    nest_utils.assert_same_structure(old_distributions, new_distributions)
    pairs = zip(tf.nest.flatten(old_distributions), tf.nest.flatten(new_distributions), strict=True)
    return tf.add_n([_sum_inner(old.kl_divergence(new), outer_rank) for old, new in pairs])


def _sum_inner(tensor: tf.Tensor, outer_rank: int) -> tf.Tensor:
    inner = list(range(outer_rank, tensor.shape.rank))
    return tf.cast(tf.reduce_sum(tensor, axis=inner) if inner else tensor, tf.float32)


def _entropy_or_none(distribution: tfp.distributions.Distribution) -> tf.Tensor | None:
    try:
        return distribution.entropy()
    except NotImplementedError:
        return None


class ParameterCodec:
    """Turns an actor network's distributions into nests of parameter tensors and back.

    TF-Agents has two kinds of actor network: a `DistributionNetwork` describes its output by `DistributionSpec`s (and
    calls a multivariate normal's `scale_diag` `scale`); any other emits distributions, described by
    `DistributionSpecV2`s, the result of `create_variables`.
    """

    def __init__(self, actor_net: network.Network, output_spec: Nest) -> None:
        """Takes what `actor_net.create_variables()` returned as `output_spec`.

        Raises:
            ValueError: the network emits something other than distributions.
        """
        self._legacy = isinstance(actor_net, network.DistributionNetwork)
        self._spec = actor_net.output_spec if self._legacy else output_spec
        if not self._legacy:
            tf.nest.map_structure(_check_emits_distribution, self._spec)

    @property
    def spec(self) -> Nest:
        """What describes the distributions, nest like the action's."""
        return self._spec

    @property
    def parameters_spec(self) -> Nest:
        """Nest like the action's, of dicts from parameter name to TensorSpec."""
        if self._legacy:
            return tf.nest.map_structure(lambda spec: spec.input_params_spec, self._spec)
        return tf.nest.map_structure(lambda spec: _tensor_parameters(spec.parameters), self._spec)

    def to_parameters(self, distributions: Nest) -> Nest:
        """Nest like the action's, of dicts from parameter name to tensor."""
        if self._legacy:
            return nest_utils.map_structure_up_to(self._spec, _legacy_parameters, self._spec, distributions)
        return tf.nest.map_structure(_parameters, distributions)

    def to_distributions(self, parameters: Nest) -> Nest:
        """Inverse of `to_parameters`; parameters may have any batch dimensions."""
        if self._legacy:
            return distribution_spec.nested_distributions_from_specs(self._spec, parameters)
        return nest_utils.map_structure_up_to(self._spec, _from_parameters, self._spec, parameters)


def _check_emits_distribution(spec: Any) -> None:
    if not isinstance(spec, distribution_utils.DistributionSpecV2):
        raise ValueError(f"actor_net must emit distributions, but its output is described by {spec}.")


def _tensor_parameters(parameters: Any) -> dict[str, Any]:
    return distribution_utils.parameters_to_dict(parameters, tensors_only=True)


def _parameters(distribution: tfp.distributions.Distribution) -> dict[str, Any]:
    return _tensor_parameters(distribution_utils.get_parameters(distribution))


def _from_parameters(spec: Any, parameters: dict[str, Any]) -> tfp.distributions.Distribution:
    merged = distribution_utils.merge_to_parameters_from_dict(spec.parameters, parameters)
    return distribution_utils.make_from_parameters(merged)


def _legacy_parameters(
    spec: distribution_spec.DistributionSpec, distribution: tfp.distributions.Distribution
) -> dict[str, tf.Tensor]:
    """The parameters that the spec's builder takes, under its names."""
    # TF-Agents' SquashToSpecNormal is built from the parameters of the normal inside.
    inner = getattr(distribution, "input_distribution", distribution)
    found = {name: value for name, value in inner.parameters.items() if tf.is_tensor(value)}
    if "scale" in spec.input_params_spec and "scale_diag" in found:
        found["scale"] = found.pop("scale_diag")
    return found
