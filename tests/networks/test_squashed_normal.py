"""SquashedNormal against SciPy and numerical integration: inside, at the bounds, and on its way through TF-Agents."""

from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.distributions import utils as distribution_utils

from ppo_agent.networks import action_distributions

LOW, HIGH = (-1.0, 0.0, -3.0), (1.0, 2.0, 50.0)


def _squashed(loc: Any, scale: Any, low: Any = LOW, high: Any = HIGH, dtype: Any = tf.float32) -> Any:
    return action_distributions.SquashedNormal(tf.constant(loc, dtype), tf.constant(scale, dtype), low, high)


@pytest.fixture
def squashed(rng: np.random.Generator) -> Any:
    return _squashed(rng.normal(size=(6, 3)), rng.uniform(0.3, 1.5, (6, 3)))


def _oracle(distribution: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and log-densities of normal numbers x, in float64."""
    low, high = np.asarray(distribution.low), np.asarray(distribution.high)
    value = low + (high - low) * (np.tanh(x) + 1) / 2
    log_slope = np.log((high - low) / 2) - 2 * np.log(np.cosh(x))
    normal = scipy.stats.norm(distribution.loc.numpy().astype(float), distribution.scale.numpy().astype(float))
    return value, normal.logpdf(x) - log_slope


def test_log_probability_is_that_of_the_change_of_variables(squashed: Any, rng: np.random.Generator) -> None:
    value, expected = _oracle(squashed, rng.uniform(-3.0, 3.0, (6, 3)))
    np.testing.assert_allclose(squashed.log_prob(value.astype(np.float32)), expected, rtol=1e-4, atol=1e-3)
    exact = _squashed(squashed.loc.numpy(), squashed.scale.numpy(), dtype=tf.float64)
    np.testing.assert_allclose(exact.log_prob(value), expected, rtol=1e-9, atol=1e-9)


def test_density_integrates_to_one() -> None:
    grid = np.linspace(0.0, 2.0, 200_001)[1:-1]
    density = np.exp(_squashed(0.4, 0.8, 0.0, 2.0, tf.float64).log_prob(grid))
    np.testing.assert_allclose(scipy.integrate.trapezoid(density, grid), 1.0, atol=1e-5)


@pytest.mark.parametrize("loc", [-40.0, -3.0, 0.0, 3.0, 40.0])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 30.0])
@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 1.0), (-1e-3, 7e3)])
def test_everything_is_finite_at_the_bounds(loc: float, scale: float, bounds: Any) -> None:
    parameters = [tf.constant(loc), tf.constant(scale)]
    values = tf.constant([bounds[0], np.nextafter(np.float32(bounds[0]), np.float32(1)), sum(bounds) / 2, bounds[1]])
    with tf.GradientTape() as tape:
        tape.watch([*parameters, values])
        distribution = action_distributions.SquashedNormal(*parameters, *bounds)
        log_prob = distribution.log_prob(values)
        loss = tf.reduce_sum(log_prob) + distribution.entropy() + tf.reduce_sum(distribution.sample(10))
    assert np.all(np.isfinite(log_prob))
    for gradient in tape.gradient(loss, [*parameters, values]):
        assert np.all(np.isfinite(gradient))


def test_samples_and_mode_stay_inside_the_bounds(rng: np.random.Generator) -> None:
    distribution = _squashed(rng.normal(0, 30, (500, 3)), rng.uniform(1e-4, 30, (500, 3)))
    for values in (distribution.sample(20), distribution.mode()):
        assert np.all(values >= LOW)
        assert np.all(values <= HIGH)
    assert np.any(distribution.sample(20) == HIGH)
    np.testing.assert_allclose(_squashed(0.0, 1.0, -3.0, 5.0).mode(), 1.0, rtol=1e-6)


def test_samples_have_the_distribution_function() -> None:
    samples = _squashed(0.4, 0.8, -3.0, 50.0).sample(20_000).numpy().astype(float)
    x = np.arctanh(np.clip(2 * (samples + 3.0) / 53.0 - 1, -1 + 1e-9, 1 - 1e-9))
    assert scipy.stats.kstest(x, scipy.stats.norm(0.4, 0.8).cdf).pvalue > 1e-3


def test_samples_are_differentiable() -> None:
    loc = tf.constant(0.3)
    with tf.GradientTape() as tape:
        tape.watch(loc)
        mean = tf.reduce_mean(
            action_distributions.SquashedNormal(loc, tf.constant(0.01), -2.0, 4.0).sample(1000, seed=1)
        )
    np.testing.assert_allclose(tape.gradient(mean, loc), 3.0 * (1 - np.tanh(0.3) ** 2), rtol=1e-2)


def _exact_entropy(loc: float, scale: float, low: float, high: float) -> float:
    def integrand(t: float) -> float:
        x = loc + scale * t
        log_slope = np.log(2 * (high - low)) - np.logaddexp(0.0, 2 * x) - np.logaddexp(0.0, -2 * x)
        return float(scipy.stats.norm.pdf(t) * log_slope)

    kink = [-loc / scale] if abs(loc / scale) < 10 else None
    expected_log_slope = scipy.integrate.quad(integrand, -12, 12, points=kink, limit=500)[0]
    return float(scipy.stats.norm(loc, scale).entropy()) + expected_log_slope


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_entropy_is_exact_to_1e_4_for_every_mean_and_scale(dtype: Any) -> None:
    locs, scales = np.meshgrid([-8.0, -2.0, -0.4, 0.0, 0.3, 1.0, 4.0], [1e-3, 0.1, 0.4, 1.0, 2.5, 6.0, 20.0])
    result = _squashed(locs.ravel(), scales.ravel(), 0.0, 3.0, dtype).entropy()
    expected = [_exact_entropy(m, s, 0.0, 3.0) for m, s in zip(locs.ravel(), scales.ravel(), strict=True)]
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


def test_kl_divergence_is_that_of_the_normals(squashed: Any) -> None:
    other = _squashed(squashed.loc + 0.3, squashed.scale * 1.2)
    expected = tfp.distributions.Normal(squashed.loc, squashed.scale).kl_divergence(
        tfp.distributions.Normal(other.loc, other.scale)
    )
    np.testing.assert_allclose(squashed.kl_divergence(other), expected)
    with pytest.raises(ValueError, match="must be equal"):
        squashed.kl_divergence(_squashed(squashed.loc, squashed.scale, -9.0, 9.0))


def test_survives_copy_function_boundary_slicing_and_parameter_round_trip(squashed: Any) -> None:
    parameters = distribution_utils.get_parameters(squashed)
    tensors = distribution_utils.parameters_to_dict(parameters, tensors_only=True)
    assert set(tensors) == {"loc", "scale"}
    rebuilt = distribution_utils.make_from_parameters(
        distribution_utils.merge_to_parameters_from_dict(parameters, tensors)
    )
    returned = tf.function(lambda: _squashed(squashed.loc.numpy(), squashed.scale.numpy()))()
    repacked = tf.nest.pack_sequence_as(
        squashed, tf.nest.flatten(squashed, expand_composites=True), expand_composites=True
    )
    value = squashed.sample()
    for twin in (squashed.copy(), returned, rebuilt, repacked):
        assert isinstance(twin, action_distributions.SquashedNormal)
        np.testing.assert_allclose(twin.log_prob(value), squashed.log_prob(value), rtol=1e-6)
    np.testing.assert_array_equal(squashed[2:4].mode(), squashed.mode()[2:4])
    assert squashed.batch_shape == (6, 3)
    assert tfp.distributions.Independent(squashed, 1).event_shape == (3,)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_works_in_a_graph_and_under_xla(jit_compile: bool, squashed: Any) -> None:
    value = squashed.sample()

    @tf.function(jit_compile=jit_compile)
    def compute(loc: tf.Tensor, scale: tf.Tensor) -> Any:
        twin = action_distributions.SquashedNormal(loc, scale, LOW, HIGH)
        return twin.log_prob(value), twin.entropy(), twin.mode(), twin.kl_divergence(squashed)

    expected = squashed.log_prob(value), squashed.entropy(), squashed.mode(), np.zeros((6, 3))
    for result, reference in zip(compute(squashed.loc, squashed.scale), expected, strict=True):
        np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-5)


FAR = [(1000.0, 1000.5), (-1e6, -1e6 + 128), (1e5, 1e5 + 16), (0.0, 1e-30), (-1e30, 1e30), (1e3, 1e6), (-1e-3, 7e3)]


@pytest.mark.parametrize("bounds", FAR)
@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (-1.0, 0.5), (2.0, 1.0), (-3.0, 1.0), (1.0, 3.0)])
def test_importance_ratios_of_actions_as_float32_have_a_mean_of_1(bounds: Any, loc: float, scale: float) -> None:
    old = _squashed(loc, scale, *bounds)
    new = _squashed(loc + 0.2 * scale, scale, *bounds)
    actions = old.sample(200_000, seed=1)
    log_ratio = (new.log_prob(actions) - old.log_prob(actions)).numpy().astype(np.float64)
    # Rounding loses a part of the information, no more.
    assert np.mean(np.exp(log_ratio)) == pytest.approx(1.0, abs=5e-3)
    assert np.mean(np.exp(log_ratio) - 1 - log_ratio) == pytest.approx(0.02, abs=2e-3)
    assert float(old.kl_divergence(new)) == pytest.approx(0.02, rel=1e-4)


@pytest.mark.parametrize("bounds", FAR)
def test_far_from_zero_everything_is_finite_at_the_bounds(bounds: Any) -> None:
    for loc, scale in ((-40.0, 1e-4), (0.0, 1.0), (3.0, 30.0)):
        parameters = [tf.constant(loc), tf.constant(scale)]
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            distribution = action_distributions.SquashedNormal(*parameters, *bounds)
            log_prob = distribution.log_prob(tf.constant([bounds[0], bounds[1]]))
        assert np.isfinite(log_prob).all()
        assert np.isfinite(tape.gradient(log_prob, parameters)).all()
