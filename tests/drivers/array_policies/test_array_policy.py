"""Policies on arrays against TensorFlow's: every kind of network and space."""

import json
import time
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import actor_distribution_network, normal_projection_network
from tf_agents.policies import greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import tensor_normalizer

from ppo_agent.drivers.array_policies.array_policy import ArrayPolicy
from ppo_agent.drivers.array_policies.noise import NoiseBlocks
from ppo_agent.networks import (
    ActorNetwork,
    MaskedNetwork,
    ObservationEncoder,
    ValueNetwork,
    shared_networks,
)
from ppo_agent.normalizers import StreamingNormalizer
from ppo_agent.policy import PPOPolicy

VECTOR = tensor_spec.BoundedTensorSpec([5], tf.float32, -2, 2)
IMAGE = tensor_spec.BoundedTensorSpec([2, 3], tf.int32, 0, 9)
PLACE = tensor_spec.BoundedTensorSpec([], tf.int64, 2, 4)
NESTED = {"scene": (IMAGE, VECTOR), "goal": tensor_spec.BoundedTensorSpec([], tf.float64, -1, 1)}
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 1)
UNEQUAL = tensor_spec.BoundedTensorSpec([2], tf.int32, [3, 0], [4, 3])
FLAT = tensor_spec.BoundedTensorSpec([3], tf.float32, [-1, -2, 0], 1)
BOX = tensor_spec.BoundedTensorSpec([2, 2], tf.float32, -1, 1)
SCALAR = tensor_spec.BoundedTensorSpec([], tf.float32, -1, 1)
ACTIONS = {"wheels": (BOX, UNEQUAL), "gear": DISCRETE, "gas": SCALAR}


def _tf_agents_actor(observation: Any, action: Any, **kwargs: Any) -> Any:
    return actor_distribution_network.ActorDistributionNetwork(
        observation, action, fc_layer_params=(8, 6), activation_fn=tf.keras.activations.tanh, **kwargs
    )


def _plain_normal(spec: Any) -> Any:
    return normal_projection_network.NormalProjectionNetwork(spec, mean_transform=None, std_transform=tf.exp)


KINDS = {
    "dials": tensor_spec.BoundedTensorSpec([3], tf.int64, [0, -1, 2], [1, 2, 2]),
    "place": (tensor_spec.BoundedTensorSpec([], tf.int32, 2, 4), VECTOR),
    "switches": tensor_spec.BoundedTensorSpec([2, 2], tf.int8, 0, 1),
}
OFFSET = tensor_spec.BoundedTensorSpec([2, 2], tf.float32, [[-1, 0], [0, 0]], 1)
ALL = {
    "switches": tensor_spec.BoundedTensorSpec([3], tf.int32, 0, 1),
    "pair": (OFFSET, UNEQUAL),
    "gas": tensor_spec.BoundedTensorSpec([], tf.float64, -2, 1),
    "gear": tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2),
}
FROM_ZERO = {"gear": ALL["gear"], "wheel": tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)}
MASKED = {"observation": KINDS, "action_mask": tensor_spec.BoundedTensorSpec([15], tf.int8, 0, 1)}
PAIR = (tensor_spec.BoundedTensorSpec([15], tf.int32, 0, 1), VECTOR)
FOREIGN = {"observation": VECTOR, "action_mask": tensor_spec.BoundedTensorSpec([3], tf.int8, 0, 1)}


def _splitter(observation: Any) -> Any:
    return observation[1], observation[0]


def _shared() -> Any:
    return shared_networks(MASKED, ALL, (7,), embedding_size=2, squash=True)[0]


def _projection(**kwargs: Any) -> Any:
    return lambda spec: normal_projection_network.NormalProjectionNetwork(spec, **kwargs)


