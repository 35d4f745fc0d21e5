"""Observations of every kind become vectors of numbers."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.networks import ObservationEncoder, ValueNetwork, inputs

NESTED = {
    "camera": tensor_spec.BoundedTensorSpec([2, 3], tf.uint8, 0, 255, "camera"),
    "place": (
        tensor_spec.BoundedTensorSpec([], tf.int64, 2, 4, "place"),
        tensor_spec.TensorSpec([2], tf.float64, "speed"),
    ),
    "switches": tensor_spec.BoundedTensorSpec([3], tf.int8, 0, 1, "switches"),
}
DIALS = tensor_spec.BoundedTensorSpec([3], tf.int64, [0, -1, 2], [1, 2, 2], "dials")
EQUAL = tensor_spec.BoundedTensorSpec([2], tf.int32, 0, 2)


def _encoder(spec: Any, **kwargs: Any) -> ObservationEncoder:
    return ObservationEncoder(spec, **{"fc_layers": (), "seed": 1, **kwargs})


def _encode(observation: Any, spec: Any, **kwargs: Any) -> np.ndarray:
    return _encoder(spec, **kwargs)(inputs.cast_to_spec(observation, inputs.network_input_spec(spec))).numpy()


def test_leaves_are_flattened_one_hot_encoded_and_joined(rng: np.random.Generator) -> None:
    camera, switches = rng.integers(0, 256, (5, 2, 3), np.uint8), rng.integers(0, 2, (5, 3), np.int8)
    place, speed = rng.integers(2, 5, 5), rng.normal(size=(5, 2))
    observation = {"camera": camera, "place": (place, speed), "switches": switches}
    encoded = _encode(tf.nest.map_structure(tf.constant, observation), NESTED)
    expected = np.concatenate([camera.reshape(5, 6), np.eye(3)[place - 2], speed, switches], axis=1)
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, expected, rtol=1e-6)


@pytest.mark.parametrize("spec", [DIALS, EQUAL])
def test_each_component_has_a_one_hot_vector(spec: Any, rng: np.random.Generator) -> None:
    values = rng.integers(spec.minimum, spec.maximum + 1, (20, *spec.shape))
    low, high = np.broadcast_to(spec.minimum, spec.shape), np.broadcast_to(spec.maximum, spec.shape)
    expected = [np.eye(b - a + 1)[values[:, i] - a] for i, (a, b) in enumerate(zip(low, high, strict=True))]
    np.testing.assert_array_equal(_encode(tf.constant(values), spec), np.concatenate(expected, axis=1))


def test_embedding_is_a_row_of_the_table_for_each_component(rng: np.random.Generator) -> None:
    values = rng.integers(DIALS.minimum, DIALS.maximum + 1, (20, 3))
    encoder = _encoder(DIALS, embedding_size=4)
    encoded = encoder(tf.constant(values, tf.int32)).numpy().reshape(20, 3, 4)
    (table,) = encoder.get_weights()
    first_row = [0, 2, 6]
    for component in range(3):
        rows = first_row[component] + values[:, component] - DIALS.minimum[component]
        np.testing.assert_array_equal(encoded[:, component], table[rows])
    assert table.shape == (7, 4)
    assert len(np.unique(table)) == table.size


def test_embedding_is_trained() -> None:
    encoder = _encoder(DIALS, embedding_size=4)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(tf.constant([[0, 1, 2]])))
    gradient = tf.convert_to_tensor(tape.gradient(loss, encoder.trainable_variables)[0])
    np.testing.assert_array_equal(np.any(gradient, axis=1), [1, 0, 0, 0, 1, 0, 1])


def test_scalar_category_is_embedded() -> None:
    assert _encode(tf.constant([2, 4]), NESTED["place"][0], embedding_size=3).shape == (2, 3)


def test_a_mask_is_left_out() -> None:
    spec = {"observation": EQUAL, "action_mask": tensor_spec.BoundedTensorSpec([9], tf.int8, 0, 1)}
    assert _encoder(spec)(tf.constant([[0, 1]])).shape == (1, 6)


def test_copy_has_the_same_layers_and_variables_of_its_own() -> None:
    encoder = ObservationEncoder(NESTED, (4, 3), "relu", embedding_size=2, seed=3, name="torso")
    copy = encoder.copy(fc_layers=(5,))
    observation = tensor_spec.sample_spec_nest(inputs.network_input_spec(NESTED), outer_dims=(2,))
    assert (encoder(observation).shape, copy(observation).shape) == ((2, 3), (2, 5))
    assert copy.name == "torso"
    assert not {v.ref() for v in copy.variables} & {v.ref() for v in encoder.variables}


def test_embedding_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="embedding_size: found 0, expected a positive number"):
        ObservationEncoder(DIALS, embedding_size=0)


@pytest.mark.parametrize("fc_layers", [64, "64", (4.5,), ("64",), (0,), (8, -4), (10**20,), None])
def test_units_that_are_no_positive_integers(fc_layers):
    with pytest.raises(ValueError, match=r"fc_layers is .*, expected a sequence of positive integers"):
        ValueNetwork(tf.TensorSpec([3], tf.float32), fc_layers)


@pytest.mark.parametrize("activation", ["tanhh", 3])
def test_an_unknown_activation(activation):
    with pytest.raises(ValueError, match=rf"activation is {activation!r}, expected a Keras name such as"):
        ValueNetwork(tf.TensorSpec([3], tf.float32), activation=activation)


@pytest.mark.parametrize("spec", [None, {"a": 3}, ["x"]])
def test_specs_that_are_none(spec):
    with pytest.raises(TypeError, match=r"observation_spec: found \w+, expected a nest of tf.TensorSpec"):
        ValueNetwork(spec)
