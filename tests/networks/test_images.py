"""Images: scaling, layout of the channels, convolutions that fit."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.networks import ActorNetwork, ObservationEncoder, ValueNetwork


def _spec(*shape: int) -> Any:
    return tensor_spec.BoundedTensorSpec(shape, tf.uint8, 0, 255, "screen")


def _encoder(*shape: int, conv_layers: Any = None) -> ObservationEncoder:
    return ObservationEncoder(_spec(*shape), (), conv_layers=conv_layers, seed=1)


def _pixels(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, np.uint8)


def test_without_convolutions_pixels_are_scaled(rng: np.random.Generator) -> None:
    pixels = _pixels(rng, 3, 2, 4, 1)
    np.testing.assert_allclose(_encoder(2, 4, 1)(pixels), pixels.reshape(3, -1) / 255.0, rtol=1e-6)


@pytest.mark.parametrize(("largest", "scale"), [(255, 255), (100, 100), (64, 64)])
def test_pixels_are_scaled_by_their_bound(largest: int, scale: int, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, largest + 1, (3, 2, 4, 1), np.uint8)
    spec = tensor_spec.BoundedTensorSpec([2, 4, 1], tf.uint8, 0, largest)
    np.testing.assert_allclose(ObservationEncoder(spec, ())(pixels), pixels.reshape(3, -1) / scale, rtol=1e-6)


def test_planes_of_a_board_are_numbers(rng: np.random.Generator) -> None:
    board = rng.integers(0, 2, (3, 8, 8, 12), np.uint8)
    spec = tensor_spec.BoundedTensorSpec([8, 8, 12], tf.uint8, 0, 1)
    np.testing.assert_array_equal(ObservationEncoder(spec, ())(board), board.reshape(3, -1))


def test_convolution_is_the_textbook_sum_over_a_window(rng: np.random.Generator) -> None:
    encoder = _encoder(6, 5, 2, conv_layers=((3, 2, 2),))
    pixels = _pixels(rng, 2, 6, 5, 2)
    result = encoder(pixels).numpy().reshape(2, 3, 2, 3)
    kernel, bias = encoder.get_weights()
    for row in range(3):
        for column in range(2):
            window = pixels[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] / 255.0
            expected = np.maximum(np.einsum("nhwc,hwcf->nf", window, kernel) + bias, 0.0)
            np.testing.assert_allclose(result[:, row, column], expected, rtol=1e-4, atol=1e-5)


def test_frames_in_front_are_channels(rng: np.random.Generator) -> None:
    stacked, last = _encoder(4, 40, 36), _encoder(40, 36, 4)
    pixels = _pixels(rng, 2, 4, 40, 36)
    stacked(pixels)
    last(np.moveaxis(pixels, 1, -1))
    stacked.set_weights(last.get_weights())
    np.testing.assert_allclose(stacked(pixels), last(np.moveaxis(pixels, 1, -1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("axis", "shape"), [(-1, (4, 14, 13, 3)), (2, (4, 3, 14, 13))], ids=["last", "first"])
def test_channels_of_stacked_frames_are_joined(axis: int, shape: Any, rng: np.random.Generator) -> None:
    stacked, joined = _encoder(*shape), _encoder(14, 13, 12)
    pixels = _pixels(rng, 2, *shape)
    image = np.concatenate([np.moveaxis(pixels, axis, -1)[:, frame] for frame in range(4)], axis=-1)
    stacked(pixels)
    joined(image)
    stacked.set_weights(joined.get_weights())
    np.testing.assert_allclose(stacked(pixels), joined(image), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "layers", "features"),
    [
        ((84, 84, 4), 3, 3136),
        ((4, 84, 84), 3, 3136),
        ((210, 160, 3), 3, 64 * 22 * 16),
        ((36, 36, 1), 3, 64),
        ((35, 35, 3), 3, 64 * 7 * 7),
        ((10, 10, 4), 2, 32 * 9),
        ((5, 5, 3), 2, 32),
        ((4, 4, 3), 0, 48),
    ],
)
def test_default_convolutions_fit_every_size(shape: Any, layers: int, features: int) -> None:
    encoder = _encoder(*shape)
    assert encoder(np.zeros((1, *shape), np.uint8)).shape == (1, features)
    kernels = [v for v in encoder.variables if "kernel" in v.name]
    assert len(kernels) == layers
    for kernel in kernels:
        matrix = kernel.numpy().reshape(-1, kernel.shape[-1])
        np.testing.assert_allclose(matrix.T @ matrix, 2.0 * np.eye(matrix.shape[1]), atol=1e-4)


def test_networks_take_images_with_other_leaves_and_two_outer_dimensions(rng: np.random.Generator) -> None:
    spec = {"screen": _spec(8, 8, 3), "speed": tf.TensorSpec([2], tf.float32)}
    observation = {"screen": _pixels(rng, 2, 3, 8, 8, 3), "speed": rng.normal(size=(2, 3, 2)).astype(np.float32)}
    observation = tf.nest.map_structure(tf.constant, observation)
    value = ValueNetwork(spec, fc_layers=(5,))
    actor = ActorNetwork(spec, tensor_spec.BoundedTensorSpec([], tf.int32, 0, 2), fc_layers=(5,))
    value.create_variables(spec)
    assert actor(observation)[0].batch_shape == (2, 3)
    column = tf.nest.map_structure(lambda x: x[:, 1], observation)
    np.testing.assert_allclose(value(observation)[0][:, 1], value(column)[0], rtol=1e-4, atol=1e-5)
    assert len({v.name for v in value.variables}) == len(value.variables)


@pytest.mark.parametrize(
    ("shape", "conv_layers", "message"),
    [
        ((10, 9, 3), ((8, 3, 2), (8, 5, 1)), r"layer 1 has 5 x 5 pixels, but 4 x 4 are left of the image screen"),
        ((10, 10, 3), ((8, 3),), r"conv_layers: found \(8, 3\), expected positive"),
        ((10, 10, 3), ((8, 3, 0),), r"conv_layers: found \(8, 3, 0\), expected positive"),
        ((10, 0, 3), None, "the image screen .* is empty"),
    ],
)
def test_convolutions_that_do_not_fit_are_refused(shape: Any, conv_layers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _encoder(*shape, conv_layers=conv_layers)
