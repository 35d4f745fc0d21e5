"""Which observations fit a network, in which dtypes, and how masks are split off."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.networks import inputs

NESTED = {
    "camera": tensor_spec.BoundedTensorSpec([2, 3], tf.uint8, 0, 255, "camera"),
    "place": (
        tensor_spec.BoundedTensorSpec([], tf.int64, 2, 4, "place"),
        tensor_spec.TensorSpec([2], tf.float64, "speed"),
    ),
}
IMAGE = tensor_spec.BoundedTensorSpec([7, 7, 3], tf.uint8, 0, 255, "view")
MASKED = {"observation": NESTED, "action_mask": tensor_spec.BoundedTensorSpec([5], tf.int8, 0, 1, "allowed")}


def test_outer_shape_takes_static_sizes_and_traces_unknown_ones() -> None:
    spec = tf.TensorSpec([2], tf.float32)
    assert inputs.outer_shape(tf.zeros([3, 4, 2]), spec) == [3, 4]

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 2])])
    def dynamic(x: tf.Tensor) -> tf.Tensor:
        outer = inputs.outer_shape(x, spec)
        assert outer[1] == 4
        return inputs.unflatten(tf.zeros([tf.size(x) // 2, 5]), outer)

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
        inputs.network_input_spec(spec)


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
        inputs.check_fits(other, inputs.network_input_spec(NESTED))


def test_check_fits_accepts_other_number_types() -> None:
    floats = {**NESTED, "camera": tf.TensorSpec([2, 3], tf.float32)}
    inputs.check_fits(floats, inputs.network_input_spec(NESTED))


def test_dtypes_follow_the_kind_of_leaf() -> None:
    spec = inputs.network_input_spec({**NESTED, "view": IMAGE})
    assert [leaf.dtype for leaf in tf.nest.flatten(spec)] == [tf.float32, tf.int32, tf.float32, tf.uint8]
    assert (spec["place"][0].minimum, spec["place"][0].maximum) == (2, 4)


def test_normalised_images_and_masks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"view holds images .*found float32.*must not be normalised"):
        inputs.cast_to_spec(tf.zeros([1, 7, 7, 3]), inputs.network_input_spec(IMAGE))
    with pytest.raises(ValueError, match="allowed is an action mask, but found float32"):
        inputs.check_fits({**MASKED, "action_mask": tf.TensorSpec([5], tf.float32)}, inputs.network_input_spec(MASKED))


def test_mask_is_split_off_and_rows_are_joined(rng: np.random.Generator) -> None:
    spec = inputs.network_input_spec(MASKED)
    assert spec["action_mask"].dtype == tf.bool
    observation = tensor_spec.sample_spec_nest(spec, outer_dims=(2, 3))
    rows = inputs.to_rows(observation, spec)
    assert rows.outer == [2, 3]
    np.testing.assert_array_equal(rows.mask, tf.reshape(observation["action_mask"], [6, 5]))
    np.testing.assert_array_equal(
        rows.observation["place"][1], tf.reshape(observation["observation"]["place"][1], [6, 2])
    )


def test_splitter_says_which_leaf_is_the_mask() -> None:
    specs = (IMAGE, tensor_spec.BoundedTensorSpec([4], tf.int32, 0, 1), tf.TensorSpec([4], tf.float32))

    def splitter(observation: Any) -> Any:
        return {"all": (observation[0], observation[1])}, observation[1]

    assert [leaf.dtype for leaf in inputs.network_input_spec(specs, splitter)] == [tf.uint8, tf.bool, tf.float32]
    assert inputs.network_input_spec(specs, lambda o: (o[:2], o[2]))[2].dtype == tf.float32
    spec = inputs.network_input_spec(specs, splitter)
    rows = inputs.to_rows(tensor_spec.sample_spec_nest(spec, outer_dims=(3,)), spec, splitter)
    assert rows.mask is not None
    np.testing.assert_array_equal(rows.mask, rows.observation["all"][1])