CASES: dict[str, tuple[Any, Any, Any]] = {
    "all kinds": (KINDS, ALL, ActorNetwork(KINDS, ALL)),
    "embedding": (KINDS, ALL, ActorNetwork(KINDS, ALL, embedding_size=3, activation="relu")),
    "dials alone": (KINDS["dials"], ALL, ActorNetwork(KINDS["dials"], ALL)),
    "category alone": (KINDS["place"][0], UNEQUAL, ActorNetwork(KINDS["place"][0], UNEQUAL, (4,))),
    "state-dependent": (VECTOR, ALL, ActorNetwork(VECTOR, ALL, state_dependent_std=True)),
    "squash": (VECTOR, ALL, ActorNetwork(VECTOR, ALL, squash=True, initial_log_std=0.5)),
    "masked": (MASKED, ALL, ActorNetwork(MASKED, ALL)),
    "splitter": (PAIR, ALL, ActorNetwork(PAIR, ALL, observation_and_action_constraint_splitter=_splitter)),
    "own encoder": (VECTOR, BOX, ActorNetwork(VECTOR, BOX, encoder=ObservationEncoder(VECTOR, (3,)))),
    "Keras encoder": (VECTOR, BOX, ActorNetwork(VECTOR, BOX, encoder=tf.keras.layers.Dense(3))),
    "shared": (MASKED, ALL, _shared()),
    "selu": (VECTOR, FLAT, ActorNetwork(VECTOR, FLAT, activation="selu")),
    "masked tf_agents": (
        FOREIGN,
        FROM_ZERO,
        MaskedNetwork(_tf_agents_actor(VECTOR, FROM_ZERO), FROM_ZERO),
    ),
    "tf_agents preprocessing": (
        VECTOR,
        FLAT,
        _tf_agents_actor(VECTOR, FLAT, preprocessing_layers=tf.keras.layers.Dense(3)),
    ),
    "tf_agents dropout": (VECTOR, FLAT, _tf_agents_actor(VECTOR, FLAT, dropout_layer_params=[0.1, None])),
    "tf_agents state-dependent": (
        VECTOR,
        FLAT,
        _tf_agents_actor(VECTOR, FLAT, continuous_projection_net=_projection(state_dependent_std=True)),
    ),
    "tf_agents other mean": (
        VECTOR,
        FLAT,
        _tf_agents_actor(VECTOR, FLAT, continuous_projection_net=_projection(mean_transform=lambda mean, _: mean)),
    ),
    "discrete": (VECTOR, DISCRETE, ActorNetwork(VECTOR, DISCRETE)),
    "unequal": (VECTOR, UNEQUAL, ActorNetwork(VECTOR, UNEQUAL, fc_layers=(7,), activation="relu")),
    "box": (VECTOR, BOX, ActorNetwork(VECTOR, BOX, fc_layers=())),
    "scalar": (IMAGE, SCALAR, ActorNetwork(IMAGE, SCALAR)),
    "nested": (NESTED, ACTIONS, ActorNetwork(NESTED, ACTIONS)),
    "tf_agents discrete": (VECTOR, DISCRETE, _tf_agents_actor(VECTOR, DISCRETE)),
    "tf_agents box": (VECTOR, FLAT, _tf_agents_actor(VECTOR, FLAT)),
    "tf_agents exp": (VECTOR, FLAT, _tf_agents_actor(VECTOR, FLAT, continuous_projection_net=_plain_normal)),
}


def _make_policy(
    observation: Any, action: Any, actor: Any, normalizer: Any = None, rng: np.random.Generator | None = None
) -> PPOPolicy:
    policy = PPOPolicy(
        ts.time_step_spec(observation),
        action,
        actor,
        ValueNetwork(observation, fc_layers=(3,)),
        observation_normalizer=normalizer,
        clip=False,
        compute_value_and_advantage_in_train=True,
    )
    if rng is not None:
        for variable in actor.variables:
            variable.assign(rng.normal(size=variable.shape) / np.sqrt(max(1, *variable.shape)))
    return policy


