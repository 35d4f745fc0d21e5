"""Hyper-parameters that change while an agent trains, and the limit that ends its epochs."""

import helpers
import numpy as np
import pytest
import tensorflow as tf

import ppo_agent
from ppo_agent.learner.report import STEP_METRICS
from ppo_agent.maths import losses

COMMON = {
    "minibatch_size": 8,
    "num_epochs": 4,
    "use_gae": True,
    "normalize_observations": False,
    "normalize_rewards": False,
}


def agents_with_equal_weights(**different):
    """Two agents that differ in nothing but the given keywords, of which each is a pair."""
    agents = []
    for choice in range(2):
        tf.random.set_seed(1)
        keywords = {name: pair[choice] for name, pair in different.items()}
        agents.append(helpers.make_agent(eager=False, cls=ppo_agent.PPOClipAgent, **COMMON, **keywords))
    first, second = agents
    helpers.copy_weights(first, second)
    second._shuffle_seed.assign(first._shuffle_seed)
    return agents


def start_again(agent, like):
    """Takes back what an agent has learnt."""
    for target, source in zip(agent._trained_variables(), like._trained_variables(), strict=True):
        target.assign(source)
    for variable in agent._optimizer.variables:
        if "learning_rate" not in variable.name:
            variable.assign(tf.zeros_like(variable))
    agent.train_step_counter.assign(0)


def parameters(agent):
    return np.concatenate([v.numpy().ravel() for v in agent._trained_variables()])


@pytest.mark.parametrize("jit_compile", [True, False])
def test_a_function_is_asked_in_every_call_of_train(rng, jit_compile):
    epsilon, coefficient = tf.Variable(0.3), tf.Variable(0.1)
    scheduled, fixed = agents_with_equal_weights(
        importance_ratio_clipping=(epsilon.read_value, 0.05),
        entropy_regularization=(coefficient.read_value, 0.5),
        jit_compile=(jit_compile, jit_compile),
    )
    experience = helpers.make_experience(scheduled, rng)
    scheduled.train(experience)
    moved = parameters(scheduled)

    # The same again with other values: as an agent that never knew others.
    epsilon.assign(0.05)
    coefficient.assign(0.5)
    start_again(scheduled, like=fixed)
    loss, expected = scheduled.train(experience), fixed.train(experience)
    np.testing.assert_allclose(parameters(scheduled), parameters(fixed), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss.loss, expected.loss, rtol=1e-4)
    assert not np.allclose(parameters(scheduled), moved, rtol=1e-5, atol=1e-6)
    assert len(scheduled._run_update._functions) == 1


def test_a_clipping_of_zero_that_is_scheduled_keeps_all_ratios_at_one(rng):
    agent = helpers.make_agent(importance_ratio_clipping=lambda: tf.constant(0.0), **COMMON)
    agent.train(helpers.make_experience(agent, rng))
    assert agent.train_metrics()["clip_fraction"] > 0.5


def kl_of_every_step(rng, **keywords):
    """An agent, its experience, and what `approx_kl` was in each gradient step of an unlimited `train`."""
    (unlimited, limited) = agents_with_equal_weights(importance_ratio_clipping=(0.2, 0.2), **keywords)
    experience = helpers.make_experience(unlimited, rng, noise=0.0)
    reports = []
    step = unlimited._update._step
    unlimited._update._step = lambda *arguments: reports.append(step(*arguments)) or reports[-1]
    helpers.run_eagerly(unlimited).train(experience)
    return limited, experience, [float(report[STEP_METRICS.index("approx_kl")]) for report, *_ in reports]


@pytest.mark.parametrize("jit_compile", [True, False])
def test_epochs_end_behind_the_step_that_is_too_far(rng, jit_compile):
    target = 0.01
    agent, experience, divergences = kl_of_every_step(
        rng, target_kl=(None, target), jit_compile=(False, jit_compile), optimizer=adams(0.05)
    )
    expected = next(i for i, kl in enumerate(divergences) if kl > 1.5 * target) + 1
    assert 1 < expected < len(divergences)
    agent.train(experience)
    assert int(agent.train_step_counter) == expected
    assert agent.train_metrics()["approx_kl"] == pytest.approx(np.mean(divergences[:expected]), rel=1e-3)


def test_a_limit_that_is_never_reached_changes_nothing(rng):
    agent, experience, divergences = kl_of_every_step(rng, target_kl=(None, 1e6), optimizer=adams(0.01))
    agent.train(experience)
    assert int(agent.train_step_counter) == len(divergences)


def adams(learning_rate):
    return tuple(tf.keras.optimizers.Adam(learning_rate, epsilon=1e-5) for _ in range(2))


def test_values_that_are_no_good():
    with pytest.raises(ValueError, match=r"target_kl is -1, expected a finite number of at least 0"):
        helpers.make_agent(target_kl=-1)
    with pytest.raises(ValueError, match="entropy_regularization is 'linear', expected a finite number"):
        helpers.make_agent(entropy_regularization="linear")


def test_surrogate_of_a_clipping_that_is_a_tensor(rng):
    new, old, advantages = rng.normal(size=(3, 4, 5)).astype(np.float32)
    expected, _ = losses.surrogate_loss(new, old, advantages, 0.2)
    actual, _ = losses.surrogate_loss(new, old, advantages, tf.constant(0.2))
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
