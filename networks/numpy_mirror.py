"""Finds the NumPy mirror of an actor network: of this package's own, and of TF-Agents' feed-forward one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.networks import (
    actor_distribution_network,
    categorical_projection_network,
    encoding_network,
    normal_projection_network,
)

from ppo_agent.common import action_masks
from ppo_agent.common.types import Array

from . import actor_network, encoders, heads, masked_network, value_network
from .numpy_dense import NumpyDense, mirror_layers, read
from .numpy_heads import DependentScale, FixedScale, NumpyCategoricalHead, NumpyHead, NumpyNormalHead
from .numpy_layers import (
    NumpyActor,
    NumpyCategories,
    NumpyEmbedding,
    NumpyEncoder,
    NumpyLeaf,
    NumpyMemory,
    NumpyNumbers,
    NumpyTorso,
)


def mirror_actor(network: Any) -> NumpyActor | None:
    """Returns the mirror of an actor network whose variables exist; `None` if its kind or a part of it has none.

    Exact types are asked for, because a subclass may compute something else.
    """
    if type(network) is masked_network.MaskedNetwork:
        return _mirror_masked(network)
    if type(network) is actor_network.ActorNetwork:
        torso = mirror_torso(network)
        if torso is None:
            return None
        _, mask_leaf = _leaf_positions(network.input_tensor_spec, network.splitter)
        return NumpyActor(torso, [_mirror_own_head(head) for head in network.heads], mask_leaf)
    if type(network) is actor_distribution_network.ActorDistributionNetwork:
        return _mirror_tf_agents(network)
    return None


def mirror_torso(network: Any) -> NumpyTorso | None:
    """The mirror of the encoder and memory of an `ActorNetwork` or `ValueNetwork`; `None` if a part has none."""
    own = (actor_network.ActorNetwork, value_network.ValueNetwork)
    if type(network) not in own or type(network.encoder) is not encoders.ObservationEncoder:
        return None
    positions, _ = _leaf_positions(network.input_tensor_spec, network.splitter)
    layers = mirror_layers(network.encoder.dense_layers)
    leaves = [_mirror_leaf(leaf) for leaf in network.encoder.leaf_encoders]
    memory = None if network.memory is None else _mirror_memory(network.memory)
    if positions is None or layers is None or None in leaves or (memory is None) != (network.memory is None):
        return None
    return NumpyTorso(NumpyEncoder([leaf for leaf in leaves if leaf is not None], layers, positions), memory)


def _leaf_positions(input_spec: Any, splitter: Any) -> tuple[list[int] | None, int | None]:
    """Which leaves of an observation are encoded, and which one is the mask.

    `None` for the first if they are more than picked out by the splitter.
    """
    position = {id(leaf): i for i, leaf in enumerate(tf.nest.flatten(input_spec))}
    observation_spec, mask_spec = action_masks.split(input_spec, splitter)
    positions = [position.get(id(leaf)) for leaf in tf.nest.flatten(observation_spec)]
    mask_leaf = position.get(id(mask_spec))
    if None in positions or (mask_leaf is None and mask_spec is not None):
        return None, None
    return [i for i in positions if i is not None], mask_leaf


def _mirror_leaf(leaf: Any) -> NumpyLeaf | None:
    if type(leaf) is encoders.Numbers:
        return NumpyNumbers(leaf.size)
    if type(leaf) is encoders.Categories:
        return NumpyCategories(leaf)
    return NumpyEmbedding(leaf) if type(leaf) is encoders.Embedding else None


def _mirror_memory(memory: Any) -> NumpyMemory | None:
    """What the memory itself offers."""
    make = getattr(memory, "numpy_mirror", None)
    return None if make is None else make()


def _mirror_own_head(head: heads.NormalHead | heads.CategoricalHead) -> NumpyHead:
    if isinstance(head, heads.CategoricalHead):
        dense = NumpyDense(head.logits_layer)
        return NumpyCategoricalHead(dense, head.possible, head.minimum, head.spec.dtype, head.mask_indices)
    scale: FixedScale | DependentScale
    if head.std_layer is None:
        scale = FixedScale(lambda: np.exp(read(head.log_std)))
    else:
        scale = DependentScale(NumpyDense(head.std_layer), heads.MIN_STD)
    shape = tuple(head.spec.shape)
    return NumpyNormalHead(NumpyDense(head.mean_layer), scale, shape, head.spec.dtype, bounds=head.bounds)


def _mirror_masked(network: masked_network.MaskedNetwork) -> NumpyActor | None:
    """The mirror of a network of TF-Agents inside; our own needs no wrapper."""
    wrapped = network.network
    if type(wrapped) is not actor_distribution_network.ActorDistributionNetwork:
        return None
    positions, mask_leaf = _leaf_positions(network.input_tensor_spec, network.splitter)
    if positions is None or mask_leaf is None:
        return None
    return _mirror_tf_agents(wrapped, positions, mask_leaf, network.leaf_indices)


def _mirror_tf_agents(
    network: actor_distribution_network.ActorDistributionNetwork,
    positions: list[int] | None = None,
    mask_leaf: int | None = None,
    leaf_indices: Sequence[Array | None] | None = None,
) -> NumpyActor | None:
    encoder = _mirror_encoding_network(network._encoder, positions)
    projections = tf.nest.flatten(network._projection_networks)
    indices = leaf_indices or [None] * len(projections)
    numpy_heads = [_mirror_projection(*pair) for pair in zip(projections, indices, strict=True)]
    if encoder is None or None in numpy_heads:
        return None
    return NumpyActor(NumpyTorso(encoder), [head for head in numpy_heads if head is not None], mask_leaf)


def _mirror_encoding_network(
    network: encoding_network.EncodingNetwork, positions: list[int] | None
) -> NumpyEncoder | None:
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
    if layers is None:
        return None
    return NumpyEncoder([NumpyNumbers(specs[0].shape.num_elements())], layers, positions)


def _mirror_projection(projection: Any, mask_indices: Array | None) -> NumpyHead | None:
    if type(projection) is categorical_projection_network.CategoricalProjectionNetwork:
        return _mirror_categorical(projection, mask_indices)
    if type(projection) is normal_projection_network.NormalProjectionNetwork:
        return _mirror_normal(projection)
    return None


def _mirror_categorical(
    projection: categorical_projection_network.CategoricalProjectionNetwork, mask_indices: Array | None
) -> NumpyCategoricalHead:
    shape = projection._output_shape.as_list()
    # TF-Agents counts categories from 0, whatever the minimum of the spec.
    minimum = np.zeros(shape[:-1], np.int64)
    dense = NumpyDense(projection._projection_layer)
    return NumpyCategoricalHead(dense, np.ones(shape, bool), minimum, projection._sample_spec.dtype, mask_indices)


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
        return std_transform(read(projection._bias.bias))

    scale = FixedScale(read_scale)
    return NumpyNormalHead(NumpyDense(mean_layer), scale, tuple(spec.shape), spec.dtype, mean_transform)


def _mean_transform(transform: Any, spec: Any) -> Callable[[Array], Array] | None:
    if transform is None:
        return lambda x: x
    if transform is not normal_projection_network.tanh_squash_to_spec:
        return None
    means = ((spec.maximum + spec.minimum) / 2.0).astype(np.float32)
    magnitudes = ((spec.maximum - spec.minimum) / 2.0).astype(np.float32)
    return lambda x: means + magnitudes * np.tanh(x)