def _observe(spec: Any, batch_size: int, rng: np.random.Generator) -> Any:
    def leaf(s: Any) -> np.ndarray:
        if s.dtype.is_integer:
            return rng.integers(s.minimum, s.maximum + 1, (batch_size, *s.shape)).astype(s.dtype.as_numpy_dtype)
        return rng.normal(0.5, 2.0, (batch_size, *s.shape)).astype(s.dtype.as_numpy_dtype)

    observation = tf.nest.map_structure(leaf, spec)
    for mask in _masks(observation, spec):
        mask[np.arange(batch_size)[:, np.newaxis], ALLOWED if mask.shape[1] == 15 else [1]] = 1
    return observation


# One category of each component of `ALL`.
ALLOWED = [1, 3, 6, 9, 11, 14]


def _masks(observation: Any, spec: Any) -> list[Any]:
    if spec is PAIR:
        return [observation[0]]
    return [observation["action_mask"]] if isinstance(spec, dict) and "action_mask" in spec else []


def _time_step(observation: Any) -> ts.TimeStep:
    tensors = tf.nest.map_structure(tf.constant, observation)
    return ts.restart(tensors, batch_size=len(tf.nest.flatten(observation)[0]))


def _arrays(observation: Any) -> ts.TimeStep:
    zeros = np.zeros(len(tf.nest.flatten(observation)[0]), np.float32)
    return ts.TimeStep(np.ones(len(zeros), np.int32), zeros, zeros + 1, observation)


