"""The NumPy mirror of every part of our networks against TensorFlow."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import actor_distribution_network
from tf_agents.specs import tensor_spec

from ppo_agent.networks import (
    ActorNetwork,
    GRUMemory,
    LSTMMemory,
    MaskedNetwork,
    ObservationEncoder,
    ValueNetwork,
    numpy_mirror,
    shared_networks,
)

VECTOR = tensor_spec.BoundedTensorSpec([5], tf.float32, -2, 2)
NESTED = {
    "dials": tensor_spec.BoundedTensorSpec([3], tf.int64, [0, -1, 2], [1, 2, 2]),
    "place": (tensor_spec.BoundedTensorSpec([], tf.int32, 2, 4), VECTOR),
    "switches": tensor_spec.BoundedTensorSpec([2, 2], tf.int8, 0, 1),
}
UNEQUAL = tensor_spec.BoundedTensorSpec([2], tf.int32, [3, 0], [4, 3])
BOX = tensor_spec.BoundedTensorSpec([2, 2], tf.float32, [[-1, 0], [0, 0]], 1)
SCALAR = tensor_spec.BoundedTensorSpec([], tf.float64, -2, 1)
ACTIONS = {
    "switches": tensor_spec.BoundedTensorSpec([3], tf.int32, 0, 1),
    "pair": (BOX, UNEQUAL),
    "gas": SCALAR,
    "gear": tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2),
}
FROM_ZERO = {"gear": ACTIONS["gear"], "wheel": tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)}
MASK = tensor_spec.BoundedTensorSpec([15], tf.int8, 0, 1)
MASKED = {"observation": NESTED, "action_mask": MASK}
PAIR = (tensor_spec.BoundedTensorSpec([15], tf.int32, 0, 1), VECTOR)


def _splitter(observation: Any) -> Any:
    return observation[1], observation[0]


def _masked_foreign() -> MaskedNetwork:
    network = actor_distribution_network.ActorDistributionNetwork(VECTOR, FROM_ZERO, fc_layer_params=(6,))
    return MaskedNetwork(network, FROM_ZERO)


def _shared() -> Any:
    return shared_networks(MASKED, ACTIONS, (7,), embedding_size=2, memory=LSTMMemory(4), squash=True)[0]


FOREIGN_SPEC = {"observation": VECTOR, "action_mask": tensor_spec.BoundedTensorSpec([3], tf.int8, 0, 1)}
CASES: dict[str, tuple[Any, Any, Any]] = {
    "nested": (NESTED, ACTIONS, lambda: ActorNetwork(NESTED, ACTIONS)),
    "embedding": (NESTED, ACTIONS, lambda: ActorNetwork(NESTED, ACTIONS, embedding_size=3, activation="relu")),
    "dials alone": (NESTED["dials"], ACTIONS, lambda: ActorNetwork(NESTED["dials"], ACTIONS)),
    "category alone": (NESTED["place"][0], UNEQUAL, lambda: ActorNetwork(NESTED["place"][0], UNEQUAL, (4,))),
    "state-dependent": (VECTOR, ACTIONS, lambda: ActorNetwork(VECTOR, ACTIONS, state_dependent_std=True)),
    "squash": (VECTOR, ACTIONS, lambda: ActorNetwork(VECTOR, ACTIONS, squash=True, initial_log_std=0.5)),
    "masked": (MASKED, ACTIONS, lambda: ActorNetwork(MASKED, ACTIONS)),
    "splitter": (
        PAIR,
        ACTIONS,
        lambda: ActorNetwork(PAIR, ACTIONS, observation_and_action_constraint_splitter=_splitter),
    ),
    "own encoder": (VECTOR, BOX, lambda: ActorNetwork(VECTOR, BOX, encoder=ObservationEncoder(VECTOR, (3,)))),
    "memory": (VECTOR, BOX, lambda: ActorNetwork(VECTOR, BOX, memory=GRUMemory(4))),
    "shared": (MASKED, ACTIONS, _shared),
    "masked tf_agents": (FOREIGN_SPEC, FROM_ZERO, _masked_foreign),
}


def _observe(spec: Any, batch_size: int, rng: np.random.Generator) -> Any:
    def leaf(s: Any) -> np.ndarray:
        if s.dtype.is_integer:
            return rng.integers(s.minimum, s.maximum, (batch_size, *s.shape), endpoint=True).astype(
                s.dtype.as_numpy_dtype
            )
        return rng.normal(0.5, 2.0, (batch_size, *s.shape)).astype(s.dtype.as_numpy_dtype)

    return tf.nest.map_structure(leaf, spec)


def _parameters(distribution: Any) -> list[tf.Tensor]:
    base = getattr(distribution, "distribution", distribution)
    names = [name for name in ("loc", "logits", "scale") if tf.is_tensor(getattr(base, name, None))]
    values = [getattr(base, name) for name in names]
    if "scale_diag" in distribution.parameters:
        values = [distribution.parameters["loc"], distribution.parameters["scale_diag"]]
    return values


@pytest.mark.parametrize(("observation_spec", "action_spec", "make"), CASES.values(), ids=CASES)
def test_mirror_computes_what_the_network_does(
    observation_spec: Any, action_spec: Any, make: Any, rng: np.random.Generator
) -> None:
    actor = make()
    actor.create_variables(observation_spec)
    mirror = numpy_mirror.mirror_actor(actor)
    assert mirror is not None
    for variable in actor.variables:
        variable.assign(rng.normal(size=variable.shape) / np.sqrt(max(1, *variable.shape)))
    mirror.refresh()
    tf_state: Any = actor.get_initial_state(6) if actor.state_spec else ()
    state: Any = ()
    for _ in range(3):
        observation, is_first = _observe(observation_spec, 6, rng), rng.random(6) < 0.4
        found, state = mirror(tf.nest.flatten(observation), is_first, state)
        step_type = tf.constant(np.where(is_first, 0, 1), tf.int32)
        distributions, tf_state = actor(tf.nest.map_structure(tf.constant, observation), step_type, tf_state)
        for head, own, distribution in zip(mirror.heads, found, tf.nest.flatten(distributions), strict=True):
            for a, b in zip(own, _parameters(distribution), strict=True):
                assert (a.dtype, a.shape) == (b.dtype.as_numpy_dtype, tuple(b.shape))
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(head.mode(own), distribution.mode(), rtol=1e-6, atol=1e-6)
        for a, b in zip(*map(tf.nest.flatten, (state, tf_state)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_value_networks_torso_is_mirrored(rng: np.random.Generator) -> None:
    value = ValueNetwork(MASKED, (6,), memory=LSTMMemory(4))
    value.create_variables(MASKED)
    torso = numpy_mirror.mirror_torso(value)
    assert torso is not None
    observation = _observe(MASKED, 5, rng)
    features, state = torso(tf.nest.flatten(observation))
    expected, tf_state = value(tf.nest.map_structure(tf.constant, observation))
    np.testing.assert_allclose(value.value_layer(features)[:, 0], expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(*map(tf.nest.flatten, (state, tf_state)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_squashed_samples_are_those_of_the_distribution_and_stay_inside(rng: np.random.Generator) -> None:
    actor = ActorNetwork(VECTOR, BOX, squash=True, initial_log_std=1.0)
    actor.create_variables()
    mirror = numpy_mirror.mirror_actor(actor)
    assert mirror is not None
    (parameters,), _ = mirror([np.zeros((4000, 5), np.float32)])
    noise = rng.normal(size=(4000, 2, 2)).astype(np.float32)
    sample = mirror.heads[0].sample(parameters, noise)
    low, high = np.asarray(BOX.minimum), np.asarray(BOX.maximum)
    expected = low + (high - low) * (np.tanh(parameters[0] + parameters[1] * noise) + 1) / 2
    np.testing.assert_allclose(sample, expected, rtol=1e-5, atol=1e-6)
    assert sample.dtype == np.float32
    assert np.all((sample >= low) & (sample <= high))


def test_forbidden_actions_are_never_sampled(rng: np.random.Generator) -> None:
    actor = ActorNetwork(MASKED, ACTIONS)
    actor.create_variables(MASKED)
    mirror = numpy_mirror.mirror_actor(actor)
    assert mirror is not None
    observation = {**_observe(MASKED, 2000, rng), "action_mask": np.zeros((2000, 15), np.int8)}
    for allowed in (1, 3, 6, 9, 10, 11, 12, 14):  # two categories of two components, one of each other
        observation["action_mask"][:, allowed] = 1
    parameters, _ = mirror(tf.nest.flatten(observation))
    heads = [(head, values) for head, values in zip(mirror.heads, parameters, strict=True) if head.noise == "gumbel"]
    actions = [head.sample(values, rng.gumbel(size=(2000, *head.noise_shape))) for head, values in heads]
    gear, levers, switches = actions
    assert np.all(gear == 1)
    assert set(map(tuple, levers.tolist())) == {(3, 1)}
    assert set(map(tuple, switches.tolist())) == {(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1)}


IMAGE = tensor_spec.BoundedTensorSpec([8, 8, 3], tf.uint8, 0, 255)


@pytest.mark.parametrize(
    "actor",
    [
        ActorNetwork(IMAGE, BOX),
        ActorNetwork({"image": IMAGE, "vector": VECTOR}, BOX),
        ActorNetwork(VECTOR, BOX, encoder=tf.keras.layers.Dense(3)),
        ActorNetwork(VECTOR, BOX, activation="selu"),
    ],
    ids=["image", "image and vector", "encoder of one's own", "activation"],
)
def test_other_networks_take_the_general_path(actor: Any) -> None:
    actor.create_variables()
    assert numpy_mirror.mirror_actor(actor) is None
