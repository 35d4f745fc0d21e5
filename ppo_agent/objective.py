"""The PPO objective as TF-Agents' users know it: one method per term, each thin, each open to overriding."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf
from tf_agents.agents.tf_agent import LossInfo
from tf_agents.networks import network
from tf_agents.trajectories import TimeStep
from tf_agents.utils import common

from ppo_agent import summaries
from ppo_agent.common import scalar_summaries, shared_results
from ppo_agent.common.types import Nest, Tensor
from ppo_agent.config import PPOConfig
from ppo_agent.learner.update import StepResult
from ppo_agent.maths import adaptive_kl, distributions, losses, masking, schedules
from ppo_agent.policy import PPOPolicy


class PPOLossInfo(NamedTuple):
    """The terms of the loss of one gradient step; float32 scalars.

    Attributes:
        policy_gradient_loss: clipped surrogate.
        value_estimation_loss: squared error of the value predictions, times its coefficient.
        l2_regularization_loss: weight decay.
        entropy_regularization_loss: negative entropy, times its coefficient.
        kl_penalty_loss: adaptive KL penalty and KL cutoff.
        clip_fraction: share of the valid steps whose importance ratio was clipped.
    """

    policy_gradient_loss: Tensor
    value_estimation_loss: Tensor
    l2_regularization_loss: Tensor
    entropy_regularization_loss: Tensor
    kl_penalty_loss: Tensor
    clip_fraction: Tensor


class PPOObjective:
    """Mix-in of `PPOAgent`: the loss of a minibatch and its terms.

    Shapes are written [...]: the batch dimensions, [B, T] when called by `train`. `weights` are importance weights
    that include the mask of the valid steps; every loss is the mean over all steps of loss times weight.
    """

    _config: PPOConfig
    _actor_net: network.Network
    _value_net: network.Network
    _collect_policy: PPOPolicy
    _codec: distributions.ParameterCodec
    _adaptive_kl_beta: tf.Variable | None
    _debug_summaries: bool
    train_step_counter: tf.Variable

    def get_loss(
        self,
        time_steps: TimeStep,
        actions: Nest,
        act_log_probs: Tensor,
        returns: Tensor,
        normalized_advantages: Tensor,
        action_distribution_parameters: Nest,
        weights: Tensor,
        train_step: Tensor,
        debug_summaries: bool,
        old_value_predictions: Tensor | None = None,
        training: bool = False,
        policy_state: Nest = (),
    ) -> LossInfo:
        """Evaluates the loss of a minibatch.

        Args:
            time_steps: what the policy saw [...].
            actions: what it did [...].
            act_log_probs: log-probability of the actions when they were collected [...].
            returns: targets of the value function [...].
            normalized_advantages: advantages [...].
            action_distribution_parameters: of the distributions the actions were drawn from [...].
            weights: a scalar or [...].
            train_step: unused, as in TF-Agents; summaries are written at `train_step_counter`.
            debug_summaries: whether to write debug summaries.
            old_value_predictions: needed with `value_clipping` [...].
            training: passed to the networks.
            policy_state: of recurrent networks before the first time step, [B, ...]; () for zeros.

        Returns:
            The total loss, with its terms as a `PPOLossInfo`. The clip fraction counts steps of non-zero weight.
        """
        del train_step
        return self._evaluate_loss(
            time_steps,
            actions,
            act_log_probs,
            returns,
            normalized_advantages,
            action_distribution_parameters,
            weights,
            debug_summaries,
            old_value_predictions,
            training,
            policy_state,
        ).loss_info

    # The networks may have a torso in common.
    @shared_results.remembering()
    def _evaluate_loss(
        self,
        time_steps: TimeStep,
        actions: Nest,
        act_log_probs: Tensor,
        returns: Tensor,
        normalized_advantages: Tensor,
        action_distribution_parameters: Nest,
        weights: Tensor,
        debug_summaries: bool,
        old_value_predictions: Tensor | None,
        training: bool,
        policy_state: Nest,
    ) -> StepResult:
        """`get_loss`, with the metrics that need the current distribution."""
        current = self._current_distribution(time_steps, training, policy_state)
        act_log_probs, advantages = tf.stop_gradient(act_log_probs), tf.stop_gradient(normalized_advantages)
        # Only where there is one, for pipelines that override the method as TF-Agents knows it.
        state = {"policy_state": policy_state} if policy_state else {}
        value_estimation_loss = self.value_estimation_loss(
            time_steps, returns, weights, old_value_predictions, debug_summaries, training, **state
        )
        policy_gradient_loss = self.policy_gradient_loss(
            time_steps, actions, act_log_probs, advantages, current, weights, debug_summaries
        )
        l2_regularization_loss = self.l2_regularization_loss(debug_summaries)
        entropy = distributions.entropy(current, _outer_rank(time_steps))
        entropy = tf.zeros_like(returns) if entropy is None else entropy
        entropy_loss = self.entropy_regularization_loss(time_steps, entropy, weights, debug_summaries)
        kl_loss = tf.constant(0.0)
        if self._config.uses_kl_penalty:
            kl_loss = self.kl_penalty_loss(
                time_steps, action_distribution_parameters, current, weights, debug_summaries
            )
        log_probs = self._log_probs(current, actions, time_steps)
        mask = tf.broadcast_to(weights, tf.shape(log_probs)) != 0
        terms = (policy_gradient_loss, value_estimation_loss, l2_regularization_loss, entropy_loss, kl_loss)
        extra = PPOLossInfo(*terms, clip_fraction=self._clip_fraction(log_probs, act_log_probs, mask))
        metrics = {
            "entropy": tf.reduce_mean(entropy * weights),
            "approx_kl": masking.masked_mean(losses.approximate_kl(log_probs, act_log_probs), mask),
        }
        return StepResult(LossInfo(tf.add_n(terms), extra), metrics)

    def policy_gradient_loss(
        self,
        time_steps: TimeStep,
        actions: Nest,
        sample_action_log_probs: Tensor,
        advantages: Tensor,
        current_policy_distribution: Nest,
        weights: Tensor,
        debug_summaries: bool = False,
    ) -> tf.Tensor:
        """The clipped surrogate loss, see `losses.surrogate_loss`.

        Args:
            time_steps: what the policy saw [...].
            actions: what it did [...].
            sample_action_log_probs: log-probability of the actions when they were collected [...].
            advantages: advantages, best normalised [...].
            current_policy_distribution: nest of the current policy's distributions for `time_steps`.
            weights: a scalar or [...].
            debug_summaries: whether to write debug summaries.

        Returns:
            A scalar.
        """
        log_probs = self._log_probs(current_policy_distribution, actions, time_steps)
        epsilon = self._epsilon()
        per_step, parts = losses.surrogate_loss(log_probs, sample_action_log_probs, advantages, epsilon)
        loss = self._aggregate(per_step, weights)
        if debug_summaries:
            step, mask = self.train_step_counter, tf.broadcast_to(weights, tf.shape(log_probs)) != 0
            fraction = self._clip_fraction(log_probs, sample_action_log_probs, mask) if epsilon is not None else None
            summaries.write_surrogate(step, parts, log_probs, sample_action_log_probs, loss, fraction)
            entropy = distributions.entropy(current_policy_distribution, _outer_rank(time_steps))
            summaries.write_distributions(step, current_policy_distribution, entropy)
        return self._check("policy_gradient_loss", loss)

    def value_estimation_loss(
        self,
        time_steps: TimeStep,
        returns: Tensor,
        weights: Tensor,
        old_value_predictions: Tensor | None = None,
        debug_summaries: bool = False,
        training: bool = False,
        policy_state: Nest = (),
    ) -> tf.Tensor:
        """Squared error of the value predictions times `value_pred_loss_coef`, see `losses.value_loss`.

        Args:
            time_steps: what the value network sees [...].
            returns: its targets [...].
            weights: a scalar or [...].
            old_value_predictions: needed with `value_clipping` [...].
            debug_summaries: whether to write debug summaries.
            training: passed to the value network.
            policy_state: of recurrent networks before the first time step, [B, ...]; () for zeros.

        Returns:
            A scalar.

        Raises:
            ValueError: `value_clipping` without `old_value_predictions`.
        """
        values = self._predict_values(time_steps.observation, time_steps.step_type, training, policy_state)
        error = losses.value_loss(values, returns, old_value_predictions, self._config.value_clipping)
        loss = self._config.value_pred_loss_coef * self._aggregate(error, weights)
        if debug_summaries:
            step = self.train_step_counter
            summaries.write_nest_histograms(step, "observations", time_steps.observation)
            averages = {"value_pred_avg": tf.reduce_mean(values), "value_actual_avg": tf.reduce_mean(returns)}
            scalar_summaries.write_scalars(step, **averages, value_estimation_loss=loss)
            summaries.write_histograms(step, value_preds=values, value_estimation_error=error)
        return self._check("value_estimation_loss", loss)

    def entropy_regularization_loss(
        self, time_steps: TimeStep, entropy: Tensor, weights: Tensor, debug_summaries: bool = False
    ) -> tf.Tensor:
        """Negative mean entropy times `entropy_regularization`.

        Args:
            time_steps: what the policy saw [...].
            entropy: entropy of its distributions, in nats [...].
            weights: a scalar or [...].
            debug_summaries: whether to write debug summaries.

        Returns:
            A scalar.
        """
        del time_steps
        if not schedules.is_on(self._config.entropy_regularization):
            return tf.constant(0.0)
        loss = schedules.current(self._config.entropy_regularization) * self._aggregate(-entropy, weights)
        if debug_summaries:
            summaries.write_histograms(self.train_step_counter, entropy_reg_loss=loss)
        return self._check("entropy_reg_loss", loss)

    def l2_regularization_loss(self, debug_summaries: bool = False) -> tf.Tensor:
        """Weight decay of the kernels, with a coefficient each for the actor's, the value network's and shared ones.

        Args:
            debug_summaries: whether to write debug summaries.

        Returns:
            A scalar.
        """
        if not self._config.uses_l2:
            return tf.constant(0.0)
        kernels = [
            [v for v in net.trainable_weights if "kernel" in v.name] for net in (self._actor_net, self._value_net)
        ]
        actor, value, shared = common.extract_shared_variables(*kernels)
        config = self._config
        total = (
            losses.l2_loss(actor, config.policy_l2_reg)
            + losses.l2_loss(value, config.value_function_l2_reg)
            + losses.l2_loss(shared, config.shared_vars_l2_reg)
        )
        loss = total / tf.distribute.get_strategy().num_replicas_in_sync
        if debug_summaries:
            summaries.write_histograms(self.train_step_counter, l2_loss=loss)
        return self._check("total_l2_loss", loss)

    def kl_penalty_loss(
        self,
        time_steps: TimeStep,
        action_distribution_parameters: Nest,
        current_policy_distribution: Nest,
        weights: Tensor,
        debug_summaries: bool = False,
    ) -> tf.Tensor:
        """Penalty on the KL divergence from the old to the current policy: `kl_cutoff_loss` plus `adaptive_kl_loss`.

        Args:
            time_steps: what the policy saw [...].
            action_distribution_parameters: parameters of the old distributions [...].
            current_policy_distribution: nest of the current distributions.
            weights: a scalar or [...].
            debug_summaries: whether to write debug summaries.

        Returns:
            A scalar.
        """
        divergence = weights * self._kl_divergence(
            time_steps, action_distribution_parameters, current_policy_distribution
        )
        if debug_summaries:
            summaries.write_histograms(self.train_step_counter, kl_divergence=divergence)
        cutoff_loss = self.kl_cutoff_loss(divergence, debug_summaries)
        return cutoff_loss + self.adaptive_kl_loss(divergence, debug_summaries)

    def kl_cutoff_loss(self, kl_divergence: Tensor, debug_summaries: bool = False) -> tf.Tensor:
        """Squared penalty on a mean KL beyond `kl_cutoff_factor * adaptive_kl_target`.

        Args:
            kl_divergence: KL(old || new) times weights, in nats [...].
            debug_summaries: whether to write debug summaries.

        Returns:
            A scalar; 0 if `kl_cutoff_factor` is 0 or None.
        """
        config = self._config
        if config.kl_cutoff_factor <= 0:
            return tf.constant(0.0)
        cutoff = config.kl_cutoff_factor * config.adaptive_kl_target
        loss = losses.kl_cutoff_loss(tf.reduce_mean(kl_divergence), cutoff, config.kl_cutoff_coef)
        if debug_summaries:
            count = tf.reduce_sum(tf.cast(kl_divergence > cutoff, tf.int64))
            scalar_summaries.write_scalars(self.train_step_counter, kl_cutoff_count=count, kl_cutoff_loss=loss)
        return loss

    def adaptive_kl_loss(self, kl_divergence: Tensor, debug_summaries: bool = False) -> tf.Tensor:
        """Mean KL times the adaptive coefficient beta.

        Args:
            kl_divergence: KL(old || new) times weights, in nats [...].
            debug_summaries: whether to write debug summaries.

        Returns:
            A scalar; 0 without adaptive KL penalty.
        """
        if self._adaptive_kl_beta is None:
            return tf.constant(0.0)
        loss = self._adaptive_kl_beta * tf.reduce_mean(kl_divergence)
        if debug_summaries:
            scalar_summaries.write_scalars(self.train_step_counter, adaptive_kl_loss=loss)
        return loss

    def update_adaptive_kl_beta(self, kl_divergence: Tensor) -> Tensor:
        """Adapts beta to how far the policy moved in an update, see `adaptive_kl`.

        Args:
            kl_divergence: KL(old || new) times weights, in nats [...].

        Returns:
            The new beta; a no-op without adaptive KL penalty.
        """
        if self._adaptive_kl_beta is None:
            return tf.no_op()
        mean_kl = tf.reduce_mean(kl_divergence)
        config = self._config
        factor = adaptive_kl.update_factor(mean_kl, config.adaptive_kl_target, config.adaptive_kl_tolerance)
        beta = self._adaptive_kl_beta.assign(adaptive_kl.updated_beta(self._adaptive_kl_beta, factor))
        if self._debug_summaries:
            scalars = {"adaptive_kl_update_factor": factor, "mean_kl_divergence": mean_kl}
            scalar_summaries.write_scalars(self.train_step_counter, **scalars, adaptive_kl_beta=self._adaptive_kl_beta)
        return beta

    def _current_distribution(self, time_steps: TimeStep, training: bool = False, policy_state: Nest = ()) -> Nest:
        state = policy_state.get("actor_network_state") if policy_state else None
        if state is None:
            state = self._collect_policy.get_initial_actor_state(tf.shape(time_steps.step_type)[0])
        return self._collect_policy.apply_actor_network(time_steps.observation, time_steps.step_type, state, training)[
            0
        ]

    def _predict_values(
        self, observations: Nest, step_types: Tensor, training: bool = False, policy_state: Nest = ()
    ) -> tf.Tensor:
        state = policy_state.get("value_network_state") if policy_state else None
        if state is None:
            state = self._collect_policy.get_initial_value_state(tf.shape(step_types)[0])
        return self._collect_policy.apply_value_network(observations, step_types, state, training)[0]

    def _kl_divergence(self, time_steps: TimeStep, old_parameters: Nest, current: Nest) -> tf.Tensor:
        old = self._codec.to_distributions(old_parameters)
        return distributions.kl_divergence(old, current, _outer_rank(time_steps))

    def _log_probs(self, current: Nest, actions: Nest, time_steps: TimeStep) -> tf.Tensor:
        log_probs = distributions.log_probability(current, actions, _outer_rank(time_steps))
        bound = self._config.log_prob_clipping
        if bound > 0:
            log_probs = tf.clip_by_value(log_probs, -bound, bound)
        return self._check("action_log_prob", log_probs)

    def _clip_fraction(self, log_probs: Tensor, old_log_probs: Tensor, mask: Tensor) -> tf.Tensor:
        epsilon = self._epsilon()
        if epsilon is None:
            return tf.constant(0.0)
        return masking.masked_mean(losses.clipped(tf.exp(log_probs - old_log_probs), epsilon), mask)

    def _epsilon(self) -> Tensor | None:
        """The clipping of importance ratios in force, None if there is none."""
        epsilon = self._config.importance_ratio_clipping
        return schedules.current(epsilon) if schedules.is_on(epsilon) else None

    def _aggregate(self, per_step_loss: Tensor, weights: Tensor) -> tf.Tensor:
        if not self._config.aggregate_losses_across_replicas:
            return losses.weighted_mean(per_step_loss, weights)
        return common.aggregate_losses(per_example_loss=per_step_loss, sample_weight=weights).total_loss

    def _check(self, name: str, tensor: Tensor) -> tf.Tensor:
        return tf.debugging.check_numerics(tensor, name) if self._config.check_numerics else tensor


def _outer_rank(time_steps: TimeStep) -> int:
    return time_steps.step_type.shape.rank
