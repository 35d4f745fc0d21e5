"""Proximal Policy Optimization as a TF-Agents agent."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf
from tf_agents.agents import data_converter
from tf_agents.agents.tf_agent import LossInfo, TFAgent
from tf_agents.networks import network
from tf_agents.trajectories import TimeStep, Trajectory

from ppo_agent import construction, summaries, update_methods
from ppo_agent.common import shared_results
from ppo_agent.common.action_masks import Splitter
from ppo_agent.common.configurable import configurable
from ppo_agent.common.nest_checks import NestCheck
from ppo_agent.common.not_copied import NotCopied
from ppo_agent.common.types import Nest, Tensor
from ppo_agent.config import PPOConfig, document_keywords
from ppo_agent.learner import experience_checks, optimizers, report, schedule_feed, statistics, targets
from ppo_agent.learner.compilation import CompiledUpdate
from ppo_agent.learner.report import PPOLossInfo
from ppo_agent.maths import returns as return_ops
from ppo_agent.maths.distributions import ParameterCodec
from ppo_agent.maths.schedules import Scheduled
from ppo_agent.objective import Objective
from ppo_agent.policy import GreedyPPOPolicy
from ppo_agent.protected_attributes import add_protected_attributes

__all__ = ["PPOAgent", "PPOLossInfo"]


@configurable("tf_agents.agents.ppo.ppo_agent")
@add_protected_attributes
class PPOAgent(NotCopied, TFAgent):
    """Proximal Policy Optimization (Schulman et al., 2017, https://arxiv.org/abs/1707.06347).

    Takes the keywords of TF-Agents 0.19.0's `PPOAgent` in their order and with their defaults. `train` runs all
    epochs in one compiled call; with `minibatch_size` it makes shuffled minibatches of the experience itself. Where
    the numbers differ from TF-Agents' is listed in the README.

    The methods that compute the loss may be overridden. Their arguments have batch dimensions [...], [B, T] when called
    by `train`: `time_steps` (what the policy saw), `actions` (what it did), log-probabilities, advantages, returns and
    `action_distribution_parameters` (of the distributions that the actions were drawn from, when they were), and
    `current_policy_distribution`, a nest of the current policy's distributions. `weights`, a scalar or [...], are
    importance weights that include the mask of the valid steps; every loss is a scalar, the mean over all steps of
    loss times weight. `policy_state` is that of recurrent networks before the first time step, [B, ...], or () for
    zeros; `debug_summaries` tells whether to write debug summaries.
    """

    @document_keywords
    def __init__(
        self, time_step_spec: TimeStep, action_spec: Nest, optimizer: Any | None = None,
        actor_net: network.Network | None = None, value_net: network.Network | None = None, greedy_eval: bool = True,
        importance_ratio_clipping: Scheduled = 0.0, lambda_value: float = 0.95, discount_factor: float = 0.99,
        entropy_regularization: Scheduled = 0.0, policy_l2_reg: float = 0.0, value_function_l2_reg: float = 0.0,
        shared_vars_l2_reg: float = 0.0, value_pred_loss_coef: float = 0.5, num_epochs: int = 25,
        use_gae: bool = False, use_td_lambda_return: bool = False, normalize_rewards: bool = True,
        reward_norm_clipping: float = 10.0, normalize_observations: bool = True, log_prob_clipping: float = 0.0,
        kl_cutoff_factor: float | None = 2.0, kl_cutoff_coef: float = 1000.0, initial_adaptive_kl_beta: float = 1.0,
        adaptive_kl_target: float = 0.01, adaptive_kl_tolerance: float = 0.3, gradient_clipping: float | None = None,
        value_clipping: Scheduled | None = None, check_numerics: bool = False,
        compute_value_and_advantage_in_train: bool = True, update_normalizers_in_train: bool = True,
        aggregate_losses_across_replicas: bool = True, debug_summaries: bool = False,
        summarize_grads_and_vars: bool = False, train_step_counter: tf.Variable | None = None,
        name: str | None = None, *, minibatch_size: int | None = None, jit_compile: bool | None = None,
        store_policy_state: bool = False, sequence_length: int | None = None,
        observation_and_action_constraint_splitter: Splitter | None = None, target_kl: float | None = None,
        normalize_rewards_by: str = "reward", max_skipped_steps: int = 10, recompute_advantages: bool = False,
        learning_rate_kl_target: float = 0.0, dual_clipping: float = 0.0, normalize_value_targets: bool = False,
        observation_norm_clipping: float = 5.0,
    ) -> None:  # fmt: skip
        """Creates the agent.

        {keywords}

        Raises:
            TypeError: a network is not a `tf_agents.networks.Network`, or another argument of another kind.
            ValueError: a network does not fit the specs, or a number is out of range.
        """
        given = locals()
        config = PPOConfig(**{f.name: given[f.name] for f in dataclasses.fields(PPOConfig)})
        train_step_counter = construction.train_step(train_step_counter)
        config = schedule_feed.with_fed_values(config, train_step_counter)
        splitter = observation_and_action_constraint_splitter
        construction.check_arguments(given, config)
        observation_spec = time_step_spec.observation
        nets = construction.make_networks(config, actor_net, value_net, observation_spec, action_spec, splitter)
        tf.Module.__init__(self, name=name)
        self._config, self._optimizer = config, optimizer or optimizers.default_optimizer()
        self._actor_net, self._value_net = nets
        self.update_normalizers_in_train, self._has_slots = update_normalizers_in_train, False
        self._adaptive_kl_beta, self._adapted_rate = construction.adapted_variables(config, optimizer)
        self._reward_normalizer = construction.reward_normalizer(config)
        self._observation_normalizer = construction.observation_normalizer(config, observation_spec, nets[0])
        self._shuffle_seed, self._report = construction.shuffle_seed(config), construction.report_variable()
        self._running_return: tf.Variable | None = None
        normalizer = self._observation_normalizer
        actor_output = construction.create_networks(nets, time_step_spec, action_spec, normalizer)
        self._codec = ParameterCodec(nets[0], actor_output)
        self._value_scale = construction.value_scale(config, nets[1])
        specs = (time_step_spec, action_spec)
        make_policy = construction.policy_maker(config, nets, *specs, normalizer, self._value_scale)
        policy, collect_policy = make_policy(False), make_policy(True)
        super().__init__(
            *specs,
            GreedyPPOPolicy(policy) if greedy_eval else policy,
            collect_policy,
            train_sequence_length=None,
            training_data_spec=construction.training_data_spec(config, collect_policy),
            debug_summaries=debug_summaries,
            summarize_grads_and_vars=summarize_grads_and_vars,
            train_step_counter=train_step_counter,
        )
        self._as_trajectory = data_converter.AsTrajectory(self.data_context, sequence_length=None)
        parts = (self._codec, nets, self._adaptive_kl_beta, self.train_step_counter, self._value_scale)
        self._objective = Objective(config, collect_policy, *parts)
        self._clip_fraction = 0.0
        self._run_update = update_methods.make_update(self, config, self._shuffle_seed)
        self._update = self._run_update.update

    @property
    def actor_net(self) -> network.Network:
        """The actor network."""
        return self._actor_net

    @property
    def value_net(self) -> network.Network:
        """The value network."""
        return self._value_net

    def _initialize(self) -> None:
        """Nothing to do: all variables have their initial values."""

    def train_metrics(self) -> dict[str, float]:
        """What the last call of `train` reported.

        Means over its gradient steps, without skipped ones: `loss`, its terms as in `PPOLossInfo`, `entropy` (nats),
        `approx_kl` (nats, see `losses.approximate_kl`), `gradient_norm` (before clipping); `explained_variance` of the
        returns by the value predictions before the update; `learning_rate`, `adaptive_kl_beta`, `mean_kl_divergence`
        (NaN without adaptive KL penalty) after it; `skipped_steps`, the number of gradient steps that changed nothing
        because their loss or gradient was not finite, of the `gradient_steps` that were taken; and over the valid rows,
        `value_mean` of the value predictions before the update, `return_mean` of their targets, and `advantage_mean`
        before the advantages are normalised.
        """
        return report.train_metrics(self._report.numpy().tolist())

    def create_training_variables(self, batch_size: int | None = None) -> None:
        """Creates the optimiser's slots and, for experience of `batch_size` rows, running returns, as `train` would."""
        if not self._has_slots and not self._update.is_distributed():
            optimizers.create_slots(self._optimizer, self._trained_variables())
            self._has_slots = True
        is_needed = self._config.normalize_rewards and self._config.normalize_rewards_by == "return"
        if is_needed and self._running_return is None and batch_size is not None:
            self._running_return = construction.running_return(batch_size, self._update.is_distributed())

    def _train(self, experience: Nest, weights: Tensor | None) -> LossInfo:
        return self.train_by(self._run_update, experience, weights)

    def train_by(self, run_update: CompiledUpdate, experience: Nest, weights: Tensor | None = None) -> LossInfo:
        """`train` by another update, see `update_methods.make_update`."""
        trajectory = self._checked(experience, weights)
        self.create_training_variables(trajectory.step_type.shape[0])
        outcome = run_update(trajectory, weights)
        skipped = run_update.update.skipped_minibatch
        if tf.executing_eagerly() and skipped:
            raise skipped.error(outcome.loss_info, outcome.report)
        if not tf.executing_eagerly() or tf.summary.should_record_summaries():
            report.write_summaries(outcome.report, outcome.train_step)
            if self._summarize_grads_and_vars:
                summaries.write_variables(self.train_step_counter, self._trained_variables())
        return outcome.loss_info

    def _loss(self, experience: Nest, weights: Tensor | None, training: bool = False, **_: Any) -> LossInfo:
        return self._update.first_loss(self._checked(experience, weights), weights, training)

    def _checked(self, experience: Nest, weights: Tensor | None) -> Trajectory:
        spec, config = self.training_data_spec, self._config
        return experience_checks.checked(
            experience, weights, self._as_trajectory, spec, config, self._update.is_recurrent
        )

    def _preprocess_sequence(self, experience: Trajectory) -> Trajectory:
        return experience if self._config.compute_value_and_advantage_in_train else self._preprocess(experience)

    def _preprocess(self, experience: Trajectory) -> Trajectory:
        """Fills returns, advantages and values into the policy info, see `targets.with_targets`."""
        predicts = self._config.compute_value_and_advantage_in_train
        return targets.with_targets(
            experience, self.compute_return_and_advantage, self._objective.predict_values if predicts else None
        )

    # Returns, advantages and running statistics.

    def compute_advantages(self, rewards: Tensor, returns: Tensor, discounts: Tensor, value_preds: Tensor) -> tf.Tensor:
        """Advantages [B, T], by generalized advantage estimation if `use_gae`, else returns minus values.

        Rewards, returns and discounts (gamma included, 0 at an episode's end) are [B, T], values [B, T + 1].
        """
        if self._config.use_gae:
            return return_ops.generalized_advantages(rewards, discounts, value_preds, self._config.lambda_value)
        return returns - value_preds[:, :-1]

    def compute_return_and_advantage(
        self, next_time_steps: TimeStep, value_preds: Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Targets of the value function, and advantages.

        Args:
            next_time_steps: what each action led to [B, T]; a step type LAST with discount 0 is a terminal end, with
                a positive discount a truncated one.
            value_preds: float32 [B, T + 1], the value of each observation acted on and of the final one.

        Returns:
            Returns and advantages, float32 [B, T] each. Rewards are normalised first, if that is on.
        """
        targets_, advantages, returns = targets.returns_and_advantages(
            next_time_steps, value_preds, self._config, self._normalized_rewards, self.compute_advantages
        )
        if self._debug_summaries:
            summaries.write_histograms(self.train_step_counter, returns=returns, advantages=advantages)
        return targets_, advantages

    def _normalized_rewards(self, rewards: Tensor) -> tf.Tensor:
        normalizer, clipping = self._reward_normalizer, self._config.reward_norm_clipping
        step, debugs = self.train_step_counter, self._debug_summaries
        return statistics.normalized_rewards(rewards, normalizer, clipping, step, debug_summaries=debugs)

    def update_observation_normalizer(self, batched_observations: Nest) -> None:
        """Takes observations (nest of [N, ...] or [B, T, ...]) into the running statistics."""
        NestCheck("batched_observations", self.time_step_spec.observation).check_shapes(batched_observations, ...)
        if self._observation_normalizer is not None:
            self._observation_normalizer.update(batched_observations)

    def update_reward_normalizer(self, batched_rewards: Tensor) -> None:
        """Takes rewards ([N] or [B, T]) into the running statistics; with `normalize_rewards_by='return'` returns."""
        if self._reward_normalizer is not None:
            self._reward_normalizer.update(batched_rewards)

    # The loss.

    @shared_results.remembering()
    def get_loss(
        self, time_steps: TimeStep, actions: Nest, act_log_probs: Tensor, returns: Tensor,
        normalized_advantages: Tensor, action_distribution_parameters: Nest, weights: Tensor, train_step: Tensor,
        debug_summaries: bool, old_value_predictions: Tensor | None = None, training: bool = False,
        policy_state: Nest = (),
    ) -> LossInfo:  # fmt: skip
        """The loss of a minibatch, with its terms as a `PPOLossInfo`; see the class for the arguments.

        `train_step` is unused, as in TF-Agents: summaries are written at `train_step_counter`. `old_value_predictions`
        [...] are needed with `value_clipping`. The clip fraction counts steps of non-zero weight.
        """
        del train_step
        current = self._objective.current_distribution(time_steps, training, policy_state)
        act_log_probs, advantages = tf.stop_gradient(act_log_probs), tf.stop_gradient(normalized_advantages)
        # Only where there is one: pipelines override the method as TF-Agents knows it.
        state = {"policy_state": policy_state} if policy_state else {}
        value_estimation_loss = self.value_estimation_loss(
            time_steps, returns, weights, old_value_predictions, debug_summaries, training, **state
        )
        policy_gradient_loss = self.policy_gradient_loss(
            time_steps, actions, act_log_probs, advantages, current, weights, debug_summaries
        )
        l2_regularization_loss = self.l2_regularization_loss(debug_summaries)
        entropy = self._objective.entropy(current, time_steps)
        entropy_loss = self.entropy_regularization_loss(time_steps, entropy, weights, debug_summaries)
        parameters, kl_loss = action_distribution_parameters, tf.constant(0.0)
        if self._config.uses_kl_penalty:
            kl_loss = self.kl_penalty_loss(time_steps, parameters, current, weights, debug_summaries)
        terms = (policy_gradient_loss, value_estimation_loss, l2_regularization_loss, entropy_loss, kl_loss)
        log_probs = self._objective.log_probs(current, actions, time_steps)
        clip_fraction = self._objective.clip_fraction(log_probs, act_log_probs, weights)
        return LossInfo(tf.add_n(terms), PPOLossInfo(*terms, clip_fraction))

    def policy_gradient_loss(
        self, time_steps: TimeStep, actions: Nest, sample_action_log_probs: Tensor, advantages: Tensor,
        current_policy_distribution: Nest, weights: Tensor, debug_summaries: bool = False,
    ) -> tf.Tensor:  # fmt: skip
        """The clipped surrogate loss, see `losses.surrogate_loss`; leaves the clip fraction in `_clip_fraction`."""
        log_probs = self._objective.log_probs(current_policy_distribution, actions, time_steps)
        self._clip_fraction = self._objective.clip_fraction(log_probs, sample_action_log_probs, weights)
        current = current_policy_distribution
        return self._objective.policy_gradient_loss(
            time_steps, actions, sample_action_log_probs, advantages, current, weights, debug_summaries
        )

    def value_estimation_loss(
        self, time_steps: TimeStep, returns: Tensor, weights: Tensor, old_value_predictions: Tensor | None = None,
        debug_summaries: bool = False, training: bool = False, policy_state: Nest = (),
    ) -> tf.Tensor:  # fmt: skip
        """Squared error of the value predictions times `value_pred_loss_coef`, see `losses.value_loss`.

        Raises:
            ValueError: `value_clipping` without `old_value_predictions`.
        """
        observations, step_types = time_steps.observation, time_steps.step_type
        values = self._objective.predict_values(observations, step_types, training, policy_state)
        return self._objective.value_loss(time_steps, values, returns, weights, old_value_predictions, debug_summaries)

    def entropy_regularization_loss(
        self, time_steps: TimeStep, entropy: Tensor, weights: Tensor, debug_summaries: bool = False
    ) -> tf.Tensor:
        """Negative mean of the entropy [...], in nats, times `entropy_regularization`."""
        del time_steps
        return self._objective.entropy_loss(entropy, weights, debug_summaries)

    def l2_regularization_loss(self, debug_summaries: bool = False) -> tf.Tensor:
        """Weight decay of the kernels, with a coefficient each for the actor's, the value network's and shared ones."""
        return self._objective.l2_loss(debug_summaries)

    def kl_penalty_loss(
        self, time_steps: TimeStep, action_distribution_parameters: Nest, current_policy_distribution: Nest,
        weights: Tensor, debug_summaries: bool = False,
    ) -> tf.Tensor:  # fmt: skip
        """Penalty on the KL divergence from the old to the current policy: `kl_cutoff_loss` plus `adaptive_kl_loss`."""
        divergence = weights * self._kl_divergence(
            time_steps, action_distribution_parameters, current_policy_distribution
        )
        if debug_summaries:
            summaries.write_histograms(self.train_step_counter, kl_divergence=divergence)
        cutoff_loss = self.kl_cutoff_loss(divergence, debug_summaries)
        return cutoff_loss + self.adaptive_kl_loss(divergence, debug_summaries)

    def kl_cutoff_loss(self, kl_divergence: Tensor, debug_summaries: bool = False) -> tf.Tensor:
        """Squared penalty on a mean KL beyond `kl_cutoff_factor * adaptive_kl_target`; 0 without a factor.

        `kl_divergence` is KL(old || new) times weights, in nats [...]; so it is in the next two methods.
        """
        return self._objective.kl_cutoff_loss(kl_divergence, debug_summaries)

    def adaptive_kl_loss(self, kl_divergence: Tensor, debug_summaries: bool = False) -> tf.Tensor:
        """Mean KL times the adaptive coefficient beta; 0 without adaptive KL penalty."""
        return self._objective.adaptive_kl_loss(kl_divergence, debug_summaries)

    def update_adaptive_kl_beta(self, kl_divergence: Tensor) -> Tensor:
        """Adapts beta to how far the policy moved in an update, see `adaptive_kl`; returns the new beta."""
        return self._objective.update_beta(kl_divergence, self._debug_summaries)

    def _kl_divergence(
        self, time_steps: TimeStep, action_distribution_parameters: Nest, current_policy_distribution: Nest
    ) -> tf.Tensor:
        return self._objective.kl_divergence(time_steps, action_distribution_parameters, current_policy_distribution)

    def _trained_variables(self) -> list[tf.Variable]:
        """Both networks' trainable variables, each once, in an order that is the same in every process."""
        variables = {id(v): v for v in (*self._actor_net.trainable_weights, *self._value_net.trainable_weights)}
        return sorted(variables.values(), key=lambda v: v.name)
