"""What an agent or a policy asks of the networks it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.distributions import utils as distribution_utils
from tf_agents.networks import network
from tf_agents.trajectories import TimeStep
from tf_agents.utils import nest_utils, tensor_normalizer

from ppo_agent.common import action_masks
from ppo_agent.common.action_masks import Splitter
from ppo_agent.common.specs import as_float
from ppo_agent.common.types import Nest
from ppo_agent.normalizers import StreamingNormalizer


def splitter_of(net: network.Network) -> action_masks.Splitter | None:
    """The function by which a network finds the action mask in an observation, None for the usual place."""
    return getattr(net, "splitter", None)


def check_is_network(name: str, net: Any) -> None:
    """Raises TypeError unless `net` is a `tf_agents.networks.Network`."""
    if not isinstance(net, network.Network):
        is_keras = isinstance(net, tf.keras.layers.Layer)
        hint = ": a Keras model is the encoder of an ActorNetwork or ValueNetwork" if is_keras else ""
        raise TypeError(f"{name} must be a tf_agents.networks.Network, but is {type(net).__name__}{hint}.")


def create_variables(
    net: network.Network,
    time_step_spec: TimeStep,
    observation_normalizer: tensor_normalizer.TensorNormalizer | None,
    name: str,
) -> Nest:
    """Builds a network's variables on the observations that it will see.

    Args:
        net: the network.
        time_step_spec: spec of the time steps.
        observation_normalizer: the normaliser in front of it, which turns integers into float32.
        name: what the network is called in an error.

    Returns:
        The spec of the network's output.

    Raises:
        ValueError: the network does not accept these observations.
    """
    observation_spec = time_step_spec.observation
    if isinstance(observation_normalizer, StreamingNormalizer):
        observation_spec = observation_normalizer.output_spec()
    elif observation_normalizer is not None:
        observation_spec = tf.nest.map_structure(as_float, observation_spec)
    _check_input(name, net, observation_spec)
    try:
        return net.create_variables(observation_spec)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        spec = " ".join(str(observation_spec).split())
        raise ValueError(
            f"{name} does not accept observations of the spec {spec}: {_reason(error)}{_keras_policy()}"
        ) from error


def _reason(error: Exception) -> str:
    """The first line of an error that says something; Keras' own first line only names the layer."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception encountered when calling")]
    return (told or lines or [type(error).__name__])[0]


def _check_input(name: str, net: network.Network, observation_spec: Nest) -> None:
    """Checks what `Network.__call__` will; a network that has its own, as ours do, checks and converts there."""
    if net.input_tensor_spec is None or type(net).__call__ is not network.Network.__call__:
        return
    try:
        nest_utils.assert_matching_dtypes_and_inner_shapes(
            observation_spec, net.input_tensor_spec, net, "observations", "input_tensor_spec", allow_extra_fields=True
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} was built for observations of the spec {net.input_tensor_spec}, expected {observation_spec}."
        ) from error


def check_output(name: str, output_spec: Nest, expected_name: str, expected: Nest) -> None:
    """Raises ValueError unless a network's output has the structure, dtypes and shapes of a nest of TensorSpecs.

    `name` and `expected_name` are what the error calls the network and the nest; `output_spec` is what the network's
    `create_variables` returned.
    """
    found = tf.nest.map_structure(
        lambda s: tf.TensorSpec(s.event_shape, s.dtype) if isinstance(s, distribution_utils.DistributionSpecV2) else s,
        output_spec,
    )
    try:
        distribution_utils.assert_specs_are_compatible(output_spec, expected, "")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} emits {found}, expected {expected_name}: {expected}{_keras_policy()}.") from error
    _check_range(name, output_spec, expected_name, expected)


def _keras_policy() -> str:
    """What to add to a sentence about dtypes; empty with Keras' usual policy."""
    policy = tf.keras.mixed_precision.global_policy().name
    return "" if policy == "float32" else f" (Keras' dtype policy is {policy}, expected float32)"


def _check_range(name: str, output_spec: Nest, expected_name: str, expected: Nest) -> None:
    """Raises ValueError for a distribution over 0, 1, ... where the spec's whole numbers begin elsewhere."""
    for leaf, spec in zip(tf.nest.flatten(output_spec), tf.nest.flatten(expected), strict=True):
        is_distribution = isinstance(leaf, distribution_utils.DistributionSpecV2)
        if (
            is_distribution
            and leaf.parameters.type_ is tfp.distributions.Categorical
            and np.any(getattr(spec, "minimum", 0) != 0)
        ):
            raise ValueError(
                f"{name} draws whole numbers from 0 on, expected {expected_name} from {spec.minimum} on: TF-Agents' "
                "projection networks shift nothing, ppo_agent.networks.ActorNetwork does."
            )


def spec_without_mask(net: network.Network) -> Nest | None:
    """What a network was built for, without the action mask; None if it does not tell."""
    wrapped = getattr(net, "network", None)
    if wrapped is not None:
        return wrapped.input_tensor_spec
    spec = net.input_tensor_spec
    return None if spec is None else action_masks.split(spec, splitter_of(net))[0]


def with_masks(
    net: network.Network, observation_spec: Nest, action_spec: Nest, splitter: Splitter | None
) -> network.Network:
    """The network itself if it splits observations that hold an action mask, or if they hold none; else it wrapped."""
    if splitter is None:
        wraps = action_masks.has_mask(observation_spec) and not action_masks.has_mask(net.input_tensor_spec)
    else:
        wraps = splitter_of(net) is None
    if not wraps or splitter_of(net) is not None:
        return net
    from ppo_agent.networks import MaskedNetwork

    return MaskedNetwork(net, action_spec, splitter)
