"""Policies of recurrent networks on arrays against the TensorFlow policy, over many steps and episodes."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import actor_distribution_rnn_network, value_rnn_network
from tf_agents.policies import greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ppo_agent.drivers.array_policies.array_policy import ArrayPolicy
from ppo_agent.networks import ActorNetwork, ValueNetwork
from ppo_agent.networks.memory import GRUMemory, LSTMMemory
from ppo_agent.normalizers import StreamingNormalizer
from ppo_agent.policy import PPOPolicy

OBSERVATION = {
    "place": tensor_spec.BoundedTensorSpec([], tf.int64, 2, 4),
    "vector": tensor_spec.BoundedTensorSpec([5], tf.float32, -2, 2),
}
ACTION = (
    tensor_spec.BoundedTensorSpec([2], tf.int32, [3, 0], [4, 3]),
    tensor_spec.BoundedTensorSpec([3], tf.float32, [-1, -2, 0], 1),
)
FIRST, MID, LAST = 0, 1, 2


def _memory(kind: str | None) -> Any:
    return {"lstm": LSTMMemory, "gru": GRUMemory}[kind](6) if kind else None


def _make_policy(
    actor_memory: str | None,
    value_memory: str | None,
    rng: np.random.Generator,
    store_policy_state: bool = True,
    normalizer: Any = None,
) -> PPOPolicy:
    actor = ActorNetwork(OBSERVATION, ACTION, fc_layers=(8,), memory=_memory(actor_memory))
    value = ValueNetwork(OBSERVATION, fc_layers=(7,), memory=_memory(value_memory))
    policy = PPOPolicy(
        ts.time_step_spec(OBSERVATION),
        ACTION,
        actor,
        value,
        observation_normalizer=normalizer,
        clip=False,
        compute_value_and_advantage_in_train=True,
        store_policy_state=store_policy_state,
    )
    _shake(policy, rng)
    return policy


def _shake(policy: PPOPolicy, rng: np.random.Generator) -> None:
    for variable in [*policy._actor_network.variables, *policy._value_network.variables]:
        variable.assign(rng.normal(0.0, 0.5, variable.shape))


def _observe(rng: np.random.Generator, batch_size: int) -> Any:
    return {
        "place": rng.integers(2, 5, batch_size),
        "vector": rng.normal(0.5, 2.0, (batch_size, 5)).astype(np.float32),
    }


def _time_step(observation: Any, step_type: np.ndarray) -> ts.TimeStep:
    zeros = tf.zeros(len(step_type))
    return ts.TimeStep(tf.constant(step_type), zeros, zeros + 1, tf.nest.map_structure(tf.constant, observation))


def _arrays(observation: Any, step_type: np.ndarray) -> ts.TimeStep:
    zeros = np.zeros(len(step_type), np.float32)
    return ts.TimeStep(step_type, zeros, zeros + 1, observation)


def _step_types(rng: np.random.Generator, steps: int, batch_size: int) -> np.ndarray:
    """Episodes of random lengths; [T, B]."""
    rows = [np.full(batch_size, FIRST)]
    while len(rows) < steps:
        ends = rng.random(batch_size) < 0.15
        rows.append(np.where(rows[-1] == LAST, FIRST, np.where(ends, LAST, MID)))
    return np.array(rows, np.int32)


def _assert_close(found: Any, expected: Any) -> None:
    tf.nest.assert_same_structure(found, expected, check_types=False)
    for found_leaf, expected_leaf in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert found_leaf.shape == tuple(expected_leaf.shape)
        assert found_leaf.dtype == expected_leaf.dtype.as_numpy_dtype
        np.testing.assert_allclose(found_leaf, expected_leaf, rtol=1e-6, atol=1e-6)


PAIRS = [("lstm", "gru"), ("gru", "lstm"), ("lstm", None), (None, "gru")]


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize(("actor_memory", "value_memory"), PAIRS)
def test_states_and_parameters_are_those_of_tensorflow(
    actor_memory: str | None, value_memory: str | None, normalize: bool, rng: np.random.Generator
) -> None:
    normalizer = StreamingNormalizer(OBSERVATION, normalizes=(False, True)) if normalize else None
    policy = _make_policy(actor_memory, value_memory, rng, normalizer=normalizer)
    if normalizer is not None:
        normalizer.update(tf.nest.map_structure(tf.constant, _observe(rng, 30)))
    array_policy = ArrayPolicy(policy)
    action_of = tf.function(policy.action, autograph=False)
    state, expected_state = array_policy.initial_state(3), policy.get_initial_state(3)
    _assert_close(state, expected_state)
    for step_type in _step_types(rng, 80, 3):
        observation = _observe(rng, 3)
        _, info, state = array_policy.act(_arrays(observation, step_type), state)
        expected = action_of(_time_step(observation, step_type), expected_state)
        expected_state = expected.state
        _assert_close(info, expected.info)
        _assert_close(state, expected_state)
    assert array_policy._programs
    assert "policy_state" in info
    assert len(state) == (actor_memory is not None) + (value_memory is not None)


def test_without_stored_states_the_value_network_is_left_alone(rng: np.random.Generator) -> None:
    policy = _make_policy("gru", "lstm", rng, store_policy_state=False)
    observation, step_type = _observe(rng, 3), np.full(3, FIRST, np.int32)
    array_policy = ArrayPolicy(policy)
    _, info, state = array_policy.act(_arrays(observation, step_type), array_policy.initial_state(3))
    expected = policy.action(_time_step(observation, step_type), policy.get_initial_state(3))
    assert set(state) == {"actor_network_state"}
    assert set(info) == {"dist_params"}
    _assert_close((info, state), (expected.info, expected.state))


def test_greedy_modes_and_states(rng: np.random.Generator) -> None:
    policy = _make_policy("lstm", "gru", rng)
    greedy, array_policy = greedy_policy.GreedyPolicy(policy), ArrayPolicy(greedy_policy.GreedyPolicy(policy))
    state, expected_state = array_policy.initial_state(4), policy.get_initial_state(4)
    for step_type in _step_types(rng, 10, 4):
        observation = _observe(rng, 4)
        expected = greedy.action(_time_step(observation, step_type), expected_state)
        action, info, state = array_policy.act(_arrays(observation, step_type), state)
        expected_state = expected.state
        _assert_close((action, info, state), (expected.action, expected.info, expected_state))
    assert array_policy._programs


def test_refresh_takes_over_both_networks(rng: np.random.Generator) -> None:
    policy = _make_policy("gru", "gru", rng)
    array_policy = ArrayPolicy(policy)
    observation, step_type = _observe(rng, 3), np.full(3, MID, np.int32)
    state = tf.nest.map_structure(lambda x: x + np.float32(0.3), array_policy.initial_state(3))
    array_policy.act(_arrays(observation, step_type), state)
    _shake(policy, rng)
    array_policy.refresh()
    expected = policy.action(_time_step(observation, step_type), tf.nest.map_structure(tf.constant, state))
    _, info, state = array_policy.act(_arrays(observation, step_type), state)
    _assert_close((info, state), (expected.info, expected.state))


def test_results_of_earlier_calls_stay_as_they_were(rng: np.random.Generator) -> None:
    policy = ArrayPolicy(_make_policy("lstm", "gru", rng))
    state = policy.initial_state(3)
    results: list[Any] = []
    for step_type in _step_types(rng, 10, 3):
        copies = [leaf.copy() for leaf in tf.nest.flatten(results)]
        results.append(policy.act(_arrays(_observe(rng, 3), step_type), state))
        state = results[-1][2]
        for leaf, copy in zip(tf.nest.flatten(results), copies, strict=False):
            np.testing.assert_array_equal(leaf, copy)


def test_a_first_step_forgets_even_infinities(rng: np.random.Generator) -> None:
    policy = ArrayPolicy(_make_policy("lstm", "gru", rng, store_policy_state=False))
    observation, zeros = _observe(rng, 3), policy.initial_state(3)
    bad = tf.nest.map_structure(lambda leaf: leaf + np.float32(np.inf), zeros)
    _, info, state = policy.act(_arrays(observation, np.full(3, FIRST, np.int32)), bad)
    _, same_info, same_state = policy.act(_arrays(observation, np.full(3, MID, np.int32)), zeros)
    np.testing.assert_equal((info, state), (same_info, same_state))


def test_recurrent_networks_of_tf_agents(rng: np.random.Generator) -> None:
    layers: dict[str, Any] = {"input_fc_layer_params": (4,), "lstm_size": (4,), "output_fc_layer_params": None}
    policy = PPOPolicy(
        ts.time_step_spec(OBSERVATION["vector"]),
        ACTION[1],
        actor_distribution_rnn_network.ActorDistributionRnnNetwork(OBSERVATION["vector"], ACTION[1], **layers),
        value_rnn_network.ValueRnnNetwork(OBSERVATION["vector"], **layers),
        clip=False,
        compute_value_and_advantage_in_train=True,
        store_policy_state=True,
    )
    array_policy, action_of = ArrayPolicy(policy), tf.function(policy.action, autograph=False)
    state, expected_state = array_policy.initial_state(3), policy.get_initial_state(3)
    for step_type in _step_types(rng, 30, 3):
        observation = _observe(rng, 3)["vector"]
        _, info, state = array_policy.act(_arrays(observation, step_type), state)
        expected = action_of(_time_step(observation, step_type), expected_state)
        expected_state = expected.state
        _assert_close((info, state), (expected.info, expected_state))
    assert array_policy._programs
