"""Where TF-Agents 0.19.0 is wrong and this package is not: a test of each correction, by its number in the README."""

import helpers
import numpy as np
import oracles
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import TimeStep
from tf_agents.trajectories import time_step as ts

import ppo_agent
from ppo_agent.learner import batches, epochs

PLAIN = {"normalize_rewards": False, "normalize_observations": False}
GAE = {**PLAIN, "use_gae": True, "lambda_value": 0.9, "discount_factor": 0.95}
CLIP = {"importance_ratio_clipping": 0.2}
KL = {"initial_adaptive_kl_beta": 1.5, "adaptive_kl_target": 0.01, "adaptive_kl_tolerance": 0.3}
AGENTS = {
    "PPOAgent": {"cls": ppo_agent.PPOAgent, **CLIP, **GAE},
    "PPOClipAgent": {"cls": ppo_agent.PPOClipAgent, **CLIP, **GAE},
    "PPOKLPenaltyAgent": {"cls": ppo_agent.PPOKLPenaltyAgent, **KL, **GAE},
}
every_agent = pytest.mark.parametrize("name", AGENTS)


def next_time_steps(rows):
    return batches.next_time_steps_of(tf.nest.map_structure(tf.constant, rows))


# 1: the final value.


def test_correction_01_the_last_advantage_uses_the_value_of_the_final_observation():
    agent = helpers.make_agent(use_gae=True, lambda_value=1.0, discount_factor=0.9, **PLAIN)
    steps = TimeStep(tf.ones([1, 3], tf.int32), tf.ones([1, 3]), tf.ones([1, 3]), tf.zeros([1, 3, 3]))
    values = tf.constant([[10.0, 10.0, 10.0, 100.0]])
    _, advantages = agent.compute_return_and_advantage(steps, values)
    np.testing.assert_allclose(advantages[0, -1], 81.0, rtol=1e-6)
    direct = agent.compute_advantages(steps.reward, tf.zeros([1, 3]), 0.9 * steps.discount, values)
    np.testing.assert_allclose(direct, advantages, rtol=1e-6)


@every_agent
def test_correction_01_in_training(rng, name):
    agent = helpers.make_agent(**AGENTS[name])
    experience = helpers.make_experience(agent, rng, end=0.0, length=2)
    helpers.assert_loss(agent.loss(experience), helpers.expected_loss(agent, experience))


# 2: time limits.


