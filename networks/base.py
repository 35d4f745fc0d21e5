"""What all networks of this package have in common: observations that fit the spec they were built for."""

from typing import Any

import tensorflow as tf
from tf_agents.networks import network

from ppo_agent.networks import encoders


class ObservationNetwork(network.Network):
    """A `tf_agents` network that casts numbers to float32 and checks observations against its spec.

    Args:
        observation_spec: nest of specs, without outer dimensions.
        state_spec: nest of specs of the recurrent state; empty for none.
        name: of the network.

    Raises:
        ValueError: if a leaf of the spec has no encoder, with the reason.
    """

    def __init__(self, observation_spec: Any, state_spec: Any = (), name: str | None = None) -> None:
        super().__init__(encoders.network_input_spec(observation_spec), state_spec, name)

    def create_variables(self, input_tensor_spec: Any = None, **kwargs: Any) -> Any:
        """Creates the variables and returns the spec of the output.

        Args:
            input_tensor_spec: spec of the observations that the network will see, if it is to be checked.
            **kwargs: for `call`.

        Raises:
            ValueError: if the network was built for other observations.
        """
        if input_tensor_spec is not None:
            encoders.check_fits(input_tensor_spec, self.input_tensor_spec)
        return super().create_variables(**kwargs)

    # AutoGraph would spend seconds on translating Keras' and TF-Agents' code, where nothing needs it.
    @tf.autograph.experimental.do_not_convert
    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Casts numbers to float32 and calls the network; see `call`."""
        return super().__call__(encoders.cast_to_spec(inputs, self.input_tensor_spec), *args, **kwargs)
