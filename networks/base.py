"""What the networks of this package have in common: observation -> encoder -> memory -> features."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.networks import network
from tf_agents.trajectories import StepType

from ppo_agent.common import action_masks, shared_results

from .inputs import cast_to_spec, check_fits, network_input_spec, select_keys, to_rows


class Features(NamedTuple):
    """What a torso makes of observations.

    Attributes:
        rows: float32 [N, F], N is B or B * T.
        mask: bool [N, size], the allowed actions, or None.
        outer: the outer dimensions, [B] or [B, T].
        state: of the memory after the last step, or ().
    """

    rows: tf.Tensor
    mask: tf.Tensor | None
    outer: list[int | tf.Tensor]
    state: Any


class ObservationNetwork(network.Network):
    """A `tf_agents` network that checks and casts observations, encodes them, and remembers.

    Args:
        observation_spec: nest of specs, without outer dimensions.
        encoder: from the spec of what it sees, without the mask, to a Keras layer from observations [N, ...] to
            features [N, F].
        memory: Keras layer as `LSTMMemory`, between encoder and outputs; `None` for none.
        splitter: TF-Agents' `observation_and_action_constraint_splitter`; `None` splits the mask off where the
            observation is a mapping of `observation` and `action_mask`.
        name: of the network.
        observation_keys: keys of a mapping that the encoder sees, which may be others in actor and value network; None
            for all.

    Raises:
        ValueError: if a leaf of the spec has no encoder, with the reason; if there are no such keys.
        TypeError: if `memory` is no memory, or the encoder no Keras layer.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> ObservationNetwork:
        """Refuses a tf.Graph, in which Keras would change the class for good and so invalidate all other networks."""
        with tf.init_scope():
            if not tf.executing_eagerly():
                raise ValueError(f"{cls.__name__} is called in a tf.Graph, expected eager execution.")
        new: ObservationNetwork = super().__new__(cls, *args, **kwargs)
        return new

    def __init__(
        self,
        observation_spec: Any,
        encoder: Callable[[Any], tf.keras.layers.Layer],
        memory: Any = None,
        splitter: action_masks.Splitter | None = None,
        name: str | None = None,
        observation_keys: Sequence[str] | None = None,
    ) -> None:
        input_spec = network_input_spec(observation_spec, splitter)
        _check_memory(memory)
        super().__init__(input_spec, () if memory is None else memory.state_spec, name)
        self.splitter = splitter
        self.observation_keys = None if observation_keys is None else tuple(observation_keys)
        seen, _ = action_masks.split(input_spec, splitter)
        self.encoder = encoder(select_keys(seen, self.observation_keys))
        _check_encoder(self.encoder)
        self.memory = memory

    def create_variables(self, input_tensor_spec: Any = None, **kwargs: Any) -> Any:
        """Creates the variables and returns the spec of the output.

        Args:
            input_tensor_spec: spec of the observations that the network will see, if it is to be checked.
            **kwargs: for `call`.

        Raises:
            ValueError: if the network was built for other observations, or its encoder does not accept them.
        """
        if input_tensor_spec is not None:
            check_fits(input_tensor_spec, self.input_tensor_spec)
        return super().create_variables(**kwargs)

    # AutoGraph would spend seconds on translating Keras' and TF-Agents' code, where nothing needs it.
    @tf.autograph.experimental.do_not_convert
    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Casts numbers to float32 and calls the network; see `call`."""
        return super().__call__(cast_to_spec(inputs, self.input_tensor_spec), *args, **kwargs)

    def copy(self, **kwargs: Any) -> ObservationNetwork:
        """A network built with the same arguments, but for `kwargs`, with variables of its own.

        An encoder or memory that was given as an argument is copied too.
        """
        for key in ("encoder", "memory"):
            if self._saved_kwargs.get(key) is not None and key not in kwargs:
                kwargs[key] = fresh_layer(key, self._saved_kwargs[key])
        return super().copy(**kwargs)

    def features(self, observation: Any, step_type: Any, network_state: Any) -> Features:
        """Encodes observations [B, ...] or [B, T, ...]; see `Features`."""
        inputs, mask, outer = to_rows(observation, self.input_tensor_spec, self.splitter)
        inputs = select_keys(inputs, self.observation_keys)
        rows = shared_results.remembered(self.encoder, observation, lambda: _encode(self.encoder, inputs))
        if self.memory is None:
            return Features(rows, mask, outer, ())
        sequence_shape = outer if len(outer) == 2 else [outer[0], 1]
        is_first = tf.zeros(sequence_shape, tf.bool)
        if step_type is not None:
            is_first = tf.reshape(tf.equal(step_type, StepType.FIRST), sequence_shape)
        sequence = tf.reshape(rows, [*sequence_shape, rows.shape[-1]])
        outputs, state = self.memory(sequence, is_first, () if network_state is None else network_state)
        return Features(tf.reshape(outputs, [-1, outputs.shape[-1]]), mask, outer, state)


def _encode(encoder: tf.keras.layers.Layer, observation: Any) -> tf.Tensor:
    """Features [N, F] of observations [N, ...]; a `tf_agents` network returns them with an empty state."""
    features = encoder(observation)
    if isinstance(encoder, network.Network):
        features, _ = features
    if not tf.is_tensor(features) or features.shape.rank != 2 or features.shape[1] is None:
        found = features.shape if tf.is_tensor(features) else type(features).__name__
        raise ValueError(f"encoder: {encoder.name} returned {found}, expected features of the shape [N, F].")
    return tf.cast(features, tf.float32)


def _check_encoder(encoder: Any) -> None:
    if any(kind.__module__.startswith("keras.") for kind in type(encoder).__mro__) and not isinstance(
        encoder, tf.keras.layers.Layer
    ):
        raise TypeError(
            f"encoder is {type(encoder).__name__} of Keras 3, expected a layer or model of Keras 2, which TF-Agents "
            "needs: build it with tf.keras after `import ppo_agent`, or with tf_keras."
        )
    if not isinstance(encoder, tf.keras.layers.Layer):
        raise TypeError(f"encoder: found {type(encoder).__name__}, expected a tf.keras layer or model.")
    if isinstance(encoder, network.Network) and encoder.state_spec:
        raise ValueError(
            f"encoder: {encoder.name} has a state, expected one without; give the recurrent part as memory."
        )


def _check_memory(memory: Any) -> None:
    is_memory = isinstance(memory, tf.keras.layers.Layer) and "is_first" in inspect.signature(memory.call).parameters
    if memory is not None and not is_memory:
        raise TypeError(f"memory: found {type(memory).__name__}, expected LSTMMemory, GRUMemory or a layer like them.")


def fresh_layer(argument: str, layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
    """A layer built as `layer` was, with variables of its own.

    Raises:
        ValueError: if the layer cannot be copied; `argument` names it there.
    """
    if hasattr(layer, "copy"):
        return layer.copy()
    try:
        return type(layer).from_config(layer.get_config())
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"{argument}: {layer.name} has no complete get_config, by which it could be copied; give "
            f"copy({argument}=...) a layer."
        ) from error
