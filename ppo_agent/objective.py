"""The terms of PPO's loss as the agent's methods compute them, with the checks and summaries around the formulas."""

from __future__ import annotations

import tensorflow as tf
from tf_agents.networks import network
from tf_agents.trajectories import TimeStep
from tf_agents.utils import common

from ppo_agent import summaries
from ppo_agent.common import replicas, scalar_summaries, shared_results
from ppo_agent.common.types import Nest, Tensor
from ppo_agent.config import PPOConfig
from ppo_agent.learner.batches import TrainingBatch
from ppo_agent.learner.report import Metrics
from ppo_agent.maths import adaptive_kl, distributions, losses, masking, schedules
from ppo_agent.maths.distributions import ParameterCodec
from ppo_agent.policy import PPOPolicy
from ppo_agent.value_scale import ValueScale


class Objective:
    """Evaluates networks and terms of the loss; shapes are written [...], [B, T] in training.

    What is asked for twice within one loss is computed once, see `shared_results`.
    """

    def __init__(
        self,
        config: PPOConfig,
        policy: PPOPolicy,
        codec: ParameterCodec,
        nets: tuple[network.Network, network.Network],
        adaptive_kl_beta: tf.Variable | None,
        train_step: tf.Variable,
        value_scale: ValueScale | None = None,
    ) -> None:
        """Takes hyper-parameters, the collect policy, actor and value network, variables, and the values' scale."""
        self._scale = value_scale
        self._config, self._policy, self._codec, self._nets = config, policy, codec, nets
        self._beta, self._step = adaptive_kl_beta, train_step

    def current_distribution(self, time_steps: TimeStep, training: bool = False, policy_state: Nest = ()) -> Nest:
        """The current policy's distributions; within one loss, those that were made first, trained on or not."""
        policy, state = self._policy, dict(policy_state or {}).get("actor_network_state")

        def compute() -> Nest:
            first = policy.get_initial_actor_state(tf.shape(time_steps.step_type)[0]) if state is None else state
            return policy.apply_actor_network(time_steps.observation, time_steps.step_type, first, training)[0]

        return shared_results.remembered(self, (time_steps.observation, time_steps.step_type, state), compute)

    def predict_values(
        self, observations: Nest, step_types: Tensor, training: bool = False, policy_state: Nest = ()
    ) -> tf.Tensor:
        """The value network's predictions [...]."""
        state = dict(policy_state or {}).get("value_network_state")
        if state is None:
            state = self._policy.get_initial_value_state(tf.shape(step_types)[0])
        return self._policy.apply_value_network(observations, step_types, state, training)[0]

    def log_probs(self, current: Nest, actions: Nest, time_steps: TimeStep) -> tf.Tensor:
        """Log-probabilities of actions [...], clipped by `log_prob_clipping`."""
        bound = self._config.log_prob_clipping

        def compute() -> tf.Tensor:
            log_probs = distributions.log_probability(current, actions, _outer_rank(time_steps))
            return self._checked(
                "action_log_prob", tf.clip_by_value(log_probs, -bound, bound) if bound > 0 else log_probs
            )

        return shared_results.remembered(distributions.log_probability, (current, actions), compute)

    def entropy(self, current: Nest, time_steps: TimeStep) -> tf.Tensor:
        """Entropies [...]; zeros where no distribution knows its own."""

        def compute() -> tf.Tensor:
            entropy = distributions.entropy(current, _outer_rank(time_steps))
            return tf.zeros_like(time_steps.step_type, tf.float32) if entropy is None else entropy

        return shared_results.remembered(distributions.entropy, current, compute)

    def kl_divergence(self, time_steps: TimeStep, old_parameters: Nest, current: Nest) -> tf.Tensor:
        """KL(old || current) [...], in nats."""
        old = self._codec.to_distributions(old_parameters)
        return distributions.kl_divergence(old, current, _outer_rank(time_steps))

    def clip_fraction(self, log_probs: Tensor, old_log_probs: Tensor, weights: Tensor) -> tf.Tensor:
        """Share of the importance ratios that are clipped, of steps whose weight is not 0."""
        epsilon = self._epsilon()
        if epsilon is None:
            return tf.constant(0.0)

        def compute() -> tf.Tensor:
            mask = tf.broadcast_to(weights, tf.shape(log_probs)) != 0
            return masking.mean_of_valid(losses.clipped(tf.exp(log_probs - old_log_probs), epsilon), mask)

        return shared_results.remembered(losses.clipped, (log_probs, old_log_probs, weights), compute)

    def metrics(self, minibatch: TrainingBatch, weights: Tensor, first_state: Nest = ()) -> Metrics:
        """Entropy and approximate KL divergence of the current policy on a minibatch, in nats.

        `first_state` is that of the minibatch, as the tensors that the loss was given: see `shared_results`.
        """
        time_steps = minibatch.time_steps
        current = self.current_distribution(time_steps, policy_state=first_state)
        log_probs = self.log_probs(current, minibatch.actions, time_steps)
        divergence = losses.approximate_kl(log_probs, minibatch.action_log_probs)
        return {
            "entropy": tf.reduce_mean(self.entropy(current, time_steps) * weights),
            "approx_kl": masking.mean_of_valid(divergence, weights != 0),
        }

    def policy_gradient_loss(
        self,
        time_steps: TimeStep,
        actions: Nest,
        old_log_probs: Tensor,
        advantages: Tensor,
        current: Nest,
        weights: Tensor,
        debug_summaries: bool,
    ) -> tf.Tensor:
        """The clipped surrogate loss."""
        log_probs, epsilon = self.log_probs(current, actions, time_steps), self._epsilon()
        per_step, parts = losses.surrogate_loss(
            log_probs, old_log_probs, advantages, epsilon, self._config.dual_clipping
        )
        loss = self._aggregate(per_step, weights)
        if debug_summaries:
            fraction = None if epsilon is None else self.clip_fraction(log_probs, old_log_probs, weights)
            summaries.write_surrogate(self._step, parts, log_probs, old_log_probs, loss, fraction)
            entropy = distributions.entropy(current, _outer_rank(time_steps))
            summaries.write_distributions(self._step, current, entropy)
        return self._checked("policy_gradient_loss", loss)

    def value_loss(
        self,
        time_steps: TimeStep,
        values: Tensor,
        returns: Tensor,
        weights: Tensor,
        old_values: Tensor | None,
        debug_summaries: bool,
    ) -> tf.Tensor:
        """Squared error of the value predictions, times its coefficient."""
        clipping = schedules.current(self._config.value_clipping)
        error = losses.value_loss(values, returns, old_values, clipping)
        if self._scale is not None:
            error /= self._scale.std**2
        loss = self._config.value_pred_loss_coef * self._aggregate(error, weights)
        if debug_summaries:
            summaries.write_values(self._step, time_steps.observation, values, returns, error, loss)
        return self._checked("value_estimation_loss", loss)

    def entropy_loss(self, entropy: Tensor, weights: Tensor, debug_summaries: bool) -> tf.Tensor:
        """Negative mean entropy, times its coefficient."""
        coefficient = self._config.entropy_regularization
        if not schedules.is_on(coefficient):
            return tf.constant(0.0)
        loss = schedules.current(coefficient) * self._aggregate(-entropy, weights)
        if debug_summaries:
            summaries.write_histograms(self._step, entropy_reg_loss=loss)
        return self._checked("entropy_reg_loss", loss)

    def l2_loss(self, debug_summaries: bool) -> tf.Tensor:
        """Weight decay of the kernels, with a coefficient each for the actor's, the value network's and shared ones."""
        config = self._config
        if not config.uses_l2:
            return tf.constant(0.0)
        kernels = [[v for v in net.trainable_weights if "kernel" in v.name] for net in self._nets]
        coefficients = (config.policy_l2_reg, config.value_function_l2_reg, config.shared_vars_l2_reg)
        total = sum(map(losses.l2_loss, common.extract_shared_variables(*kernels), coefficients))
        loss = total / tf.distribute.get_strategy().num_replicas_in_sync
        if debug_summaries:
            summaries.write_histograms(self._step, l2_loss=loss)
        return self._checked("total_l2_loss", loss)

    def kl_cutoff_loss(self, kl_divergence: Tensor, debug_summaries: bool) -> tf.Tensor:
        """Squared penalty on a mean KL beyond a multiple of its target."""
        config = self._config
        if config.kl_cutoff_factor <= 0:
            return tf.constant(0.0)
        cutoff = config.kl_cutoff_factor * config.adaptive_kl_target
        mean_kl = replicas.mean_with_own_gradient(tf.reduce_mean(kl_divergence))
        loss = self._share(losses.kl_cutoff_loss(mean_kl, cutoff, config.kl_cutoff_coef))
        if debug_summaries:
            count = tf.reduce_sum(tf.cast(kl_divergence > cutoff, tf.int64))
            scalar_summaries.write_scalars(self._step, kl_cutoff_count=count, kl_cutoff_loss=loss)
        return loss

    def adaptive_kl_loss(self, kl_divergence: Tensor, debug_summaries: bool) -> tf.Tensor:
        """Mean KL times beta; 0 without."""
        if self._beta is None:
            return tf.constant(0.0)
        # A replica's part is enough, because parts of losses are added up.
        loss = self._beta * tf.reduce_mean(kl_divergence) / self._num_parts
        if debug_summaries:
            scalar_summaries.write_scalars(self._step, adaptive_kl_loss=loss)
        return loss

    def update_beta(self, kl_divergence: Tensor, debug_summaries: bool) -> Tensor:
        """Adapts beta to a KL divergence; returns it."""
        if self._beta is None:
            return tf.no_op()
        mean_kl, config = replicas.mean(tf.reduce_mean(kl_divergence)), self._config
        factor = adaptive_kl.update_factor(mean_kl, config.adaptive_kl_target, config.adaptive_kl_tolerance)
        beta = self._beta.assign(adaptive_kl.updated_beta(self._beta, factor))
        if debug_summaries:
            scalars = {"adaptive_kl_update_factor": factor, "mean_kl_divergence": mean_kl}
            scalar_summaries.write_scalars(self._step, **scalars, adaptive_kl_beta=self._beta)
        return beta

    def _epsilon(self) -> Tensor | None:
        """The clipping of importance ratios in force, None if there is none."""
        epsilon = self._config.importance_ratio_clipping
        return schedules.current(epsilon) if schedules.is_on(epsilon) else None

    @property
    def _num_parts(self) -> int:
        """By how much `_aggregate` divides."""
        return replicas.count() if self._config.aggregate_losses_across_replicas else 1

    def _share(self, loss: tf.Tensor) -> tf.Tensor:
        """What a replica has of a loss that all of them know, divided like `_aggregate`'s."""
        number = replicas.count() // self._num_parts
        return replicas.share(loss) if number == 1 else number * replicas.share(loss)

    def _aggregate(self, per_step_loss: Tensor, weights: Tensor) -> tf.Tensor:
        if not self._config.aggregate_losses_across_replicas:
            return losses.weighted_mean(per_step_loss, weights)
        return common.aggregate_losses(per_example_loss=per_step_loss, sample_weight=weights).total_loss

    def _checked(self, name: str, tensor: Tensor) -> tf.Tensor:
        return tf.debugging.check_numerics(tensor, name) if self._config.check_numerics else tensor


def _outer_rank(time_steps: TimeStep) -> int:
    return int(time_steps.step_type.shape.rank)


def loss_arguments(minibatch: TrainingBatch) -> tuple[tuple[Nest, ...], tf.Tensor]:
    """The first arguments of `PPOAgent.get_loss` for a prepared minibatch, and the last of them, the weights."""
    arguments = (
        minibatch.time_steps,
        minibatch.actions,
        minibatch.action_log_probs,
        minibatch.returns,
        minibatch.advantages,
        minibatch.distribution_parameters,
        minibatch.weights,
    )
    return arguments, minibatch.weights