@pytest.mark.parametrize("truncated", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("targets", ["monte_carlo", "lambda"])
def test_correction_02_truncated_ends_bootstrap_and_terminal_ends_do_not(rng, targets, truncated):
    keywords = GAE | {"use_gae": targets == "lambda", "use_td_lambda_return": targets == "lambda"}
    agent = helpers.make_agent(**keywords)
    rows = helpers.numpy_experience(helpers.make_experience(agent, rng, truncated=truncated))
    values = rng.normal(2.0, 5.0, rows.reward.shape).astype(np.float32)
    returns, advantages = agent.compute_return_and_advantage(next_time_steps(rows), tf.constant(values))
    expected = oracles.returns_and_advantages(
        rows.reward[:, :-1], rows.discount[:, :-1], rows.next_step_type[:, :-1], values, 0.95, 0.9
    )
    wanted_returns = expected[2] if targets == "lambda" else expected[0]
    wanted_advantages = expected[1] if targets == "lambda" else expected[0] - values[:, :-1]
    np.testing.assert_allclose(returns, wanted_returns, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(advantages, wanted_advantages, rtol=1e-5, atol=1e-5)


@every_agent
def test_correction_02_in_training(rng, name):
    agent = helpers.make_agent(**AGENTS[name])
    experience = helpers.make_experience(agent, rng, truncated=1.0, end=0.4)
    helpers.assert_loss(agent.loss(experience), helpers.expected_loss(agent, experience))


# 3: statistics of valid steps alone.


@every_agent
def test_correction_03_moments_of_advantages_and_clip_fraction(rng, name):
    agent = helpers.make_agent(**AGENTS[name])
    experience, padded = padded_pair(agent, rng, end=0.5)
    expected = helpers.expected_loss(agent, experience)
    helpers.assert_loss(agent.loss(padded), expected)
    assert name == "PPOKLPenaltyAgent" or 0.05 < expected.clip_fraction < 0.95


def padded_pair(agent, rng, **kwargs):
    """An experience whose rows end in the middle of an episode or behind one, and the same with padding."""
    rows = helpers.numpy_experience(helpers.make_experience(agent, rng, **kwargs))
    rows.next_step_type[:, -1] = np.where(rows.step_type[:, -1] == helpers.LAST, helpers.FIRST, helpers.MID)
    rows.discount[:, -1] = 1.0
    experience = tf.nest.map_structure(tf.constant, rows)
    return experience, tf.nest.map_structure(lambda x: helpers.padded(x, 6), experience)


def test_correction_03_normalizers(rng):
    agent = helpers.make_agent(num_epochs=1)
    rewards, observations = oracles.Normalizer(), oracles.Normalizer((3,))
    for _ in range(2):
        experience = helpers.make_experience(agent, rng, end=0.4, padding=3)
        agent.train(experience)
        rows = helpers.numpy_experience(experience)
        rewards.update(rows.reward[oracles.transitions(rows.step_type, rows.next_step_type)])
        observations.update(rows.observation[:, :-3].reshape(-1, 3))
    probe = rng.normal(size=(7, 3)).astype(np.float32)
    for normalizer, oracle in ((agent._reward_normalizer, rewards), (agent._observation_normalizer, observations)):
        x = probe[:, 0] if oracle is rewards else probe
        np.testing.assert_allclose(normalizer.normalize(tf.constant(x)), oracle.normalize(x), rtol=1e-4, atol=1e-4)


# 4: means over valid steps.


@every_agent
def test_correction_04_padding_does_not_change_the_loss(rng, name):
    agent = helpers.make_agent(**AGENTS[name], entropy_regularization=0.1)
    experience, padded = padded_pair(agent, rng, end=0.3)
    expected = helpers.expected_loss(agent, experience)
    helpers.assert_loss(agent.loss(experience), expected)
    helpers.assert_loss(agent.loss(padded), expected)


def test_correction_04_get_loss_keeps_the_meaning_of_weights(rng):
    agent = helpers.make_agent(**CLIP, **GAE)
    experience = helpers.make_experience(agent, rng)
    time_steps = batches.time_steps_of(experience)
    old = helpers.numpy_distribution(experience.policy_info["dist_params"])
    log_probs = tf.constant(old.log_prob([experience.action.numpy()]), tf.float32)
    advantages, returns = (tf.constant(rng.normal(size=(4, 12)), tf.float32) for _ in range(2))

    def evaluate(weights):
        arguments = time_steps, experience.action, log_probs, returns, advantages, experience.policy_info["dist_params"]
        return agent.get_loss(*arguments, weights, agent.train_step_counter, False)

    weights = np.where(rng.random((4, 12)) < 0.5, 0.0, 1.0).astype(np.float32)
    kept, ones, rest = (evaluate(tf.constant(w)).extra for w in (weights, np.ones_like(weights), 1 - weights))
    for term in ("policy_gradient_loss", "value_estimation_loss"):
        total = getattr(kept, term) + getattr(rest, term)
        np.testing.assert_allclose(total, getattr(ones, term), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(evaluate(tf.constant(1.0)).loss, evaluate(tf.ones([4, 12])).loss, rtol=1e-6)


# 5: NaN in masked steps.


def with_hole(rows, field, where, value=np.nan):
    """The rows with `value` in a field, at the rows chosen."""
    rows = tf.nest.map_structure(np.copy, rows)
    targets = rows.policy_info if field == "policy_info" else getattr(rows, field)
    for leaf in tf.nest.flatten(targets):
        leaf[where] = value
    return tf.nest.map_structure(tf.constant, rows)


@every_agent
@pytest.mark.parametrize("field", ["reward", "observation", "action", "policy_info"])
def test_correction_05_nan_in_masked_steps_reaches_nothing(rng, name, field):
    keywords = AGENTS[name] | {"normalize_rewards": True, "normalize_observations": True, "num_epochs": 2}
    clean_agent, agent = helpers.make_agent(**keywords), helpers.make_agent(**keywords)
    helpers.copy_weights(clean_agent, agent)
    rows = helpers.numpy_experience(helpers.make_experience(agent, rng, truncated=0.0, padding=2))
    masked = ~oracles.transitions(rows.step_type, rows.next_step_type)
    boundaries = rows.step_type == helpers.LAST
    assert boundaries.any()
    # The final observation of an episode is real: it counts for the observation normaliser.
    masked = masked & ~boundaries if field == "observation" else masked
    clean = tf.nest.map_structure(tf.constant, rows)
    for _ in range(2):
        expected, actual = clean_agent.train(clean), agent.train(with_hole(rows, field, masked))
        np.testing.assert_allclose(actual.loss, expected.loss, rtol=1e-6)
    helpers.assert_same_state(helpers.state_of(agent), helpers.state_of(clean_agent), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("field", ["reward", "observation", "action", "policy_info"])
@pytest.mark.parametrize("place", ["boundary", "last"])
def test_correction_05_nan_where_only_bootstrapping_would_look(rng, field, place):
    """In the final observation of a terminal episode, and at the last time index, whose value alone is used."""
    agent = helpers.make_agent(**CLIP, use_gae=True, num_epochs=2)
    rows = helpers.numpy_experience(helpers.make_experience(agent, rng, truncated=0.0))
    rows.next_step_type[:, -2], rows.discount[:, -2] = helpers.LAST, 0.0
    rows.step_type[:, -2], rows.step_type[:, -1], rows.next_step_type[:, -1] = helpers.MID, helpers.LAST, helpers.FIRST
    rows.step_type[:, -3], rows.next_step_type[:, -3] = helpers.MID, helpers.MID
    if place == "boundary":
        where = rows.step_type == helpers.LAST
    else:
        where = np.zeros_like(rows.step_type, bool)
        where[:, -1] = True
        rows.step_type[:, -1] = rows.next_step_type[:, -1] = helpers.MID
    assert where.any()
    for _ in range(2):
        loss_info = agent.train(with_hole(rows, field, where))
        assert np.isfinite(loss_info.loss)
    assert all(np.isfinite(v).all() for v in helpers.state_of(agent).values())


def test_correction_05_gradients_with_a_scale_of_zero_in_masked_steps(rng):
    agent = helpers.make_agent(**CLIP, **GAE)
    experience = helpers.make_experience(agent, rng, padding=4)
    for parameter in tf.nest.flatten(experience.policy_info):
        np.testing.assert_array_equal(parameter[:, -1], 0)
    agent.train(experience)
    assert all(np.isfinite(v).all() for v in helpers.state_of(agent).values())


# 6, 7: the variants.


def test_correction_06_clip_agent_honours_log_prob_clipping(rng):
    agent = helpers.make_agent(cls=ppo_agent.PPOClipAgent, **CLIP, **GAE, log_prob_clipping=1.0)
    experience = helpers.make_experience(agent, rng)
    expected = helpers.expected_loss(agent, experience)
    helpers.assert_loss(agent.loss(experience), expected)
    agent = helpers.make_agent(cls=ppo_agent.PPOClipAgent, nets=(agent.actor_net, agent.value_net), **CLIP, **GAE)
    assert abs(agent.loss(experience).extra.policy_gradient_loss - expected.policy_gradient_loss) > 1e-3


def test_correction_07_kl_penalty_agent_trains_with_its_default_cutoff(rng):
    agent = helpers.make_agent(cls=ppo_agent.PPOKLPenaltyAgent, num_epochs=2, **KL, **PLAIN)
    experience = helpers.make_experience(agent, rng)
    expected = helpers.expected_loss(agent, experience)
    divergence = expected.kl_penalty_loss / 1.5
    assert divergence > 0.01
    helpers.assert_loss(agent.loss(experience), expected)
    assert np.isfinite(agent.train(experience).loss)


# 8: weights.


@every_agent
@pytest.mark.parametrize("shape", [(), (4,), (4, 12)])
def test_correction_08_weights_of_every_documented_shape(rng, name, shape):
    agent = helpers.make_agent(**AGENTS[name])
    experience = helpers.make_experience(agent, rng)
    weights = rng.uniform(0.5, 2.0, shape).astype(np.float32)
    expected = helpers.expected_loss(agent, experience, weights[:, None] if len(shape) == 1 else weights)
    helpers.assert_loss(agent.loss(experience, weights=tf.constant(weights)), expected)
    with_one_epoch = helpers.make_agent(nets=(agent.actor_net, agent.value_net), **AGENTS[name] | {"num_epochs": 1})
    helpers.assert_loss(with_one_epoch.train(experience, weights=tf.constant(weights)), expected)


# 9: no optimizer.


@every_agent
def test_correction_09_adam_where_no_optimizer_is_given(rng, name):
    default = helpers.make_agent(**AGENTS[name], optimizer=None)
    explicit = helpers.make_agent(**AGENTS[name], optimizer=tf.compat.v1.train.AdamOptimizer())
    helpers.copy_weights(default, explicit)
    experience = helpers.make_experience(default, rng)
    for agent in (default, explicit):
        agent.train(experience)
    helpers.assert_same_state(helpers.state_of(default), helpers.state_of(explicit), rtol=1e-6, atol=1e-7)
    assert default.train_metrics()["learning_rate"] == pytest.approx(0.001)


# 10: integer observations.


@pytest.mark.parametrize("kind", ["ours", "legacy"])
def test_correction_10_integer_observations_are_normalized_to_float32(rng, kind):
    spec = tensor_spec.BoundedTensorSpec([3], tf.int32, 0, 255, "observation")
    float_spec = tf.TensorSpec([3], tf.float32, "observation")
    agent = helpers.make_agent(
        nets=helpers.make_networks(kind, observation_spec=float_spec),
        time_step_spec=ts.time_step_spec(spec),
        **CLIP,
        normalize_observations=True,
    )
    observation = tf.constant(rng.integers(0, 255, (2, 3)), tf.int32)
    time_step = ts.restart(observation, batch_size=2)
    for policy in (agent.policy, agent.collect_policy):
        assert policy.action(time_step).action.shape == [2, 2]
    before = agent.policy.action(time_step).action
    experience = helpers.make_experience(agent, rng)
    assert np.isfinite(agent.train(experience).loss)
    oracle = oracles.Normalizer((3,))
    oracle.update(experience.observation.numpy().reshape(-1, 3))
    normalized = agent._observation_normalizer.normalize(observation)
    np.testing.assert_allclose(normalized, oracle.normalize(observation), rtol=1e-4, atol=1e-4)
    assert np.abs(before - agent.policy.action(time_step).action).max() > 0


# 11: several discrete actions of unequal sizes.


@pytest.mark.parametrize("cls", [ppo_agent.PPOAgent, ppo_agent.PPOClipAgent])
def test_correction_11_discrete_actions_of_unequal_sizes(rng, cls):
    action_spec = tensor_spec.BoundedTensorSpec([3], tf.int32, 0, [1, 2, 4])
    agent = helpers.make_agent(action_spec=action_spec, cls=cls, **CLIP, **GAE, entropy_regularization=0.1)
    experience = helpers.make_experience(agent, rng, batch=8)
    np.testing.assert_array_equal(experience.action.numpy().max((0, 1)), [1, 2, 4])
    loss_info = agent.train(experience)
    assert np.isfinite(loss_info.loss)
    time_step = ts.restart(tf.zeros([5, 3]), batch_size=5)
    assert agent.policy.action(time_step).action.shape == [5, 3]
    entropy = agent.train_metrics()["entropy"]
    assert 0 < entropy <= np.log(2 * 3 * 5) + 1e-5


# 12: the loop over epochs.


def graph_of_training(agent, experience):
    def operations(graph):
        inner = [f.definition if hasattr(f, "definition") else f.cached_definition for f in graph._functions.values()]
        return len(graph.get_operations()) + sum(len(f.node_def) for f in inner)

    function = tf.function(agent.train, autograph=False).get_concrete_function(experience)
    return operations(function.graph)


@every_agent
def test_correction_12_graph_size_does_not_depend_on_the_number_of_epochs(rng, name):
    sizes = []
    for num_epochs in (2, 25):
        agent = helpers.make_agent(**AGENTS[name] | {"num_epochs": num_epochs}, eager=False)
        sizes.append(graph_of_training(agent, helpers.make_experience(agent, rng)))
    assert sizes[0] == sizes[1]
    assert 200 < sizes[0] < 4000


def test_correction_12_every_epoch_is_a_gradient_step(rng):
    agent = helpers.make_agent(**CLIP, **GAE, num_epochs=25, eager=False)
    agent.train(helpers.make_experience(agent, rng))
    assert agent.train_step_counter == 25


# 13: loss().


@every_agent
@pytest.mark.parametrize("minibatch_size", [None, 7])
def test_correction_13_loss_is_that_of_the_first_gradient_step_and_changes_nothing(
    rng, monkeypatch, name, minibatch_size
):
    keywords = AGENTS[name] | {"num_epochs": 1, "normalize_rewards": True, "normalize_observations": True}
    agent = helpers.make_agent(**keywords, minibatch_size=minibatch_size)
    helpers.prime_normalizers(agent, rng)
    experience = helpers.make_experience(agent, rng)
    before = helpers.state_of(agent)
    loss_info = agent.loss(experience)
    helpers.assert_same_state(helpers.state_of(agent), before)
    run_epochs = epochs.run_epochs
    monkeypatch.setattr(epochs, "run_epochs", lambda step, _, *rest: run_epochs(step, 1, *rest))
    trained = agent.train(experience)
    for actual, expected in zip(tf.nest.flatten(loss_info), tf.nest.flatten(trained), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