def _assert_close(found: Any, expected: Any) -> None:
    found_leaves, expected_leaves = tf.nest.flatten(found), tf.nest.flatten(expected)
    for found_leaf, expected_leaf in zip(found_leaves, expected_leaves, strict=True):
        assert found_leaf.shape == tuple(expected_leaf.shape)
        assert found_leaf.dtype == expected_leaf.dtype.as_numpy_dtype
        np.testing.assert_allclose(found_leaf, expected_leaf, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_distribution_parameters_are_those_of_tensorflow(case: Any, normalize: bool, rng: np.random.Generator) -> None:
    observation_spec, action_spec, actor = case
    # Categories and masks stay as they are.
    chosen = tuple(spec.dtype.is_floating or spec is IMAGE for spec in tf.nest.flatten(observation_spec))
    if normalize and not any(chosen):
        return
    normalizer = StreamingNormalizer(observation_spec, normalizes=chosen) if normalize else None
    policy = _make_policy(observation_spec, action_spec, actor, normalizer, rng)
    if normalizer is not None:
        normalizer.update(tf.nest.map_structure(tf.constant, _observe(observation_spec, 30, rng)))
    array_policy = ArrayPolicy(policy)
    for batch_size in (4, 4, 1):
        observation = _observe(observation_spec, batch_size, rng)
        step = policy.action(_time_step(observation))
        action, info, _ = array_policy.act(_arrays(observation))
        _assert_close(info["dist_params"], step.info["dist_params"])
        tf.nest.assert_same_structure(info, policy.info_spec, check_types=False)
        tf.nest.assert_same_structure(action, action_spec)
        for found, expected in zip(tf.nest.flatten(action), tf.nest.flatten(step.action), strict=True):
            assert found.shape == tuple(expected.shape)
            assert found.dtype == expected.dtype.as_numpy_dtype


def test_one_hot_observations(rng: np.random.Generator) -> None:
    spec = {"place": PLACE, "vector": VECTOR}
    policy = _make_policy(spec, DISCRETE, ActorNetwork(spec, DISCRETE), rng=rng)
    observation = _observe(spec, 20, rng)
    _, info, _ = ArrayPolicy(policy).act(_arrays(observation))
    _assert_close(info["dist_params"], policy.action(_time_step(observation)).info["dist_params"])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_greedy_is_the_mode(case: Any, rng: np.random.Generator) -> None:
    observation_spec, action_spec, actor = case
    policy = _make_policy(observation_spec, action_spec, actor, rng=rng)
    greedy = greedy_policy.GreedyPolicy(policy)
    observation = _observe(observation_spec, 6, rng)
    array_policy = ArrayPolicy(greedy)
    action, info, _ = array_policy.act(_arrays(observation))
    expected = greedy.action(_time_step(observation))
    _assert_close((action, info), (expected.action, expected.info))
    assert array_policy._programs


@pytest.mark.parametrize("kind", [tensor_normalizer.StreamingTensorNormalizer, tensor_normalizer.EMATensorNormalizer])
def test_normalizer_of_tf_agents(kind: Any, rng: np.random.Generator) -> None:
    normalizer = kind(VECTOR)
    policy = _make_policy(VECTOR, BOX, ActorNetwork(VECTOR, BOX), normalizer, rng)
    normalizer.update(tf.constant(_observe(VECTOR, 30, rng)))
    observation = _observe(VECTOR, 8, rng) * 10
    _, info, _ = ArrayPolicy(policy).act(_arrays(observation))
    _assert_close(info["dist_params"], policy.action(_time_step(observation)).info["dist_params"])


def test_refresh_takes_over_new_variables_and_nothing_else_does(rng: np.random.Generator) -> None:
    normalizer = StreamingNormalizer(VECTOR)
    actor = ActorNetwork(VECTOR, BOX)
    policy = _make_policy(VECTOR, BOX, actor, normalizer, rng)
    array_policy = ArrayPolicy(policy)
    observation = _observe(VECTOR, 3, rng)
    before = array_policy.act(_arrays(observation))[1]
    for variable in actor.variables:
        variable.assign_add(tf.fill(variable.shape, 0.1))
    normalizer.update(tf.constant(observation))
    for stale, old in zip(*map(tf.nest.flatten, (array_policy.act(_arrays(observation))[1], before)), strict=True):
        np.testing.assert_array_equal(stale, old)
    array_policy.refresh()
    _assert_close(array_policy.act(_arrays(observation))[1], policy.action(_time_step(observation)).info)


def test_results_of_earlier_calls_stay_as_they_were(rng: np.random.Generator) -> None:
    policy = ArrayPolicy(_make_policy(NESTED, ACTIONS, ActorNetwork(NESTED, ACTIONS), rng=rng))
    first = policy.act(_arrays(_observe(NESTED, 3, rng)))
    copies = [leaf.copy() for leaf in tf.nest.flatten(first)]
    policy.act(_arrays(_observe(NESTED, 3, rng)))
    for leaf, copy in zip(tf.nest.flatten(first), copies, strict=True):
        np.testing.assert_array_equal(leaf, copy)


def test_observations_are_not_changed(rng: np.random.Generator) -> None:
    policy = ArrayPolicy(
        _make_policy(VECTOR, DISCRETE, ActorNetwork(VECTOR, DISCRETE, fc_layers=()), StreamingNormalizer(VECTOR), rng)
    )
    observation = _observe(VECTOR, 3, rng)
    copy = observation.copy()
    policy.act(_arrays(observation))
    np.testing.assert_array_equal(observation, copy)


def test_categorical_samples_have_the_right_frequencies(rng: np.random.Generator) -> None:
    policy = _make_policy(VECTOR, UNEQUAL, ActorNetwork(VECTOR, UNEQUAL), rng=rng)
    observation = np.repeat(_observe(VECTOR, 1, rng), 20, axis=0)
    array_policy = ArrayPolicy(policy)
    samples = np.concatenate([array_policy.act(_arrays(observation))[0] for _ in range(1500)])
    logits = policy.action(_time_step(observation[:1])).info["dist_params"]["distribution"]["logits"]
    probabilities = tf.nn.softmax(logits)[0].numpy()
    for component, (minimum, size) in enumerate(((3, 2), (0, 4))):
        frequencies = np.bincount(samples[:, component] - minimum, minlength=4) / len(samples)
        np.testing.assert_allclose(frequencies, probabilities[component], atol=0.015)
        assert np.all(frequencies[size:] == 0)


def test_normal_samples_have_the_right_moments_and_are_independent(rng: np.random.Generator) -> None:
    policy = _make_policy(VECTOR, BOX, ActorNetwork(VECTOR, BOX), rng=rng)
    observation = np.repeat(_observe(VECTOR, 1, rng), 2, axis=0)
    array_policy = ArrayPolicy(policy)
    parameters = array_policy.act(_arrays(observation))[1]["dist_params"]["distribution"]
    samples = np.stack([array_policy.act(_arrays(observation))[0] for _ in range(20_000)])
    noise = ((samples - parameters["loc"]) / parameters["scale"]).reshape(len(samples), -1)
    np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.04)
    np.testing.assert_allclose(np.cov(noise.T), np.eye(8), atol=0.05)
    np.testing.assert_allclose(np.mean(noise[1:] * noise[:-1]), 0.0, atol=0.02)


