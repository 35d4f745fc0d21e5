"""TF-Agents' PPO agents with the corrections to it put in place: everything else is theirs."""

import contextlib
from unittest import mock

import numpy as np
import oracles
import tensorflow as tf
from tf_agents.agents.ppo import ppo_agent as reference
from tf_agents.agents.ppo import ppo_clip_agent, ppo_kl_penalty_agent
from tf_agents.utils import common


class _Corrected:
    """Mix-in that replaces what is corrected by NumPy loops."""

    _valid = None

    def compute_return_and_advantage(self, next_time_steps, value_preds):
        """Corrections 1 and 2."""
        rewards = next_time_steps.reward
        if self._reward_normalizer:
            rewards = self._reward_normalizer.normalize(
                rewards, center_mean=False, clip_value=self._reward_norm_clipping
            )
        returns, advantages, lambda_returns = oracles.returns_and_advantages(
            rewards.numpy(),
            next_time_steps.discount.numpy(),
            next_time_steps.step_type.numpy(),
            value_preds.numpy(),
            self._discount_factor,
            self._lambda,
        )
        if not self._use_gae:
            advantages = returns - value_preds[:, :-1]
        elif self._use_td_lambda_return:
            returns = lambda_returns
        return tf.constant(returns, tf.float32), tf.constant(advantages, tf.float32)

    def policy_gradient_loss(
        self, time_steps, actions, sample_action_log_probs, advantages, current, weights, **kwargs
    ):
        """Correction 3, the clip fraction."""
        loss = super().policy_gradient_loss(
            time_steps, actions, sample_action_log_probs, advantages, current, weights, **kwargs
        )
        if self._importance_ratio_clipping > 0:
            log_probs = common.log_probability(current, actions, self._action_spec)
            if self._log_prob_clipping > 0:
                log_probs = tf.clip_by_value(log_probs, -self._log_prob_clipping, self._log_prob_clipping)
            far = np.abs(np.exp(log_probs - sample_action_log_probs) - 1) > self._importance_ratio_clipping
            self._clip_fraction = tf.constant(far[self._valid].mean(), tf.float32)
        return loss

    def update_reward_normalizer(self, batched_rewards):
        """Correction 3, the reward normaliser."""
        super().update_reward_normalizer(tf.boolean_mask(batched_rewards, self._transitions)[tf.newaxis])

    def _train(self, experience, weights):
        step_types = experience.step_type.numpy(), experience.next_step_type.numpy()
        self._transitions = self._valid = oracles.transitions(*step_types)
        if self._compute_value_and_advantage_in_train:
            self._valid = oracles.trained_rows(*step_types)
        elif experience.step_type.shape[1] > 1:
            self._valid = self._valid & (experience.policy_info["return"] != 0).numpy()
        with self._corrected_functions():
            return super()._train(experience, weights)

    @contextlib.contextmanager
    def _corrected_functions(self):
        """Correction 3, moments of the advantages, and correction 4."""
        valid = self._valid
        mask = tf.constant(valid / valid.mean(), tf.float32)

        def normalize(advantages, variance_epsilon):
            return tf.constant(oracles.normalized(advantages, valid, variance_epsilon), tf.float32)

        with (
            mock.patch.object(reference.ppo_utils, "make_trajectory_mask", return_value=mask),
            mock.patch.object(reference, "_normalize_advantages", normalize),
        ):
            yield


class PPOAgent(_Corrected, reference.PPOAgent):
    pass


class PPOClipAgent(_Corrected, ppo_clip_agent.PPOClipAgent):
    pass


class PPOKLPenaltyAgent(_Corrected, ppo_kl_penalty_agent.PPOKLPenaltyAgent):
    pass
