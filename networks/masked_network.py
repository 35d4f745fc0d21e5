"""Action masks in logits and distributions, and `MaskedNetwork`, which gives them to networks that know none."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import StepType

from ppo_agent.common import action_masks
from ppo_agent.common.configurable import configurable

# Logit of an impossible category. Its probability is exactly 0 in float32, while its log-probability, and with it
# the entropy, the KL divergence and their gradients, stays finite, which minus infinity would not give.
IMPOSSIBLE_LOGIT = -1e9


def impossible_logits(possible: np.ndarray) -> np.ndarray:
    """Logits of masked categories, float32 of the shape of `possible`.

    Categories that a component does not have get twice as much, so that they stay impossible in a component whose
    mask allows nothing.
    """
    return np.where(possible, IMPOSSIBLE_LOGIT, 2 * IMPOSSIBLE_LOGIT).astype(np.float32)


def mask_distribution(distribution: tfp.distributions.Distribution, allowed: tf.Tensor, name: str) -> Any:
    """A categorical distribution, or an independent of such, without the categories that are not allowed.

    `allowed` is bool, of the shape of its logits; `name` is that of the action, for errors.

    Raises:
        ValueError: if the distribution has no logits of that shape.
    """
    if isinstance(distribution, tfp.distributions.Independent):
        return distribution.copy(distribution=mask_distribution(distribution.distribution, allowed, name))
    if not isinstance(distribution, tfp.distributions.Categorical):
        raise ValueError(
            f"network: emits {type(distribution).__name__} for the discrete action {name}, expected a categorical."
        )
    logits = distribution.parameters.get("logits")
    if logits is None:
        raise ValueError(f"network: emits probabilities for the discrete action {name}, expected logits.")
    if not logits.shape.is_compatible_with(allowed.shape):
        raise ValueError(f"network: emits logits {logits.shape} for the action {name}, expected {allowed.shape}.")
    masked = tf.where(allowed, logits, tf.constant(IMPOSSIBLE_LOGIT, logits.dtype))
    return distribution.copy(logits=masked)


@configurable("ppo_agent.networks")
class MaskedNetwork(network.Network):
    """Gives action masks to a network that knows none, such as TF-Agents' own.

    The observation is split, the network sees what is left without the mask, and the discrete distributions that it
    emits lose the categories that are not allowed. Around a value network, it just splits.

    Args:
        network: `tf_agents` network for observations without the mask.
        action_spec: nest of bounded specs, without outer dimensions.
        splitter: TF-Agents' `observation_and_action_constraint_splitter`; `None` splits observations that are a
            mapping of `observation` and `action_mask`.
        name: of the network.

    Raises:
        TypeError: if `network` is no `tf_agents` network.
        ValueError: if the action has no discrete component.
    """

    def __init__(
        self,
        network: network.Network,
        action_spec: Any,
        splitter: action_masks.Splitter | None = None,
        name: str = "MaskedNetwork",
    ) -> None:
        _check_network(network)
        super().__init__(None, network.state_spec, name)
        self._network_output_spec: Any = None
        self.network = network
        self.splitter = splitter
        self._layout = action_masks.MaskLayout(tensor_spec.from_spec(action_spec))
        if self._layout.size == 0:
            raise ValueError("action_spec: has no discrete component, expected one that a mask could apply to.")

    @property
    def leaf_indices(self) -> list[np.ndarray | None]:
        """Where the categories of each action leaf stand in the mask; see `action_masks.MaskLayout`."""
        return self._layout.leaf_indices

    def create_variables(self, input_tensor_spec: Any = None, **kwargs: Any) -> Any:
        """Creates the variables of the network and returns the spec of the output.

        Args:
            input_tensor_spec: spec of the observations with the mask.
            **kwargs: for `call`.

        Raises:
            ValueError: if there is no mask in the observations, or none that fits the actions.
        """
        if self._network_output_spec is None and input_tensor_spec is not None:
            self._input_tensor_spec = tensor_spec.from_spec(input_tensor_spec)
            network_spec, mask_spec = action_masks.split(self._input_tensor_spec, self.splitter)
            if mask_spec is None:
                raise ValueError(
                    "observation: has no action mask, expected a mapping of observation and action_mask, or a splitter."
                )
            self._layout.check_spec(mask_spec)
            self._network_output_spec = self.network.create_variables(network_spec, **kwargs)
            # Zeros, because TF-Agents cannot draw samples of every dtype that a mask may have.
            zeros = tensor_spec.zero_spec_nest(self._input_tensor_spec, outer_dims=[1])
            self(zeros, step_type=tf.fill([1], StepType.FIRST), network_state=self.get_initial_state(1), **kwargs)
        return super().create_variables(**kwargs)

    def call(
        self, observation: Any, step_type: Any = None, network_state: Any = (), training: bool = False
    ) -> tuple[Any, Any]:
        """Returns what the network makes of observations [B, ...] or [B, T, ...], masked, and its state."""
        observation, mask = action_masks.split(observation, self.splitter)
        output, state = self.network(observation, step_type=step_type, network_state=network_state, training=training)
        return self._masked(output, tf.cast(mask, tf.bool)), state

    def _masked(self, output: Any, mask: tf.Tensor) -> Any:
        leaves = tf.nest.flatten(output)
        if not isinstance(leaves[0], tfp.distributions.Distribution):
            return output
        if len(leaves) != len(self._layout.leaf_indices):
            raise ValueError(
                f"network: emits {len(leaves)} distributions, expected one for each of the "
                f"{len(self._layout.leaf_indices)} leaves of action_spec."
            )
        masked = [
            leaf if indices is None else mask_distribution(leaf, action_masks.gather(mask, indices), str(i))
            for i, (leaf, indices) in enumerate(zip(leaves, self._layout.leaf_indices, strict=True))
        ]
        return tf.nest.pack_sequence_as(output, masked)

    def copy(self, **kwargs: Any) -> MaskedNetwork:
        """A network built with the same arguments, but for `kwargs`, around a copy of the wrapped network."""
        return super().copy(**{"network": kwargs.pop("network", None) or self.network.copy(), **kwargs})


def _check_network(wrapped: Any) -> None:
    if not isinstance(wrapped, network.Network):
        raise TypeError(f"network: found {type(wrapped).__name__}, expected a tf_agents.networks.Network.")
