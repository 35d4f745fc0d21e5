"""OffsetCategorical against Categorical."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.distributions import utils as distribution_utils

from ppo_agent.networks import action_distributions

OFFSET = (-2, 3)


@pytest.fixture
def logits(rng: np.random.Generator) -> tf.Tensor:
    return tf.constant(rng.normal(size=(4, 2, 5)), tf.float32)


def test_offset_shifts_values_and_keeps_probabilities(logits: tf.Tensor, rng: np.random.Generator) -> None:
    plain = tfp.distributions.Categorical(logits)
    offset = action_distributions.OffsetCategorical(logits, OFFSET, tf.int64)
    index = rng.integers(0, 5, (4, 2))
    np.testing.assert_allclose(offset.log_prob(index + OFFSET), plain.log_prob(index))
    np.testing.assert_allclose(offset.cdf(index + OFFSET), plain.cdf(index), rtol=1e-6)
    np.testing.assert_array_equal(offset.mode(), plain.mode() + OFFSET)
    np.testing.assert_allclose(offset.entropy(), plain.entropy())
    assert offset.mode().dtype == offset.sample().dtype == tf.int64


def test_samples_lie_in_the_shifted_range_with_the_right_frequencies(logits: tf.Tensor) -> None:
    distribution = action_distributions.OffsetCategorical(logits, OFFSET)
    samples = distribution.sample(20_000).numpy() - OFFSET
    frequencies = np.stack([(samples == k).mean(0) for k in range(5)], axis=-1)
    np.testing.assert_allclose(frequencies, tf.nn.softmax(logits), atol=0.015)


def test_kl_divergence_is_that_of_the_categoricals(logits: tf.Tensor) -> None:
    other = tf.reverse(logits, [0])
    result = action_distributions.OffsetCategorical(logits, OFFSET).kl_divergence(
        action_distributions.OffsetCategorical(other, OFFSET)
    )
    expected = tfp.distributions.Categorical(logits).kl_divergence(tfp.distributions.Categorical(other))
    np.testing.assert_allclose(result, expected)


def test_survives_copy_function_boundary_and_parameter_round_trip(logits: tf.Tensor) -> None:
    distribution = action_distributions.OffsetCategorical(logits, OFFSET, tf.int64)
    parameters = distribution_utils.get_parameters(distribution)
    assert set(distribution_utils.parameters_to_dict(parameters, tensors_only=True)) == {"logits"}
    returned = tf.function(lambda: action_distributions.OffsetCategorical(logits, OFFSET, tf.int64))()
    for twin in (distribution.copy(), returned, distribution_utils.make_from_parameters(parameters)):
        assert isinstance(twin, action_distributions.OffsetCategorical)
        np.testing.assert_array_equal(twin.mode(), distribution.mode())
