"""Distributions of the heads: exact zeros for padding, finite numbers, gradients, round trips."""

from typing import Any

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tf_agents.distributions import utils as distribution_utils
from tf_agents.specs import tensor_spec

from ppo_agent.networks import ActorNetwork, heads, initializers

SIZES = np.array([2, 5, 1, 3])
UNEQUAL = tensor_spec.BoundedTensorSpec([4], tf.int32, 0, SIZES - 1)
SHIFTED = tensor_spec.BoundedTensorSpec([2], tf.int64, [3, -2], [4, 1])
SPECS = {
    "discrete": tensor_spec.BoundedTensorSpec([], tf.int64, 0, 3),
    "discrete from 2": tensor_spec.BoundedTensorSpec([], tf.int32, 2, 4),
    "equal sizes": tensor_spec.BoundedTensorSpec([3], tf.int32, 0, 2),
    "unequal sizes": UNEQUAL,
    "shifted": SHIFTED,
    "matrix of integers": tensor_spec.BoundedTensorSpec([2, 2], tf.int32, [[0, 1], [2, 0]], [[1, 3], [2, 4]]),
    "scalar": tensor_spec.BoundedTensorSpec([], tf.float32, -1, 1),
    "vector": tensor_spec.BoundedTensorSpec([3], tf.float32, -1, 1),
    "matrix": tensor_spec.BoundedTensorSpec([2, 3], tf.float64, -1, 1),
    "unbounded": tensor_spec.TensorSpec([2], tf.float32),
}


def _make_head(spec: Any, *args: Any) -> Any:
    (head,) = heads.make_heads(spec, initializers.SeedSource(1, ""), *args)
    return head


def _head(spec: Any, features: tf.Tensor, rng: np.random.Generator) -> tuple[Any, Any]:
    """A head with weights of ordinary size, and its distribution."""
    head = _make_head(spec, -0.5)
    head(features)
    for variable in head.variables:
        variable.assign(rng.normal(size=variable.shape) * 0.5)
    return head, head.distribution(head(features))


@pytest.fixture
def features(rng: np.random.Generator) -> tf.Tensor:
    return tf.constant(rng.normal(size=(6, 8)), tf.float32)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_shapes_dtypes_and_support(spec: Any, features: tf.Tensor, rng: np.random.Generator) -> None:
    _, distribution = _head(spec, features, rng)
    assert distribution.event_shape == spec.shape
    assert distribution.batch_shape == [6]
    assert distribution.dtype == spec.dtype
    for action in (distribution.sample(50), distribution.mode()):
        assert action.dtype == spec.dtype
        if spec.dtype.is_integer:
            assert np.all(action >= spec.minimum)
            assert np.all(action <= spec.maximum)
    assert distribution.log_prob(distribution.sample()).shape == [6]
    assert distribution.entropy().shape == [6]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_parameters_survive_the_round_trip_of_tf_agents(
    spec: Any, features: tf.Tensor, rng: np.random.Generator
) -> None:
    head, distribution = _head(spec, features, rng)
    parameters = distribution_utils.get_parameters(distribution)
    tensors = distribution_utils.parameters_to_dict(parameters, tensors_only=True)
    stored = tf.nest.flatten(tensors)
    assert len(stored) == len(head(features))
    for tensor, own in zip(stored, tf.nest.flatten(head(features)), strict=True):
        np.testing.assert_array_equal(tensor, own)
    rebuilt = distribution_utils.make_from_parameters(
        distribution_utils.merge_to_parameters_from_dict(parameters, tensors)
    )
    action = distribution.sample()
    np.testing.assert_array_equal(rebuilt.log_prob(action), distribution.log_prob(action))
    np.testing.assert_array_equal(rebuilt.kl_divergence(distribution), 0.0)


