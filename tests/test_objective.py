"""The loss and its terms, called as TF-Agents' users call them, against the NumPy loss."""

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.tf_agent import LossInfo

import ppo_agent
from ppo_agent.learner import batches

PLAIN = {"normalize_rewards": False, "normalize_observations": False}
OFF = {**PLAIN, "initial_adaptive_kl_beta": 0.0, "kl_cutoff_factor": None}

CASES = {
    "surrogate": ("ours", "continuous", {**OFF}),
    "clipped": ("ours", "discrete", {**OFF, "importance_ratio_clipping": 0.15}),
    "entropy": ("legacy", "nested", {**OFF, "entropy_regularization": 0.3, "value_pred_loss_coef": 2.0}),
    "kl": ("legacy", "continuous", {**PLAIN, "initial_adaptive_kl_beta": 2.0, "adaptive_kl_target": 0.02}),
    "cutoff": ("legacy", "discrete", {**PLAIN, "initial_adaptive_kl_beta": 0.0, "kl_cutoff_coef": 30.0}),
    "gae": ("sequential", "continuous", {**OFF, "use_gae": True, "use_td_lambda_return": True, "lambda_value": 0.6}),
    "log_prob_clipping": ("ours", "nested", {**OFF, "log_prob_clipping": 2.0, "importance_ratio_clipping": 0.2}),
    "recurrent": ("rnn", "continuous", {**PLAIN, "use_gae": True, "importance_ratio_clipping": 0.2}),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_equals_the_numpy_loss(rng, case):
    kind, action, keywords = CASES[case]
    agent = helpers.make_agent(kind, helpers.ACTIONS[action], **keywords)
    experience = helpers.make_experience(agent, rng)
    helpers.assert_loss(agent.loss(experience), helpers.expected_loss(agent, experience))


@pytest.mark.parametrize("action", ["continuous", "discrete"])
def test_gradient_is_that_of_the_numpy_loss(rng, action):
    """One step of gradient descent moves every variable by the slope of the loss, found by moving it a little."""
    keywords = {**PLAIN, "use_gae": True, "importance_ratio_clipping": 0.3, "entropy_regularization": 0.1}
    optimizer = tf.keras.optimizers.SGD(1.0)
    agent = helpers.make_agent("ours", helpers.ACTIONS[action], **keywords, num_epochs=1, optimizer=optimizer)
    experience = helpers.make_experience(agent, rng)
    fixed = frozen_targets(agent, experience)
    variables = agent._trained_variables()
    start = [v.numpy() for v in variables]
    directions = [rng.normal(size=v.shape).astype(np.float32) for v in variables]

    def at(distance):
        for variable, x, direction in zip(variables, start, directions, strict=True):
            variable.assign(x + distance * direction)
        return fixed()

    slope = (at(3e-3) - at(-3e-3)) / 6e-3
    at(0.0)
    agent.train(experience)
    moved = [x - v.numpy() for v, x in zip(variables, start, strict=True)]
    predicted = sum(np.sum(g * d) for g, d in zip(moved, directions, strict=True))
    np.testing.assert_allclose(predicted, slope, rtol=0.02)


def frozen_targets(agent, experience):
    """The loss as a function of the networks alone: returns and advantages are computed once."""
    batch = batches.prepared(agent._update.make_batch(agent._checked(experience, None), None))
    return lambda: float(agent._update._methods.evaluate(batch, False).loss_info.loss)


def test_value_clipping_needs_old_value_predictions(rng):
    agent = helpers.make_agent(value_clipping=0.1)
    time_steps = batches.time_steps_of(helpers.make_experience(agent, rng))
    with pytest.raises(ValueError, match="old_value_predictions is None"):
        agent.value_estimation_loss(time_steps, tf.zeros([4, 12]), tf.ones([4, 12]))


def test_value_clipping_bounds_the_change_of_predictions(rng):
    keywords = {**OFF, "value_clipping": 0.1, "value_pred_loss_coef": 1.0}
    agent = helpers.make_agent(**keywords)
    rows = helpers.make_experience(agent, rng)
    values = agent.collect_policy.apply_value_network(rows.observation, rows.step_type)[0].numpy()
    old, returns = (values + rng.normal(0, 0.3, values.shape).astype(np.float32) for _ in range(2))
    clipped = old + np.clip(values - old, -0.1, 0.1)
    expected = np.mean(np.maximum((returns - values) ** 2, (returns - clipped) ** 2))
    actual = agent.value_estimation_loss(batches.time_steps_of(rows), returns, tf.ones([4, 12]), old)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_methods_that_pipelines_override_are_called(rng):
    class Agent(ppo_agent.PPOAgent):
        def kl_cutoff_loss(self, kl_divergence, debug_summaries=False):
            return tf.constant(3.0)

        def adaptive_kl_loss(self, kl_divergence, debug_summaries=False):
            return tf.constant(4.0)

        def policy_gradient_loss(self, *args, **kwargs):
            return 10.0 + super().policy_gradient_loss(*args, **kwargs)

        def value_estimation_loss(self, *args, **kwargs):
            return 20.0 + super().value_estimation_loss(*args, **kwargs)

        def entropy_regularization_loss(self, *args, **kwargs):
            return 30.0 + super().entropy_regularization_loss(*args, **kwargs)

        def l2_regularization_loss(self, *args, **kwargs):
            return 40.0 + super().l2_regularization_loss(*args, **kwargs)

    plain = helpers.make_agent(**PLAIN)
    agent = helpers.make_agent(cls=Agent, nets=(plain.actor_net, plain.value_net), **PLAIN)
    experience = helpers.make_experience(agent, rng)
    before, after = plain.loss(experience).extra, agent.loss(experience).extra
    assert after.kl_penalty_loss == 7.0
    added = [after[i] - before[i] for i in range(4)]
    np.testing.assert_allclose(added, [10, 20, 40, 30], rtol=1e-4)


def test_a_get_loss_of_the_pipelines_own_is_trained_on(rng):
    class Agent(ppo_agent.PPOAgent):
        def get_loss(self, *args, **kwargs):
            loss_info = super().get_loss(*args, **kwargs)
            return loss_info._replace(loss=2.0 * loss_info.loss)

    # The gradient is twice as large, and so is one step of gradient descent.
    agents = [
        helpers.make_agent(cls=cls, num_epochs=1, optimizer=tf.keras.optimizers.SGD(0.1), **PLAIN)
        for cls in (None, Agent)
    ]
    helpers.copy_weights(*agents)
    start = [v.numpy() for v in agents[0]._trained_variables()]
    experience = helpers.make_experience(agents[0], rng)
    losses = [agent.train(experience).loss for agent in agents]
    np.testing.assert_allclose(losses[1], 2 * losses[0], rtol=1e-5)
    for x, *variables in zip(start, *(agent._trained_variables() for agent in agents), strict=True):
        np.testing.assert_allclose(variables[1] - x, 2 * (variables[0] - x), rtol=1e-3, atol=1e-6)
    plain, own = (agent.train_metrics() for agent in agents)
    for name in ("entropy", "approx_kl", "clip_fraction", "explained_variance"):
        np.testing.assert_allclose(own[name], plain[name], rtol=1e-4, atol=1e-6, err_msg=name)


class OwnLoss(ppo_agent.PPOAgent):
    """A loss written from scratch, as pipelines have it: the networks are called through the policy."""

    def get_loss(
        self, time_steps, actions, act_log_probs, returns, normalized_advantages, parameters, weights, train_step,
        debug_summaries, old_value_predictions=None, training=False,
    ):  # fmt: skip
        current = self._collect_policy._distribution(time_steps, (), training=training).action
        policy_gradient_loss = self.policy_gradient_loss(
            time_steps, actions, act_log_probs, normalized_advantages, current, weights, debug_summaries
        )
        zero = tf.constant(0.0)
        extra = ppo_agent.PPOLossInfo(policy_gradient_loss, zero, zero, zero, zero, self._clip_fraction)
        return LossInfo(policy_gradient_loss, extra)


@pytest.mark.parametrize(("eager", "keywords"), [(True, {}), (False, {"minibatch_size": 16})])
def test_a_get_loss_of_the_pipelines_own_costs_neither_metrics_nor_the_limit(rng, eager, keywords):
    keywords = {**PLAIN, **OFF, **keywords, "use_gae": True, "num_epochs": 6, "importance_ratio_clipping": 0.2}
    agents = [
        helpers.make_agent(cls=OwnLoss, eager=eager, optimizer=tf.keras.optimizers.Adam(0.05), **keywords, target_kl=kl)
        for kl in (None, 0.02)
    ]
    helpers.copy_weights(*agents)
    experience = helpers.make_experience(agents[0], rng, noise=0.0)
    for agent in agents:
        agent.train(experience)
    unlimited, limited = (agent.train_metrics() for agent in agents)
    assert 1 <= limited["gradient_steps"] < unlimited["gradient_steps"]
    assert unlimited["approx_kl"] > 0.02
    assert limited["clip_fraction"] < unlimited["clip_fraction"]
    current, _ = agents[0].collect_policy.apply_actor_network(experience.observation, experience.step_type, ())
    assert abs(unlimited["entropy"] - np.mean(current.entropy())) < 0.5


def test_compute_advantages_and_update_adaptive_kl_beta_can_be_overridden(rng):
    class Agent(ppo_agent.PPOAgent):
        def compute_advantages(self, rewards, returns, discounts, value_preds):
            return tf.ones_like(rewards)

        def update_adaptive_kl_beta(self, kl_divergence):
            return self._adaptive_kl_beta.assign(7.0)

    agent = helpers.make_agent(cls=Agent, num_epochs=1, **PLAIN)
    loss_info = agent.train(helpers.make_experience(agent, rng))
    np.testing.assert_allclose(loss_info.extra.policy_gradient_loss, 0.0, atol=1e-4)
    assert agent.train_metrics()["adaptive_kl_beta"] == 7.0


@pytest.mark.parametrize(("mean_kl", "factor"), [(0.02, 1.5), (0.01, 1.0), (0.001, 1 / 1.5)])
def test_update_adaptive_kl_beta(mean_kl, factor):
    agent = helpers.make_agent(initial_adaptive_kl_beta=2.0)
    np.testing.assert_allclose(agent.update_adaptive_kl_beta(tf.fill([2, 3], mean_kl)), 2.0 * factor, rtol=1e-6)
    assert helpers.make_agent(initial_adaptive_kl_beta=0.0).update_adaptive_kl_beta(tf.ones([2, 3])) is None


def test_l2_counts_kernels_alone():
    agent = helpers.make_agent("legacy", policy_l2_reg=0.5, value_function_l2_reg=0.25)
    for variable in agent._trained_variables():
        variable.assign(tf.ones_like(variable) if "kernel" in variable.name else tf.fill(variable.shape, 100.0))
    sizes = [
        sum(int(np.prod(v.shape)) for v in net.trainable_weights if "kernel" in v.name)
        for net in (agent.actor_net, agent.value_net)
    ]
    assert min(sizes) > 0
    np.testing.assert_allclose(agent.l2_regularization_loss(), 0.5 * sizes[0] + 0.25 * sizes[1], rtol=1e-6)
    assert helpers.make_agent().l2_regularization_loss() == 0


def test_check_numerics_names_the_term(rng):
    agent = helpers.make_agent(check_numerics=True, **PLAIN)
    agent.value_net.trainable_weights[0].assign(tf.fill(agent.value_net.trainable_weights[0].shape, np.nan))
    with pytest.raises(tf.errors.InvalidArgumentError, match="value_estimation_loss"):
        agent.train(helpers.make_experience(agent, rng))
