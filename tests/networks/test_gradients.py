"""Log-probability and entropy of every head, and their gradients, against SciPy in float64 and finite differences."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.networks import heads, initializers

Weights = list[np.ndarray]
ROWS, FEATURES = 7, 5
UNEQUAL = tensor_spec.BoundedTensorSpec([4], tf.int32, 0, [1, 4, 0, 2])
OFFSET = tensor_spec.BoundedTensorSpec([2], tf.int64, [3, -2], [4, 1])
BOX = tensor_spec.BoundedTensorSpec([2, 2], tf.float32, [[-1, 0], [-1, -2]], [[1, 3], [2, 2]])
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "categorical": (tensor_spec.BoundedTensorSpec([], tf.int64, 0, 3), {}),
    "offset": (OFFSET, {}),
    "binary": (tensor_spec.BoundedTensorSpec([3], tf.int32, 0, 1), {}),
    "unequal": (UNEQUAL, {}),
    "masked": (UNEQUAL, {"mask": True}),
    "masked offset": (OFFSET, {"mask": True}),
    "normal": (BOX, {}),
    "scalar normal": (tensor_spec.TensorSpec([], tf.float32), {}),
    "state-dependent": (BOX, {"state_dependent_std": True}),
    "squashed": (BOX, {"squash": True}),
    "squashed state-dependent": (BOX, {"squash": True, "state_dependent_std": True}),
}


class Case:
    """A head with random weights, features, mask and actions, and its oracle."""

    def __init__(self, spec: Any, options: dict[str, Any], rng: np.random.Generator) -> None:
        self.spec, options = spec, dict(options)
        mask = options.pop("mask", False)
        self.features = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
        self.mask = None
        if mask:
            self.mask = _random_mask(spec, rng)
            options["mask_spec"] = tf.TensorSpec([self.mask.shape[1]], tf.bool)
        (self.head,) = heads.make_heads(spec, initializers.SeedSource(1, ""), -0.3, **options)
        self.head(self.features)
        for variable in self.head.variables:
            variable.assign(rng.normal(size=variable.shape) * 0.4)
        self.action = self.distribution().sample().numpy()

    def distribution(self) -> Any:
        arguments = (self.features,) if self.mask is None else (self.features, tf.constant(self.mask))
        return self.head.distribution(self.head(*arguments))

    def weights(self) -> Weights:
        return [variable.numpy().astype(np.float64) for variable in self.head.trainable_variables]

    def oracle(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities and entropies [ROWS]."""
        if self.spec.dtype.is_integer:
            return self._categorical(*weights)
        loc, scale = self._normal_parameters(weights)
        if self.head.bounds is None:
            normal = scipy.stats.norm(loc, scale)
            return normal.logpdf(self.action.reshape(ROWS, -1)).sum(1), normal.entropy().sum(1)
        return _squashed(loc, scale, self.action.reshape(ROWS, -1), self.spec)

    def _normal_parameters(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        if self.head.std_layer is None:
            log_std, kernel, bias = weights
            return self.features @ kernel + bias, np.broadcast_to(np.exp(log_std), (ROWS, log_std.size))
        kernel, bias, std_kernel, std_bias = weights
        return self.features @ kernel + bias, np.logaddexp(0, self.features @ std_kernel + std_bias) + heads.MIN_STD

    def _categorical(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = (self.features @ kernel + bias).reshape(ROWS, self.head.minimum.size, -1)
        index = self.action.reshape(ROWS, -1) - self.head.minimum.ravel()
        log_prob, entropy, start = np.zeros(ROWS), np.zeros(ROWS), 0
        for component, size in enumerate(self.head.num_categories.ravel()):
            part = logits[:, component, :size]
            if self.mask is not None:
                part = np.where(self.mask[:, start : start + size], part, -np.inf)
            start += size
            log_p = scipy.special.log_softmax(part, axis=-1)
            log_prob += log_p[np.arange(ROWS), index[:, component]]
            entropy += scipy.stats.entropy(np.exp(log_p), axis=-1)
        return log_prob, entropy


def _random_mask(spec: Any, rng: np.random.Generator) -> np.ndarray:
    sizes = (np.broadcast_to(spec.maximum, spec.shape) - np.broadcast_to(spec.minimum, spec.shape) + 1).ravel()
    mask = rng.random((ROWS, sizes.sum())) < 0.5
    first = np.cumsum(sizes) - sizes
    mask[:, first + rng.integers(0, sizes)] = True
    return mask


def _squashed(loc: np.ndarray, scale: np.ndarray, action: np.ndarray, spec: Any) -> tuple[np.ndarray, np.ndarray]:
    low, high = (np.ravel(bound).astype(np.float64) for bound in (spec.minimum, spec.maximum))
    action = action.astype(np.float64)
    x = np.arctanh((2 * action - low - high) / (high - low))
    log_prob = scipy.stats.norm(loc, scale).logpdf(x) - np.log(2 * (action - low) * (high - action) / (high - low))
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    t = (loc[..., np.newaxis] + scale[..., np.newaxis] * nodes) * 2
    log_slope = np.log(2 * (high - low))[:, np.newaxis] - np.logaddexp(0, t) - np.logaddexp(0, -t)
    entropy = scipy.stats.norm(loc, scale).entropy() + (log_slope * weights).sum(-1) / np.sqrt(2 * np.pi)
    return log_prob.sum(1), entropy.sum(1)


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest, rng: np.random.Generator) -> Case:
    return Case(*request.param, rng)


def test_log_probability_and_entropy_are_those_of_scipy(case: Case) -> None:
    log_prob, entropy = case.oracle(case.weights())
    np.testing.assert_allclose(case.distribution().log_prob(case.action), log_prob, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(case.distribution().entropy(), entropy, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("index", [0, 1], ids=["log_prob", "entropy"])
def test_gradients_are_finite_differences_of_scipy(case: Case, index: int, rng: np.random.Generator) -> None:
    row_weights = rng.normal(size=ROWS)
    functions: list[Callable[[Any], Any]] = [lambda d: d.log_prob(case.action), lambda d: d.entropy()]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(functions[index](case.distribution()) * row_weights.astype(np.float32))
    gradients = tape.gradient(loss, case.head.trainable_variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    weights = case.weights()
    for _ in range(4):
        direction = [rng.normal(size=weight.shape) for weight in weights]

        def along(step: float, direction: Weights = direction) -> float:
            moved = [weight + step * d for weight, d in zip(weights, direction, strict=True)]
            return float((case.oracle(moved)[index] * row_weights).sum())

        expected = (along(1e-5) - along(-1e-5)) / 2e-5
        found = sum(np.sum(g * d) for g, d in zip(gradients, direction, strict=True))
        magnitude = sum(np.sum(np.abs(g * d)) for g, d in zip(gradients, direction, strict=True))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * magnitude + 1e-5)


def test_kl_divergence_is_the_expected_difference_of_log_probabilities(case: Case, rng: np.random.Generator) -> None:
    old = case.distribution()
    actions = old.sample(20_000)
    old_log_prob = old.log_prob(actions)
    for variable in case.head.variables:
        variable.assign_add(rng.normal(size=variable.shape) * 0.05)
    new = case.distribution()
    difference = (old_log_prob - new.log_prob(actions)).numpy()
    tolerance = 5 * difference.std(0) / np.sqrt(len(difference)) + 1e-5
    assert np.all(np.abs(difference.mean(0) - old.kl_divergence(new)) < tolerance)