def test_components_of_an_action_draw_independent_noise() -> None:
    spec = (FLAT, FLAT, UNEQUAL, UNEQUAL)
    policy = ArrayPolicy(_make_policy(VECTOR, spec, ActorNetwork(VECTOR, spec, fc_layers=())))
    observation = np.zeros((2000, 5), np.float32)
    first, second, third, fourth = policy.act(_arrays(observation))[0]
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1
    assert np.mean(third == fourth) < 0.9


def _rollout(policy: ArrayPolicy, steps: int, batch_size: int = 3) -> list[np.ndarray]:
    observation = np.zeros((batch_size, 5), np.float32)
    return [leaf for _ in range(steps) for leaf in tf.nest.flatten(policy.act(_arrays(observation))[0])]


def test_tensorflows_seed_decides_the_samples() -> None:
    tf_policy = _make_policy(VECTOR, ACTIONS, ActorNetwork(VECTOR, ACTIONS))

    def run(seed: int) -> list[np.ndarray]:
        tf.random.set_seed(seed)
        return _rollout(ArrayPolicy(tf_policy), 5)

    first, same, other = run(1), run(1), run(2)
    np.testing.assert_equal(first, same)
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("resumed_after", [0, 2])
@pytest.mark.parametrize(("in_numpy", "steps_before"), [(True, 0), (True, 1), (True, 1500), (False, 0), (False, 7)])
def test_state_continues_exactly_where_it_was_read(in_numpy: bool, steps_before: int, resumed_after: int) -> None:
    tf_policy = _make_policy(VECTOR, ACTIONS, ActorNetwork(VECTOR, ACTIONS))
    policy, resumed = ArrayPolicy(tf_policy, in_numpy), ArrayPolicy(tf_policy, in_numpy)
    _rollout(policy, steps_before)
    _rollout(resumed, resumed_after, batch_size=4)
    state = json.loads(json.dumps(policy.get_state()))
    expected = _rollout(policy, 30)
    resumed.set_state(state)
    np.testing.assert_equal(_rollout(resumed, 30), expected)


@pytest.mark.parametrize("kind", ["normal float32", "gumbel float32", "uniform float32"])
def test_noise_never_repeats_and_large_batches_draw_few_steps_at_once(kind: str) -> None:
    noise = NoiseBlocks([(kind, (2, 3))], np.random.SeedSequence(0))
    rows = [noise.blocks[0]]
    noise.draw()
    rows = np.concatenate([*rows, noise.blocks[0]])
    assert rows.dtype == np.float32
    assert len(np.unique(rows)) > 0.999 * rows.size
    assert NoiseBlocks([(kind, (2**18, 3)), (kind, (1,))], np.random.SeedSequence(0)).blocks[1].shape == (1, 1)


