"""What subclasses of TF-Agents' agents read and override is there, by a list made from TF-Agents' own classes."""

import ast
import inspect

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.ppo import ppo_agent as theirs
from tf_agents.agents.ppo import ppo_policy as their_policy
from tf_agents.agents.ppo import ppo_utils as their_utils

import ppo_agent

EPSILON = {"importance_ratio_clipping": 0.2, "gradient_clipping": 0.5, "use_gae": True, "use_td_lambda_return": True}


def assigned_attributes(cls):
    """Every `self.NAME` that is assigned in the class's own source."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(cls)))
    (body,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    return {
        node.attr
        for node in ast.walk(body)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and getattr(node.value, "id", "") == "self"
    }


@pytest.fixture(scope="module")
def agents():
    keywords = {**EPSILON, "kl_cutoff_factor": 3.0, "reward_norm_clipping": 7.0, "value_clipping": 0.3, "num_epochs": 2}
    return [helpers.make_agent("legacy", cls=cls, **keywords, eager=False) for cls in (None, theirs.PPOAgent)]


def test_every_attribute_of_the_agent(agents):
    ours, other = agents
    names = assigned_attributes(theirs.PPOAgent)
    assert {"_discount_factor", "_lambda", "_clip_fraction", "_grad_norm", "_collected_as_transition"} <= names
    plain = (bool, int, float, str, type(None))
    for name in sorted(names):
        assert hasattr(ours, name), name
        if isinstance(getattr(other, name, object()), plain):
            assert getattr(ours, name) == getattr(other, name), name
    assert ours._gradient_clipping > 0
    assert isinstance(ours._action_distribution_spec, type(other._action_distribution_spec))
    with pytest.raises(AttributeError, match=r"_use_gae is set to False, expected it as the keyword use_gae"):
        ours._use_gae = False


def test_every_attribute_of_the_policy(agents):
    for name in assigned_attributes(their_policy.PPOPolicy):
        assert hasattr(agents[0].collect_policy, name), name


def test_every_method_takes_the_same_arguments():
    for name, method in inspect.getmembers(theirs.PPOAgent, inspect.isfunction):
        if name in vars(theirs.PPOAgent) and name != "__init__":
            expected = list(inspect.signature(method).parameters)
            actual = list(inspect.signature(getattr(ppo_agent.PPOAgent, name)).parameters)
            assert actual[: len(expected)] == expected, name


def test_every_function_of_ppo_utils():
    for name, function in inspect.getmembers(their_utils, inspect.isfunction):
        if function.__module__ == their_utils.__name__:
            assert getattr(ppo_agent.ppo_utils, name) is function
    assert ppo_agent.ppo_clip_agent.PPOClipAgent is ppo_agent.PPOClipAgent
    assert ppo_agent.ppo_kl_penalty_agent.PPOKLPenaltyAgent is ppo_agent.PPOKLPenaltyAgent
    assert ppo_agent.ppo_policy.PPOPolicy is ppo_agent.PPOPolicy


class ScaledAgent(ppo_agent.PPOAgent):
    """In the form of pipelines that scale the loss, give rewards at the ends alone and count what they clip."""

    def __init__(self, *arguments, scale=1.0, **keywords):
        super().__init__(*arguments, **keywords)
        self._scale = scale

    def compute_return_and_advantage(self, next_time_steps, value_preds):
        discounts = next_time_steps.discount * tf.constant(self._discount_factor, tf.float32)
        rewards = next_time_steps.reward
        if self._reward_normalizer:
            rewards = self._reward_normalizer.normalize(
                rewards, center_mean=False, clip_value=self._reward_norm_clipping
            )
        returns = rewards + discounts * value_preds[:, 1:]
        advantages = self.compute_advantages(rewards, returns, discounts, value_preds)
        if self._use_td_lambda_return and self._use_gae:
            returns = tf.add(advantages, value_preds[:, :-1])
        return returns, advantages

    def get_loss(
        self, time_steps, actions, act_log_probs, returns, normalized_advantages, action_distribution_parameters,
        weights, train_step, debug_summaries, old_value_predictions=None, training=False,
    ):  # fmt: skip
        state = self._collect_policy.get_initial_state(1)
        step = self._collect_policy._distribution(time_steps, state, training=training)
        value_loss = self.value_estimation_loss(
            time_steps, returns, weights, old_value_predictions=old_value_predictions, training=training
        )
        policy_loss = self.policy_gradient_loss(
            time_steps, actions, tf.stop_gradient(act_log_probs), normalized_advantages, step.action, weights
        )
        if self._initial_adaptive_kl_beta > 0 or self._kl_cutoff_factor > 0:
            kl_loss = self.kl_penalty_loss(time_steps, action_distribution_parameters, step.action, weights)
        zero = tf.zeros_like(policy_loss)
        extra = ppo_agent.PPOLossInfo(policy_loss, value_loss, zero, zero, kl_loss, clip_fraction=self._clip_fraction)
        return theirs.tf_agent.LossInfo(self._scale * (policy_loss + value_loss + kl_loss), extra)


class OwnTraining(ScaledAgent):
    """In the form of pipelines that make the gradient steps themselves."""

    def _train(self, experience, weights):
        experience = self._as_trajectory(experience)
        processed = self._preprocess(experience) if self._compute_value_and_advantage_in_train else experience
        mask = ppo_agent.ppo_utils.make_trajectory_mask(processed)
        parameters = processed.policy_info["dist_params"]
        old = ppo_agent.ppo_utils.distribution_from_spec(
            self._action_distribution_spec, parameters, legacy_distribution_network=True
        )
        variables = self._actor_net.trainable_weights + self._value_net.trainable_weights
        time_steps = theirs.ts.TimeStep(
            processed.step_type, processed.reward, processed.discount, processed.observation
        )
        for _ in range(self._num_epochs):
            with tf.GradientTape() as tape:
                info = self.get_loss(
                    time_steps, processed.action, old.log_prob(processed.action), processed.policy_info["return"],
                    theirs._normalize_advantages(processed.policy_info["advantage"], variance_epsilon=1e-8), parameters,
                    mask, self.train_step_counter, False, processed.policy_info["value_prediction"], training=True,
                )  # fmt: skip
            gradients = tape.gradient(info.loss, variables)
            self._grad_norm = tf.linalg.global_norm(gradients)
            if self._gradient_clipping > 0:
                gradients, _ = tf.clip_by_global_norm(gradients, self._gradient_clipping)
            self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
            self.train_step_counter.assign_add(1)
        if self.update_normalizers_in_train:
            self.update_observation_normalizer(time_steps.observation)
            self.update_reward_normalizer(processed.reward)
        return info


@pytest.mark.parametrize("cls", [ScaledAgent, OwnTraining])
def test_subclasses_train(rng, cls):
    agent = helpers.make_agent("legacy", cls=cls, **EPSILON, num_epochs=2)
    before = helpers.state_of(agent)
    for _ in range(2):
        info = agent.train(helpers.make_experience(agent, rng))
        assert np.isfinite(tf.nest.flatten(info)).all()
    after = helpers.state_of(agent)
    assert all(np.any(before[name] != value) for name, value in after.items() if name.startswith("variable"))
    assert agent.train_step_counter == 4
    assert float(agent._clip_fraction) >= 0
    assert float(agent._grad_norm) > 0
