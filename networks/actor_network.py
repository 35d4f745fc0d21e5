"""The policy network: encoder, memory and heads, composed from the specs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.common import action_masks
from ppo_agent.common.configurable import configurable

from . import base, encoders, heads, images, initializers, inputs


@configurable("ppo_agent.networks", "PPOActorNetwork")
class ActorNetwork(base.ObservationNetwork):
    """Maps observations to action distributions.

    Floating-point actions get independent normals whose standard deviation is a trained variable, integer actions one
    categorical for each component (sizes may differ, minima need not be zero). Kernels are orthogonal, with gain
    sqrt(2) in hidden layers and 0.01 in the heads, biases zero.

    Where the observation is a mapping of `observation` and `action_mask`, and nothing else, categories that the mask
    does not allow have probability zero; the layout of masks is that of `ppo_agent.common.action_masks`.

    Args:
        observation_spec: nest of specs, without outer dimensions. Numbers of any shape are flattened, bounded int32
            and int64 scalars and vectors one-hot encoded, uint8 leaves of three dimensions are images.
        action_spec: nest of bounded specs, without outer dimensions.
        fc_layers: units of each hidden layer.
        activation: of the hidden layers, a Keras name or a callable.
        initial_log_std: natural logarithm of the first standard deviation of floating-point actions.
        seed: of the initial weights; `None` follows `tf.random.set_seed`.
        name: of the network.
        encoder: Keras layer or model of your own in place of the default one, from observations [N, ...] (numbers as
            float32, categories as int32, images as uint8, without the mask) to features [N, F]; or a `tf_agents`
            network without a state. `fc_layers` and `activation` have no effect then. The same object in actor and
            value network is a shared torso.
        memory: `LSTMMemory` or `GRUMemory` between encoder and heads; `None` for a network without memory.
        state_dependent_std: let the standard deviation be a function of the observation.
        squash: squash floating-point actions to their bounds by tanh.
        embedding_size: length of the trained vector for each observed category; `None` for one-hot vectors.
        conv_layers: (filters, kernel size, stride) of each convolution on images; `None` chooses by their size.
        observation_and_action_constraint_splitter: TF-Agents' function from an observation, or its spec, to the
            network's observation and the mask.
        observation_keys: keys of a mapping (of what is left without the mask) that the network sees; None for all. An
            exported policy asks for those of the actor only.
        output_gain: of the heads' orthogonal kernels: how much the first policy depends on what it sees.

    Raises:
        ValueError: if a spec has no encoder or no head, with the reason.
        TypeError: if encoder or memory are no Keras layers.
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
        encoder: tf.keras.layers.Layer | None = None,
        memory: Any = None,
        state_dependent_std: bool = False,
        squash: bool = False,
        embedding_size: int | None = None,
        conv_layers: images.ConvLayers | None = None,
        observation_and_action_constraint_splitter: action_masks.Splitter | None = None,
        observation_keys: Sequence[str] | None = None,
        output_gain: float = initializers.POLICY_GAIN,
    ) -> None:
        seeds = initializers.SeedSource(seed, "actor")
        make_encoder = encoders.encoder_maker(encoder, fc_layers, activation, embedding_size, conv_layers, seeds)
        splitter = observation_and_action_constraint_splitter
        super().__init__(observation_spec, make_encoder, memory, splitter, name, observation_keys)
        action_spec = tensor_spec.from_spec(action_spec)
        _, mask_spec = action_masks.split(self.input_tensor_spec, splitter)
        self.heads = heads.make_heads(
            action_spec, seeds, initial_log_std, state_dependent_std, squash, mask_spec, output_gain
        )
        # A partial, because Keras would wrap a nest that is stored as an attribute, and tf.nest tells them apart.
        self._pack_actions = functools.partial(tf.nest.pack_sequence_as, action_spec)

    def call(
        self, observation: Any, step_type: Any = None, network_state: Any = (), training: bool = False
    ) -> tuple[Any, Any]:
        """Returns distributions, nested like the action spec, and the network's state after the last step.

        Args:
            observation: nest of tensors [B, ...] or [B, T, ...].
            step_type: int32 [B] or [B, T]; the memory starts anew at FIRST; `None` if no episode starts here.
            network_state: of the memory before the first step; () for zeros.
            training: for the layers that ask for it.
        """
        del training  # Keras passes it on to all layers inside.
        features = self.features(observation, step_type, network_state)
        return self._pack_actions([_distribution(head, features) for head in self.heads]), features.state


def _distribution(head: Any, features: base.Features) -> Any:
    categorical = isinstance(head, heads.CategoricalHead)
    parameters = head(features.rows, features.mask) if categorical else head(features.rows)
    return head.distribution({name: inputs.unflatten(value, features.outer) for name, value in parameters.items()})