def test_gumbel_noise_has_its_mean_and_variance() -> None:
    noise = NoiseBlocks([("gumbel float32", (200,))], np.random.SeedSequence(0)).blocks[0]
    np.testing.assert_allclose(noise.mean(), np.euler_gamma, atol=0.02)
    np.testing.assert_allclose(noise.var(), np.pi**2 / 6, atol=0.05)


def test_forbidden_actions_are_never_sampled(rng: np.random.Generator) -> None:
    policy = ArrayPolicy(_make_policy(MASKED, ALL, ActorNetwork(MASKED, ALL), rng=rng))
    observation = {**_observe(MASKED, 2000, rng), "action_mask": np.zeros((2000, 15), np.int8)}
    for allowed in (1, 3, 6, 9, 10, 11, 12, 14):  # Two categories of two components, one of each other.
        observation["action_mask"][:, allowed] = 1
    action, _, _ = policy.act(_arrays(observation))
    assert policy._programs
    assert np.all(action["gear"] == 1)
    assert set(map(tuple, action["pair"][1].tolist())) == {(3, 1)}
    assert set(map(tuple, action["switches"].tolist())) == {(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1)}


@pytest.mark.parametrize("position", [0, 3, 9])
def test_a_mask_without_a_choice_is_refused_but_after_the_end(position: int, rng: np.random.Generator) -> None:
    policy = ArrayPolicy(_make_policy(MASKED, ALL, ActorNetwork(MASKED, ALL), rng=rng))
    time_step = _arrays(_observe(MASKED, 4, rng))
    policy.act(time_step)
    components = {0: slice(0, 3), 3: slice(3, 5), 9: slice(9, 11)}
    time_step.observation["action_mask"][2, components[position]] = 0
    with pytest.raises(tf.errors.InvalidArgumentError, match="action_mask allows no action"):
        policy.act(time_step)
    policy.act(time_step._replace(step_type=np.array([1, 1, 2, 1], np.int32)))


def test_squashed_samples_are_those_of_the_distribution_and_stay_inside() -> None:
    policy = ArrayPolicy(_make_policy(VECTOR, OFFSET, ActorNetwork(VECTOR, OFFSET, squash=True, initial_log_std=1.0)))
    action, info, _ = policy.act(_arrays(np.zeros((4000, 5), np.float32)))
    low, high = np.asarray(OFFSET.minimum), np.asarray(OFFSET.maximum)
    assert np.all((action >= low) & (action <= high))
    parameters = info["dist_params"]["distribution"]
    unit = np.arctanh(np.clip(2 * (action - low) / (high - low) - 1, -0.999999, 0.999999))
    noise = (unit - parameters["loc"]) / parameters["scale"]
    np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.08)
    np.testing.assert_allclose(noise.std(0), 1.0, atol=0.08)


def test_value_predictions_are_emitted(rng: np.random.Generator) -> None:
    """In the form of TF-Agents' default: values at collection."""
    policy = PPOPolicy(ts.time_step_spec(VECTOR), BOX, ActorNetwork(VECTOR, BOX), ValueNetwork(VECTOR, fc_layers=(3,)))
    array_policy, observation = ArrayPolicy(policy), _observe(VECTOR, 6, rng)
    _, info, _ = array_policy.act(_arrays(observation))
    assert array_policy._programs
    _assert_close(info, policy.action(_time_step(observation)).info)


def test_a_call_is_cheap(rng: np.random.Generator) -> None:
    policy = ArrayPolicy(_make_policy(VECTOR, DISCRETE, ActorNetwork(VECTOR, DISCRETE), StreamingNormalizer(VECTOR)))
    observation = _observe(VECTOR, 8, rng)
    policy.act(_arrays(observation))
    durations = []
    for _ in range(300):
        start = time.perf_counter()
        policy.act(_arrays(observation))
        durations.append(time.perf_counter() - start)
    assert min(durations) < 100e-6  # 7 us on the machine that this was written on; a TensorFlow call takes 250
