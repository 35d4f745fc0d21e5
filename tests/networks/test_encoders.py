"""Observations of every kind become vectors of numbers."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.networks import encoders, initializers

NESTED = {
    "camera": tensor_spec.BoundedTensorSpec([2, 3], tf.uint8, 0, 255, "camera"),
    "place": (
        tensor_spec.BoundedTensorSpec([], tf.int64, 2, 4, "place"),
        tensor_spec.TensorSpec([2], tf.float64, "speed"),
    ),
}


def _encode(observation: Any, spec: Any) -> np.ndarray:
    input_spec = encoders.network_input_spec(spec)
    encoder = encoders.ObservationEncoder(input_spec, (), "tanh", initializers.SeedSource(0, ""))
    return encoder(encoders.cast_to_spec(observation, input_spec)).numpy()


def test_leaves_are_flattened_one_hot_encoded_and_joined(rng: np.random.Generator) -> None:
    camera = rng.integers(0, 256, (5, 2, 3), np.uint8)
    place, speed = rng.integers(2, 5, 5), rng.normal(size=(5, 2))
    encoded = _encode({"camera": tf.constant(camera), "place": (tf.constant(place), tf.constant(speed))}, NESTED)
    expected = np.concatenate([camera.reshape(5, 6), np.eye(3)[place - 2], speed], axis=1)
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, expected, rtol=1e-6)


def test_two_outer_dimensions_are_joined() -> None:
    observation = tensor_spec.sample_spec_nest(encoders.network_input_spec(NESTED), outer_dims=(3, 4))
    rows = tf.nest.map_structure(lambda x: tf.reshape(x, [12, *x.shape[2:]]), observation)
    np.testing.assert_array_equal(_encode(observation, NESTED), _encode(rows, NESTED))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (tensor_spec.BoundedTensorSpec([], tf.int32, -1, 3), 5),
        (tensor_spec.BoundedTensorSpec([], tf.uint8, 0, 255), 256),
        (tensor_spec.BoundedTensorSpec([2], tf.int32, 0, 3), None),
        (tensor_spec.BoundedTensorSpec([], tf.int32, 0, 5000), None),
        (tensor_spec.BoundedTensorSpec([], tf.float32, 0, 3), None),
        (tensor_spec.TensorSpec([], tf.int32), None),
    ],
)
def test_num_categories(spec: tf.TypeSpec, expected: int | None) -> None:
    assert encoders.num_categories(spec) == expected


def test_outer_shape_takes_static_sizes_and_traces_unknown_ones() -> None:
    spec = tf.TensorSpec([2], tf.float32)
    assert encoders.outer_shape(tf.zeros([3, 4, 2]), spec) == [3, 4]

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 2])])
    def dynamic(x: tf.Tensor) -> tf.Tensor:
        outer = encoders.outer_shape(x, spec)
        assert outer[1] == 4
        return encoders.unflatten(tf.zeros([tf.size(x) // 2, 5]), outer)

    assert dynamic(tf.zeros([3, 4, 2])).shape == [3, 4, 5]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (tf.TensorSpec([], tf.string, "words"), "words has dtype string"),
        (tf.TensorSpec([None], tf.float32, "pixels"), r"shape \(None,\) of pixels"),
    ],
)
def test_impossible_spec_is_refused(spec: tf.TypeSpec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoders.network_input_spec(spec)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"camera": NESTED["camera"]}, "structure"),
        ({**NESTED, "camera": tf.TensorSpec([3, 2], tf.uint8)}, r"shape \(2, 3\), but found \(3, 2\)"),
        ({**NESTED, "place": (tf.TensorSpec([], tf.float32), NESTED["place"][1])}, "categories cannot be normalised"),
    ],
)
def test_check_fits_names_what_differs(other: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoders.check_fits(other, encoders.network_input_spec(NESTED))


def test_check_fits_accepts_other_number_types() -> None:
    floats = {**NESTED, "camera": tf.TensorSpec([2, 3], tf.float32)}
    encoders.check_fits(floats, encoders.network_input_spec(NESTED))