def test_normal_matches_scipy(features: tf.Tensor, rng: np.random.Generator) -> None:
    head, distribution = _head(SPECS["matrix"], features, rng)
    mean = (features.numpy() @ head.mean_layer.kernel.numpy() + head.mean_layer.bias.numpy()).reshape(6, 2, 3)
    scale = np.exp(head.log_std.numpy()).reshape(2, 3)
    action = rng.normal(size=(6, 2, 3))
    expected = scipy.stats.norm(mean, scale)
    np.testing.assert_allclose(distribution.log_prob(action), expected.logpdf(action).sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(distribution.entropy(), expected.entropy().sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(distribution.mode(), mean, rtol=1e-5)


def test_first_standard_deviation_is_the_keyword() -> None:
    head = _make_head(SPECS["vector"], -1.5)
    parameters = head(tf.ones([2, 4]))
    np.testing.assert_allclose(parameters["scale"], np.full([2, 3], np.exp(-1.5)), rtol=1e-6)


@pytest.mark.parametrize("spec", [UNEQUAL, SHIFTED, SPECS["matrix of integers"]])
def test_categorical_is_one_softmax_per_component(spec: Any, features: tf.Tensor, rng: np.random.Generator) -> None:
    head, distribution = _head(spec, features, rng)
    logits = head(features)["logits"].numpy().reshape(6, head.minimum.size, -1).astype(np.float64)
    action = distribution.sample()
    index = (action.numpy() - head.minimum).reshape(6, -1)
    expected, entropy = np.zeros(6), np.zeros(6)
    for component, size in enumerate(head.num_categories.ravel()):
        probabilities = scipy.special.softmax(logits[:, component, :size], axis=-1)
        expected += np.log(probabilities[np.arange(6), index[:, component]])
        entropy += scipy.stats.entropy(probabilities, axis=-1)
    np.testing.assert_allclose(distribution.log_prob(action), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(distribution.entropy(), entropy, rtol=1e-5, atol=1e-6)


def test_impossible_categories_have_probability_zero_and_never_occur(
    features: tf.Tensor, rng: np.random.Generator
) -> None:
    _, distribution = _head(UNEQUAL, features, rng)
    probabilities = tf.nn.softmax(distribution.distribution.logits).numpy()
    impossible = np.arange(5) >= SIZES[:, np.newaxis]
    assert np.all(probabilities[:, impossible] == 0.0)
    assert np.all(distribution.sample(5000) < SIZES)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("spec", [UNEQUAL, SHIFTED, SPECS["matrix"]])
def test_gradients_are_finite_and_those_of_finite_differences(
    spec: Any, jit_compile: bool, features: tf.Tensor, rng: np.random.Generator
) -> None:
    head, old = _head(spec, features, rng)
    action = old.sample()
    variables = head.trainable_variables
    for variable in variables:
        variable.assign_add(rng.normal(size=variable.shape) * 0.1)

    def loss() -> tf.Tensor:
        new = head.distribution(head(features))
        terms = new.log_prob(action) + 0.7 * new.entropy() + 0.3 * old.kl_divergence(new)
        return tf.reduce_sum(tf.cast(terms, tf.float32))

    @tf.function(jit_compile=jit_compile)
    def gradients() -> Any:
        with tf.GradientTape() as tape:
            value = loss()
        return value, tape.gradient(value, variables)

    value, result = gradients()
    assert np.isfinite(value)
    for variable, gradient in zip(variables, result, strict=True):
        assert np.all(np.isfinite(gradient))
        direction = rng.normal(size=variable.shape).astype(np.float32)
        start, step = variable.numpy(), 1e-2
        variable.assign(start + step * direction)
        up = loss()
        variable.assign(start - step * direction)
        down = loss()
        variable.assign(start)
        np.testing.assert_allclose(np.sum(gradient * direction), (up - down) / (2 * step), rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (tensor_spec.TensorSpec([], tf.int32, "gear"), "gear has no bounds"),
        (tensor_spec.TensorSpec([], tf.bool, "gear"), "gear has dtype bool"),
        (tensor_spec.BoundedTensorSpec([], tf.int32, 3, 2, "gear"), "gear has maximum 2 below minimum 3"),
        (tensor_spec.TensorSpec([None], tf.float32, "gear"), r"shape \(None,\) of gear"),
    ],
)
def test_impossible_spec_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _make_head(spec)


@pytest.mark.parametrize("bounds", [(-1e6, -1e6 + 1), (1e8, 1e8 + 100), (16777216.0, 16777300.0), (0.0, 1e-40)])
def test_squashing_to_bounds_that_float32_cannot_resolve_is_refused(bounds):
    spec = tensor_spec.BoundedTensorSpec([2], tf.float32, *bounds, name="wheel")
    with pytest.raises(ValueError, match=r"^squash: action wheel has bounds .* expected at least 1024 float32 numbers"):
        ActorNetwork(tf.TensorSpec([3], tf.float32), spec, squash=True)


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(tf.int32, 0, 2_000_000_000), (tf.int64, -(2**63), 2**63 - 1), (tf.int32, 0, 2**20)]
)
def test_too_many_discrete_actions_are_refused(dtype, low, high):
    spec = tensor_spec.BoundedTensorSpec([], dtype, low, high, name="choice")
    with pytest.raises(ValueError, match=r"^action_spec: choice has values from .*, expected at most 1048576 in all"):
        ActorNetwork(tf.TensorSpec([3], tf.float32), spec)
