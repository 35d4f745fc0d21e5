"""The value network: encoder and one output."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ppo_agent.networks import base, encoders, initializers


class ValueNetwork(base.ObservationNetwork):
    """Maps observations to state values through a multi-layer perceptron.

    Kernels are orthogonal, with gain sqrt(2) in hidden layers and 1 in the last, biases zero.

    Args:
        observation_spec: nest of specs, without outer dimensions; leaves are encoded as `ActorNetwork` encodes them.
        fc_layers: units of each hidden layer.
        activation: of the hidden layers, a Keras name or a callable.
        seed: of the initial weights; `None` follows `tf.random.set_seed`.
        name: of the network.

    Raises:
        ValueError: if a spec has no encoder, with the reason.
    """

    def __init__(
        self,
        observation_spec: Any,
        fc_layers: Sequence[int] = (64, 64),
        activation: encoders.Activation = "tanh",
        *,
        seed: int | None = None,
        name: str = "ValueNetwork",
    ) -> None:
        super().__init__(observation_spec, name=name)
        seeds = initializers.SeedSource(seed, "value")
        self.encoder = encoders.ObservationEncoder(self.input_tensor_spec, fc_layers, activation, seeds)
        self.value_layer = initializers.dense(1, initializers.VALUE_GAIN, seeds(), name="value")

    def call(
        self, observation: Any, step_type: Any = None, network_state: Any = (), training: bool = False
    ) -> tuple[tf.Tensor, Any]:
        """Returns values [B] or [B, T] and an empty network state.

        Args:
            observation: nest of tensors [B, ...] or [B, T, ...].
            step_type: ignored.
            network_state: ignored.
            training: ignored.
        """
        del step_type, network_state, training
        outer = encoders.outer_shape(observation, self.input_tensor_spec)
        value = self.value_layer(self.encoder(observation))
        return tf.reshape(value, outer), ()
