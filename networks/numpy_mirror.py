"""Finds the NumPy mirror of an actor network: of this package's own, and of TF-Agents' feed-forward one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.networks import (
    actor_distribution_network,
    categorical_projection_network,
    encoding_network,
    normal_projection_network,
)

from ppo_agent.networks import actor_network, heads
from ppo_agent.networks.numpy_layers import (
    NumpyActor,
    NumpyCategoricalHead,
    NumpyDense,
    NumpyEncoder,
    NumpyHead,
    NumpyNormalHead,
    mirror_layers,
)

Array = np.ndarray


def mirror_actor(network: Any) -> NumpyActor | None:
    """Returns the mirror of an actor network whose variables exist; `None` if its kind or a part of it has none.

    Exact types are asked for, because a subclass may compute something else.
    """
    if type(network) is actor_network.ActorNetwork:
        return _mirror_own(network)
    if type(network) is actor_distribution_network.ActorDistributionNetwork:
        return _mirror_tf_agents(network)
    return None


def _mirror_own(network: actor_network.ActorNetwork) -> NumpyActor | None:
    layers = mirror_layers(network.encoder.dense_layers)
    if layers is None:
        return None
    return NumpyActor(
        NumpyEncoder(network.encoder.leaf_specs, layers), [_mirror_own_head(head) for head in network.heads]
    )


def _mirror_own_head(head: heads.NormalHead | heads.CategoricalHead) -> NumpyHead:
    if isinstance(head, heads.NormalHead):
        return NumpyNormalHead(
            NumpyDense(head.mean_layer), lambda: np.exp(head.log_std.numpy()), tuple(head.spec.shape), head.spec.dtype
        )
    return NumpyCategoricalHead(NumpyDense(head.logits_layer), head.possible, head.minimum, head.spec.dtype)


def _mirror_tf_agents(network: actor_distribution_network.ActorDistributionNetwork) -> NumpyActor | None:
    encoder = _mirror_encoding_network(network._encoder)
    numpy_heads = [_mirror_projection(projection) for projection in tf.nest.flatten(network._projection_networks)]
    if encoder is None or None in numpy_heads:
        return None
    return NumpyActor(encoder, [head for head in numpy_heads if head is not None])


def _mirror_encoding_network(network: encoding_network.EncodingNetwork) -> NumpyEncoder | None:
    specs = tf.nest.flatten(network.input_tensor_spec)
    flatten, *dense_layers = network._postprocessing_layers
    plain = (
        network._flat_preprocessing_layers is None
        and network._preprocessing_combiner is None
        and len(specs) == 1
        and specs[0].dtype == tf.float32
        and type(flatten) is tf.keras.layers.Flatten
        and all(type(layer) is tf.keras.layers.Dense for layer in dense_layers)
    )
    layers = mirror_layers(dense_layers) if plain else None
    return None if layers is None else NumpyEncoder(specs, layers, one_hot=False)


def _mirror_projection(projection: Any) -> NumpyHead | None:
    if type(projection) is categorical_projection_network.CategoricalProjectionNetwork:
        return _mirror_categorical(projection)
    if type(projection) is normal_projection_network.NormalProjectionNetwork:
        return _mirror_normal(projection)
    return None


def _mirror_categorical(
    projection: categorical_projection_network.CategoricalProjectionNetwork,
) -> NumpyCategoricalHead:
    shape = projection._output_shape.as_list()
    # TF-Agents counts categories from 0, whatever the minimum of the spec.
    minimum = np.zeros(shape[:-1], np.int64)
    dense = NumpyDense(projection._projection_layer)
    return NumpyCategoricalHead(dense, np.ones(shape, bool), minimum, projection._sample_spec.dtype)


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, 0.0)


_STD_TRANSFORMS: dict[Any, Callable[[Array], Array]] = {tf.nn.softplus: _softplus, tf.exp: np.exp, None: np.asarray}


def _mirror_normal(projection: normal_projection_network.NormalProjectionNetwork) -> NumpyNormalHead | None:
    spec, mean_layer = projection._sample_spec, projection._means_projection_layer
    std_transform = _STD_TRANSFORMS.get(projection._std_transform)
    mean_transform = _mean_transform(projection._mean_transform, spec)
    plain = (
        not projection._state_dependent_std
        and not projection._scale_distribution
        and mean_layer.activation is tf.keras.activations.linear
    )
    if not plain or std_transform is None or mean_transform is None:
        return None

    def read_scale() -> Array:
        return std_transform(projection._bias.bias.numpy())

    return NumpyNormalHead(NumpyDense(mean_layer), read_scale, tuple(spec.shape), spec.dtype, mean_transform)


def _mean_transform(transform: Any, spec: Any) -> Callable[[Array], Array] | None:
    if transform is None:
        return lambda x: x
    if transform is not normal_projection_network.tanh_squash_to_spec:
        return None
    means = ((spec.maximum + spec.minimum) / 2.0).astype(np.float32)
    magnitudes = ((spec.maximum - spec.minimum) / 2.0).astype(np.float32)
    return lambda x: means + magnitudes * np.tanh(x)
