"""Values, returns and advantages that are recomputed at the start of every epoch."""

import helpers
import numpy as np
import oracles
import pytest
import tensorflow as tf

from ppo_agent.learner import batches

KEYWORDS = {
    "importance_ratio_clipping": 0.2,
    "initial_adaptive_kl_beta": 0.0,
    "use_gae": True,
    "normalize_observations": False,
    "normalize_rewards": False,
}


def targets_of_epochs(agent, experience, monkeypatch):
    """What each gradient step of an agent that runs eagerly aims at: returns, advantages, and the values before it."""
    found, prepared = [], batches.prepared

    def record(minibatch):
        valid = minibatch.mask.numpy()
        present = agent._objective.predict_values(experience.observation, experience.step_type).numpy()
        found.append((minibatch.returns.numpy()[valid], minibatch.advantages.numpy()[valid], present))
        return prepared(minibatch)

    monkeypatch.setattr(batches, "prepared", record)
    agent.train(experience)
    return found


def expected_targets(agent, experience, values):
    """Lambda-returns and advantages of the rows that count, by the oracle."""
    rows, config = helpers.numpy_experience(experience), agent._config
    steps = (x[:, :-1] for x in (rows.reward, rows.discount, rows.next_step_type))
    _, advantages, returns = oracles.returns_and_advantages(*steps, values, config.discount_factor, config.lambda_value)
    valid = oracles.trained_rows(rows.step_type, rows.next_step_type)[:, :-1]
    return returns[valid], advantages[valid]


@pytest.mark.parametrize(("minibatch_size", "padding"), [(None, 0), (9, 0), (16, 5)])
def test_targets_of_every_epoch_come_from_the_value_network_at_its_start(rng, minibatch_size, padding, monkeypatch):
    agent = helpers.make_agent(
        **KEYWORDS, use_td_lambda_return=True, minibatch_size=minibatch_size, num_epochs=3, recompute_advantages=True
    )
    experience = helpers.make_experience(agent, rng, padding=padding)
    found = targets_of_epochs(agent, experience, monkeypatch)
    per_epoch = len(found) // 3
    assert (per_epoch > 1) == (minibatch_size is not None)
    for epoch in range(3):
        steps = found[epoch * per_epoch : (epoch + 1) * per_epoch]
        expected = expected_targets(agent, tf.nest.map_structure(lambda x: x[:, :12], experience), steps[0][2][:, :12])
        for index in (0, 1):
            actual = np.concatenate([step[index] for step in steps])
            np.testing.assert_allclose(np.sort(actual), np.sort(expected[index]), rtol=2e-4, atol=2e-5)
    assert np.abs(found[0][2] - found[-1][2]).max() > 0.01


@pytest.mark.parametrize(
    "keywords",
    [{}, {"jit_compile": True, "minibatch_size": 44}, {"minibatch_size": 44}, {"kind": "rnn"}],
    ids=["whole batch", "xla", "minibatches", "recurrent"],
)
def test_epochs_are_those_of_as_many_calls_of_train(rng, keywords):
    """One gradient step an epoch, so that the order of rows does not matter."""
    ways = ({"num_epochs": 3, "recompute_advantages": True}, {"num_epochs": 1})
    agents = []
    for way in ways:
        tf.random.set_seed(3)
        agents.append(helpers.make_agent(**KEYWORDS, **keywords, **way, eager=False))
    recomputing, single = agents
    helpers.copy_weights(single, recomputing)
    experience = helpers.make_experience(single, rng)
    losses = [single.train(experience).loss for _ in range(3)]
    np.testing.assert_allclose(recomputing.train(experience).loss, losses[-1], rtol=1e-4)
    assert int(recomputing.train_step_counter) == 3
    assert recomputing.train_metrics()["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert recomputing.train_metrics()["gradient_steps"] == 3
    for x, y in zip(recomputing._trained_variables(), single._trained_variables(), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_that_is_not_finite_is_skipped(rng, jit_compile):
    agent = helpers.make_agent(
        **KEYWORDS, eager=False, minibatch_size=16, num_epochs=3, recompute_advantages=True, jit_compile=jit_compile
    )
    experience = helpers.make_experience(agent, rng)
    spoiled = experience.reward.numpy()
    valid = oracles.trained_rows(experience.step_type.numpy(), experience.next_step_type.numpy())
    row, step = np.argwhere(valid)[-1]
    spoiled[row, step] = np.nan
    agent.train(experience._replace(reward=tf.constant(spoiled)))
    metrics = agent.train_metrics()
    assert 0 < metrics["skipped_steps"] < metrics["gradient_steps"]
    assert metrics["gradient_steps"] == int(agent.train_step_counter)
    assert all(np.isfinite(v.numpy()).all() for v in agent._trained_variables())
    assert np.isfinite(metrics["loss"])


def test_a_divergence_beyond_the_limit_ends_the_epochs(rng):
    agent = helpers.make_agent(
        **KEYWORDS, num_epochs=5, recompute_advantages=True, target_kl=1e-6, eager=False, minibatch_size=44
    )
    agent.train(helpers.make_experience(agent, rng))
    assert int(agent.train_step_counter) == 1


def test_precomputed_advantages_are_not_recomputed():
    with pytest.raises(ValueError, match="recompute_advantages is True, expected False without compute_value_and"):
        helpers.make_agent(recompute_advantages=True, compute_value_and_advantage_in_train=False)
