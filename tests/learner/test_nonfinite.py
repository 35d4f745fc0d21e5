"""Losses and gradients that are not finite: such a step is skipped, counted, and after some in a row training ends."""

import helpers
import numpy as np
import pytest
import tensorflow as tf

import ppo_agent
from ppo_agent.learner import gradients, guards

HOLES = [np.nan, np.inf]


def optimizer_variables(optimizer):
    variables = optimizer.variables
    return [v.numpy().copy() for v in (variables() if callable(variables) else variables)]


def experience_with_hole(agent, rng, hole, field="reward", batch=8):
    """Single steps [batch, 2], of which that of the last row is not finite."""
    rows = helpers.make_experience(agent, rng, batch=batch, length=2, end=0.0)
    values = helpers.numpy_experience(rows)
    leaf = tf.nest.flatten(values.policy_info["dist_params"])[0] if field == "dist_params" else getattr(values, field)
    leaf[-1, 0] = hole
    return tf.nest.map_structure(tf.constant, values)


OPTIMIZERS = {
    "keras": lambda: tf.keras.optimizers.Adam(0.01),
    "compat": lambda: tf.compat.v1.train.AdamOptimizer(0.01),
}


@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("field", ["reward", "observation", "dist_params"])
def test_a_step_without_a_finite_loss_changes_nothing(rng, field, hole):
    agent = helpers.make_agent(num_epochs=3, normalize_observations=False, normalize_rewards=False)
    agent.train(helpers.make_experience(agent, rng))
    before, slots = helpers.state_of(agent), optimizer_variables(agent._optimizer)
    info = agent.train(experience_with_hole(agent, rng, hole, field))
    after = helpers.state_of(agent)
    for name in before:
        if name.startswith("variable"):
            np.testing.assert_array_equal(after[name], before[name])
        assert np.isfinite(after[name]).all()
    for one, other in zip(slots, optimizer_variables(agent._optimizer), strict=True):
        np.testing.assert_array_equal(other, one)
    assert agent.train_metrics()["skipped_steps"] == 3
    assert after["step"] == before["step"] + 3
    assert not np.isfinite(info.loss)


@pytest.mark.parametrize(("name", "jit_compile"), [("keras", True), ("compat", False)])
def test_only_the_minibatch_with_the_hole_is_skipped(rng, name, jit_compile):
    optimizer = OPTIMIZERS[name]()
    agent = helpers.make_agent(
        optimizer=optimizer, eager=False, minibatch_size=2, num_epochs=5, jit_compile=jit_compile
    )
    agent.train(experience_with_hole(agent, rng, np.nan))
    metrics = agent.train_metrics()
    assert metrics["skipped_steps"] == 5
    assert agent.train_step_counter == 20
    assert np.isfinite([metrics[name] for name in ("loss", "gradient_norm", "entropy", "approx_kl")]).all()
    assert all(np.isfinite(value).all() for value in helpers.state_of(agent).values())
    assert all(np.isfinite(value).all() for value in optimizer_variables(optimizer))
    agent.train(helpers.make_experience(agent, rng, batch=8, length=2, end=0.0))
    assert agent.train_metrics()["skipped_steps"] == 0


def test_good_steps_lead_where_they_lead_without_the_skipped_ones(rng, monkeypatch):
    """With plain gradient descent, whose steps do not depend on how many were taken before."""
    agents = [
        helpers.make_agent(
            optimizer=tf.compat.v1.train.GradientDescentOptimizer(0.1),
            num_epochs=1,
            minibatch_size=4,
            normalize_rewards=False,
        )
        for _ in range(2)
    ]
    helpers.copy_weights(*agents)
    for agent in agents:
        agent._shuffle_seed.assign(0)
    rows = experience_with_hole(agents[0], rng, np.nan)
    step, applied = gradients.gradient_step, []

    def without(loss, variables, *rest):
        """The same, with what a bad step has done taken back."""
        before = [v.numpy().copy() for v in variables]
        result = step(loss, variables, *rest)
        applied.append(bool(result[2]))
        if not np.isfinite(result[0].loss_info.loss):
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
        return result

    agents[0].train(rows)
    monkeypatch.setattr(guards, "apply", lambda _guard, _is_sound, change: change())
    monkeypatch.setattr(gradients, "gradient_step", without)
    agents[1].train(rows)
    assert sorted(applied) == [False, True]
    helpers.assert_same_state(helpers.state_of(agents[0]), helpers.state_of(agents[1]))


@pytest.mark.parametrize("eager", [True, False])
def test_training_ends_after_too_many_in_a_row(rng, eager, tmp_path):
    agent = helpers.make_agent(
        eager=eager, minibatch_size=8, num_epochs=2, max_skipped_steps=5, normalize_rewards=False
    )
    agent.train(helpers.make_experience(agent, rng, batch=8, length=2, end=0.0))
    before = helpers.state_of(agent)
    rows = experience_with_hole(agent, rng, np.inf)
    for _ in range(2):
        agent.train(rows)
    assert agent.train_step_counter == 6
    with pytest.raises(
        ppo_agent.NonFiniteUpdateError, match=r"5 gradient steps in a row .* not finite in .*returns"
    ) as info:
        agent.train(rows)
    error = info.value
    assert isinstance(error, FloatingPointError)
    assert error.skipped == 5
    assert agent.train_step_counter == 7  # The second epoch was not begun.
    for name, value in helpers.state_of(agent).items():
        if name.startswith("variable"):
            np.testing.assert_array_equal(value, before[name])
    assert error.minibatch["mask"].shape == (8, 1)
    assert error.minibatch["time_steps/observation"].shape == (8, 1, 3)
    assert np.isinf(error.minibatch["returns"]).sum() == 1
    error.save(tmp_path / "minibatch.npz")
    with np.load(tmp_path / "minibatch.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["returns"], error.minibatch["returns"])
        assert saved["metrics/loss"].shape == ()
    # It may be called again: a good step ends the row.
    agent.train(helpers.make_experience(agent, rng, batch=8, length=2, end=0.0))
    assert agent.train_metrics()["skipped_steps"] == 0
    agent.train(rows)


def test_metrics_of_the_last_good_step(rng):
    agent = helpers.make_agent(minibatch_size=2, num_epochs=1, max_skipped_steps=1, normalize_rewards=False)
    agent._shuffle_seed.assign(0)
    with pytest.raises(ppo_agent.NonFiniteUpdateError) as info:
        agent.train(experience_with_hole(agent, rng, np.nan))
    metrics = info.value.metrics
    assert metrics["skipped_steps"] == 1
    assert set(metrics) == set(agent.train_metrics())


@pytest.mark.parametrize("limit", [None, 0])
def test_never(rng, limit):
    agent = helpers.make_agent(num_epochs=20, max_skipped_steps=limit)
    agent.train(experience_with_hole(agent, rng, np.nan))
    assert agent.train_metrics()["skipped_steps"] == 20


def test_in_a_function_of_the_users_nothing_is_raised(rng):
    agent = helpers.make_agent(eager=False, num_epochs=20, max_skipped_steps=2)
    rows = experience_with_hole(agent, rng, np.nan)
    tf.function(agent.train)(rows)
    assert agent.train_metrics()["skipped_steps"] == 2
    assert all(np.isfinite(value).all() for value in helpers.state_of(agent).values())


@pytest.mark.parametrize("value", [-1, 1.5, "a"])
def test_a_bad_limit(value):
    with pytest.raises(ValueError, match=f"max_skipped_steps is {value!r}, expected an integer of at least 0"):
        helpers.make_agent(max_skipped_steps=value)
