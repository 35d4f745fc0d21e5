"""Shared work is done once, with the same results, and nothing is remembered beyond its scope."""

from typing import Any

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.trajectories import time_step

from ppo_agent import PPOAgent
from ppo_agent.common import shared_results
from ppo_agent.networks import ObservationEncoder, shared_networks


class CountingEncoder(ObservationEncoder):
    """Counts how often it is written into a graph."""

    calls = 0

    def call(self, observation: Any) -> tf.Tensor:
        self.calls += 1
        return super().call(observation)


def test_only_the_same_owner_and_the_same_tensors_share_a_result() -> None:
    calls: list[str] = []
    first, second, owner = tf.constant([1.0]), tf.constant([1.0]), object()

    def compute(name: str) -> Any:
        return lambda: calls.append(name) or name

    with shared_results.remembering():
        assert shared_results.remembered(owner, {"a": first}, compute("a")) == "a"
        assert shared_results.remembered(owner, {"a": first}, compute("again")) == "a"
        assert shared_results.remembered(owner, {"a": second}, compute("b")) == "b"
        assert shared_results.remembered(object(), {"a": first}, compute("c")) == "c"
        assert shared_results.remembered(owner, {"a": first, "b": second}, compute("d")) == "d"
    assert calls == ["a", "b", "c", "d"]


def test_nothing_is_remembered_outside_or_afterwards() -> None:
    owner, tensor = object(), tf.constant(1.0)
    with shared_results.remembering():
        shared_results.remembered(owner, tensor, lambda: 1)
    assert shared_results.remembered(owner, tensor, lambda: 2) == 2
    with shared_results.remembering():
        assert shared_results.remembered(owner, tensor, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError), shared_results.remembering():
        shared_results.remembered(owner, tensor, lambda: 1 / 0)
    assert shared_results.remembered(owner, tensor, lambda: 4) == 4


def make_agent(**keywords: Any) -> tuple[PPOAgent, CountingEncoder]:
    """An agent whose networks share a torso, and this."""
    encoder = CountingEncoder(helpers.OBSERVATION, (5,), seed=3)
    nets = shared_networks(helpers.OBSERVATION, helpers.CONTINUOUS, encoder=encoder, seed=3)
    return helpers.make_agent(nets=nets, optimizer=tf.keras.optimizers.SGD(0.1), num_epochs=2, **keywords), encoder


def trained(rng: np.random.Generator, **keywords: Any) -> tuple[dict[str, np.ndarray], CountingEncoder]:
    """Trains such an agent; returns its state and the encoder."""
    agent, encoder = make_agent(**keywords)
    helpers.prime_normalizers(agent, rng)
    agent.train(helpers.make_experience(agent, rng))
    return helpers.state_of(agent), encoder


@pytest.mark.parametrize("keywords", [{}, {"normalize_observations": False, "entropy_regularization": 0.1}])
def test_shared_torso_is_computed_once_and_trained_by_both_losses(
    keywords: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tf.random.set_seed(0)
    once, encoder = trained(np.random.default_rng(5), **keywords)
    calls = encoder.calls
    monkeypatch.setattr(shared_results, "remembered", lambda owner, inputs, compute: compute())
    tf.random.set_seed(0)
    twice, encoder = trained(np.random.default_rng(5), **keywords)
    assert encoder.calls == calls + 4  # One for the value network and one for the metrics in each of two epochs.
    helpers.assert_same_state(once, twice, rtol=1e-5, atol=1e-6)


def test_policy_that_emits_values_computes_a_shared_torso_once(rng: np.random.Generator) -> None:
    agent, encoder = make_agent(compute_value_and_advantage_in_train=False)
    observation = helpers.random_observations(rng, helpers.OBSERVATION, (3,))
    calls = encoder.calls
    step = agent.collect_policy.action(time_step.restart(observation, 3))
    assert encoder.calls == calls + 1
    values, _ = agent.collect_policy.apply_value_network(observation, tf.zeros([3], tf.int32))
    np.testing.assert_allclose(step.info["value_prediction"], values, rtol=1e-6)
