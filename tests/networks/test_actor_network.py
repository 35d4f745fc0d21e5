"""ActorNetwork and ValueNetwork: structure, initial weights, outer dimensions, TF-Agents' policy."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import actor_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ppo_agent.networks import ActorNetwork, ValueNetwork

VECTOR = tensor_spec.BoundedTensorSpec([5], tf.float32, -2, 2)
NESTED_OBSERVATION = {
    "grid": tensor_spec.BoundedTensorSpec([2, 2], tf.int32, 0, 9),
    "place": (tensor_spec.BoundedTensorSpec([], tf.int64, 1, 4), VECTOR),
}
NESTED_ACTION = {
    "gears": tensor_spec.BoundedTensorSpec([3], tf.int32, 0, [1, 2, 4]),
    "wheel": (
        tensor_spec.BoundedTensorSpec([2, 2], tf.float32, -1, 1),
        tensor_spec.BoundedTensorSpec([], tf.int64, 2, 5),
    ),
}
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 3)
CASES = {"plain": (VECTOR, DISCRETE), "nested": (NESTED_OBSERVATION, NESTED_ACTION)}


def _networks(observation: Any, action: Any, **kwargs: Any) -> list[Any]:
    networks = [ActorNetwork(observation, action, **kwargs), ValueNetwork(observation, **kwargs)]
    for network in networks:
        network.create_variables(observation)
    return networks


@pytest.mark.parametrize(("observation", "action"), CASES.values(), ids=CASES)
def test_actor_emits_distributions_like_the_action_spec(observation: Any, action: Any) -> None:
    actor = ActorNetwork(observation, action)
    output_spec = actor.create_variables()
    tf.nest.assert_same_structure(output_spec, action)
    for outer in ((4,), (4, 3)):
        distributions, state = actor(tensor_spec.sample_spec_nest(observation, outer_dims=outer))
        assert state == ()
        for distribution, spec in zip(tf.nest.flatten(distributions), tf.nest.flatten(action), strict=True):
            assert distribution.batch_shape == outer
            assert distribution.sample().shape == (*outer, *spec.shape)


@pytest.mark.parametrize(("observation", "action"), CASES.values(), ids=CASES)
def test_batch_and_time_dimensions_are_independent_rows(observation: Any, action: Any) -> None:
    actor, value = _networks(observation, action)
    sequence = tensor_spec.sample_spec_nest(observation, outer_dims=(4, 3))
    column = tf.nest.map_structure(lambda x: x[:, 1], sequence)
    np.testing.assert_allclose(value(sequence)[0][:, 1], value(column)[0], rtol=1e-5, atol=1e-6)
    modes = [tf.nest.map_structure(lambda d: d.mode(), actor(x)[0]) for x in (sequence, column)]
    for in_sequence, alone in zip(*map(tf.nest.flatten, modes), strict=True):
        np.testing.assert_allclose(in_sequence[:, 1], alone, rtol=1e-5, atol=1e-6)


def test_value_is_a_float_per_row() -> None:
    value = ValueNetwork(NESTED_OBSERVATION)
    assert value.create_variables() == tf.TensorSpec([], tf.float32)
    for outer in ((4,), (4, 3)):
        prediction, state = value(tensor_spec.sample_spec_nest(NESTED_OBSERVATION, outer_dims=outer), training=True)
        assert prediction.shape == outer
        assert state == ()


def test_forward_pass_is_the_textbook_perceptron(rng: np.random.Generator) -> None:
    actor, value = _networks(VECTOR, DISCRETE, fc_layers=(7, 6))
    observation = rng.normal(size=(4, 5)).astype(np.float32)
    for network, output in ((actor, lambda: actor(observation)[0].logits), (value, lambda: value(observation)[0])):
        for variable in network.variables:
            variable.assign(rng.normal(size=variable.shape))
        k0, b0, k1, b1, k2, b2 = (variable.numpy() for variable in network.variables)
        expected = np.tanh(np.tanh(observation @ k0 + b0) @ k1 + b1) @ k2 + b2
        np.testing.assert_allclose(output(), expected.reshape(output().shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("action", [DISCRETE, tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)])
def test_the_gain_of_the_last_kernel_can_be_chosen(action: tf.TypeSpec) -> None:
    network = ActorNetwork(VECTOR, action, (8,), output_gain=0.5)
    network.create_variables()
    kernel = [v.numpy() for v in network.trainable_weights if "kernel" in v.name][-1]
    gram = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
    np.testing.assert_allclose(gram, 0.25 * np.eye(len(gram)), atol=1e-5)


def test_initial_kernels_are_orthogonal_with_the_gains_of_ppo() -> None:
    for network, last_gain in zip(_networks(VECTOR, DISCRETE, fc_layers=(8, 8)), (0.01, 1.0), strict=True):
        kernels = [v.numpy() for v in network.variables if "kernel" in v.name]
        for kernel, gain in zip(kernels, (np.sqrt(2), np.sqrt(2), last_gain), strict=True):
            gram = kernel @ kernel.T if kernel.shape[0] <= kernel.shape[1] else kernel.T @ kernel
            np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=1e-5)
        assert all(not np.any(v.numpy()) for v in network.variables if "bias" in v.name)
        assert len(network.variables) == 6


def test_first_policy_is_nearly_uniform() -> None:
    actor, _ = _networks(VECTOR, DISCRETE)
    logits = actor(tensor_spec.sample_spec_nest(VECTOR, outer_dims=(50,)))[0].logits
    assert np.ptp(logits) < 0.1


def _weights(network: Any) -> np.ndarray:
    return np.concatenate([variable.numpy().ravel() for variable in network.variables])


@pytest.mark.parametrize("index", [0, 1], ids=["actor", "value"])
def test_seed_decides_the_weights(index: int) -> None:
    first, same, other = (_weights(_networks(VECTOR, DISCRETE, seed=seed)[index]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_without_a_seed_tensorflow_decides() -> None:
    def draw() -> np.ndarray:
        return _weights(_networks(VECTOR, DISCRETE)[0])

    tf.random.set_seed(3)
    first, second = draw(), draw()
    tf.random.set_seed(3)
    np.testing.assert_array_equal(draw(), first)
    assert not np.array_equal(first, second)


def test_layers_of_equal_shape_and_the_two_networks_start_differently() -> None:
    actor, value = _networks(VECTOR, DISCRETE, fc_layers=(5, 5), seed=1)
    kernels = [v.numpy() for network in (actor, value) for v in network.variables if v.shape == (5, 5)]
    assert len(kernels) == 4
    for i, kernel in enumerate(kernels):
        assert not any(np.allclose(kernel, other) for other in kernels[i + 1 :])


def test_copy_has_fresh_variables() -> None:
    actor, value = _networks(VECTOR, NESTED_ACTION, fc_layers=(6,), activation="relu")
    for network in (actor, value):
        copy = network.copy(name="copy")
        copy.create_variables()
        assert [v.shape for v in copy.variables] == [v.shape for v in network.variables]
        assert not {v.ref() for v in copy.variables} & {v.ref() for v in network.variables}


def test_no_hidden_layers() -> None:
    actor, value = _networks(VECTOR, DISCRETE, fc_layers=())
    assert [len(network.variables) for network in (actor, value)] == [2, 2]


@pytest.mark.parametrize(
    "spec",
    [
        tensor_spec.BoundedTensorSpec([3], tf.float64, 0, 9),
        tensor_spec.BoundedTensorSpec([3, 1], tf.int32, 0, 9),
        tensor_spec.BoundedTensorSpec([3], tf.uint8, 0, 9),
    ],
)
def test_numbers_of_any_type_are_cast(spec: Any) -> None:
    observation = tensor_spec.sample_spec_nest(spec, outer_dims=(4,))
    for network in _networks(spec, DISCRETE, seed=1):
        assert all(v.dtype == tf.float32 for v in network.variables)
        network(observation)
        network(tf.cast(observation, tf.float32))  # what a normaliser makes of it


def test_works_in_a_graph_with_unknown_batch_and_time() -> None:
    actor, value = _networks(NESTED_OBSERVATION, NESTED_ACTION)
    specs = tf.nest.map_structure(lambda s: tf.TensorSpec([None, None, *s.shape], s.dtype), NESTED_OBSERVATION)

    @tf.function(input_signature=[specs])
    def call(observation: Any) -> Any:
        return tf.nest.map_structure(lambda d: d.mode(), actor(observation)[0]), value(observation)[0]

    action, values = call(tensor_spec.sample_spec_nest(NESTED_OBSERVATION, outer_dims=(2, 3)))
    assert values.shape == [2, 3]
    tf.nest.map_structure(lambda a, s: a.shape.assert_is_compatible_with([2, 3, *s.shape]), action, NESTED_ACTION)


def test_acts_in_a_policy_of_tf_agents() -> None:
    time_step_spec = ts.time_step_spec(NESTED_OBSERVATION)
    policy = actor_policy.ActorPolicy(time_step_spec, NESTED_ACTION, ActorNetwork(NESTED_OBSERVATION, NESTED_ACTION))
    step = policy.action(tensor_spec.sample_spec_nest(time_step_spec, outer_dims=(4,)))
    tf.nest.map_structure(
        lambda a, s: a.shape.assert_is_compatible_with([4, *s.shape]), dict(step.action), NESTED_ACTION
    )


@pytest.mark.parametrize("network", [ActorNetwork(VECTOR, DISCRETE), ValueNetwork(VECTOR)])
def test_other_observations_are_refused_at_construction(network: Any) -> None:
    with pytest.raises(ValueError, match=r"shape \(5,\), but found \(6,\)"):
        network.create_variables(tf.TensorSpec([6], tf.float32))
