"""The policy network: encoder and heads, composed from the specs."""

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.networks import base, encoders, heads, initializers


class ActorNetwork(base.ObservationNetwork):
    """Maps observations to action distributions through a multi-layer perceptron.

    Floating-point actions get independent normals whose standard deviation is a trained variable, integer actions one
    categorical for each component (sizes may differ, minima need not be zero). Kernels are orthogonal, with gain
    sqrt(2) in hidden layers and 0.01 in the heads, biases zero.

    Args:
        observation_spec: nest of specs, without outer dimensions. Bounded integer scalars are one-hot encoded, all
            other leaves are flattened and cast to float32.
        action_spec: nest of bounded specs, without outer dimensions.
        fc_layers: units of each hidden layer.
        activation: of the hidden layers, a Keras name or a callable.
        initial_log_std: natural logarithm of the first standard deviation of floating-point actions.
        seed: of the initial weights; `None` follows `tf.random.set_seed`.
        name: of the network.

    Raises:
        ValueError: if a spec has no encoder or no head, with the reason.
    """

    def __init__(
        self,
        observation_spec: Any,
        action_spec: Any,
        fc_layers: Sequence[int] = (64, 64),
        activation: encoders.Activation = "tanh",
        *,
        initial_log_std: float = 0.0,
        seed: int | None = None,
        name: str = "ActorNetwork",
    ) -> None:
        super().__init__(observation_spec, name=name)
        seeds = initializers.SeedSource(seed, "actor")
        action_spec = tensor_spec.from_spec(action_spec)
        self.encoder = encoders.ObservationEncoder(self.input_tensor_spec, fc_layers, activation, seeds)
        self.heads = [
            heads.make_head(spec, initial_log_std, seeds(), f"head_{i}")
            for i, spec in enumerate(tf.nest.flatten(action_spec))
        ]
        # A partial, because Keras would wrap a nest that is stored as an attribute, and tf.nest tells them apart.
        self._pack_actions = functools.partial(tf.nest.pack_sequence_as, action_spec)

    def call(
        self, observation: Any, step_type: Any = None, network_state: Any = (), training: bool = False
    ) -> tuple[Any, Any]:
        """Returns distributions, nested like the action spec, and an empty network state.

        Args:
            observation: nest of tensors [B, ...] or [B, T, ...].
            step_type: ignored.
            network_state: ignored.
            training: ignored.
        """
        del step_type, network_state, training
        outer = encoders.outer_shape(observation, self.input_tensor_spec)
        features = self.encoder(observation)
        return self._pack_actions([_distribution(head, features, outer) for head in self.heads]), ()


def _distribution(head: Any, features: tf.Tensor, outer: list[int | tf.Tensor]) -> Any:
    parameters = {name: encoders.unflatten(value, outer) for name, value in head(features).items()}
    return head.distribution(parameters)
