"""Proximal Policy Optimization as a TF-Agents agent."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.agents import data_converter
from tf_agents.agents.tf_agent import LossInfo, TFAgent
from tf_agents.networks import network
from tf_agents.policies import greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import TimeStep, Trajectory
from tf_agents.utils import common

from ppo_agent import experience as experience_checks
from ppo_agent import masking, optimizers, preprocessing, summaries, update
from ppo_agent import returns as return_ops
from ppo_agent.compilation import UpdateCompiler, padded_capacity, xla_is_faster
from ppo_agent.config import PPOConfig
from ppo_agent.distributions import ParameterCodec
from ppo_agent.normalizers import StreamingNormalizer
from ppo_agent.objective import PPOLossInfo, PPOObjective
from ppo_agent.policy import PPOPolicy, check_is_network, create_variables
from ppo_agent.preprocessing import TrainingBatch

Nest = Any
Tensor = Any

__all__ = ["PPOAgent", "PPOLossInfo"]

_STEP_REPORT = ("loss", *PPOLossInfo._fields, "entropy", "approx_kl", "gradient_norm")
_TRAIN_REPORT = ("explained_variance", "learning_rate", "adaptive_kl_beta", "mean_kl_divergence")
_REPORT = _STEP_REPORT + _TRAIN_REPORT


class PPOAgent(PPOObjective, TFAgent):
    """Proximal Policy Optimization (Schulman et al., 2017, https://arxiv.org/abs/1707.06347).

    Takes the keywords of TF-Agents 0.19.0's `PPOAgent` in their order and with their defaults. `train` runs all
    epochs in one compiled call; with `minibatch_size` it makes shuffled minibatches of the experience itself. Where
    the numbers differ from TF-Agents' is listed in the README.
    """

    def __init__(
        self,
        time_step_spec: TimeStep,
        action_spec: Nest,
        optimizer: Any | None = None,
        actor_net: network.Network | None = None,
        value_net: network.Network | None = None,
        greedy_eval: bool = True,
        importance_ratio_clipping: float = 0.0,
        lambda_value: float = 0.95,
        discount_factor: float = 0.99,
        entropy_regularization: float = 0.0,
        policy_l2_reg: float = 0.0,
        value_function_l2_reg: float = 0.0,
        shared_vars_l2_reg: float = 0.0,
        value_pred_loss_coef: float = 0.5,
        num_epochs: int = 25,
        use_gae: bool = False,
        use_td_lambda_return: bool = False,
        normalize_rewards: bool = True,
        reward_norm_clipping: float = 10.0,
        normalize_observations: bool = True,
        log_prob_clipping: float = 0.0,
        kl_cutoff_factor: float | None = 2.0,
        kl_cutoff_coef: float = 1000.0,
        initial_adaptive_kl_beta: float = 1.0,
        adaptive_kl_target: float = 0.01,
        adaptive_kl_tolerance: float = 0.3,
        gradient_clipping: float | None = None,
        value_clipping: float | None = None,
        check_numerics: bool = False,
        compute_value_and_advantage_in_train: bool = True,
        update_normalizers_in_train: bool = True,
        aggregate_losses_across_replicas: bool = True,
        debug_summaries: bool = False,
        summarize_grads_and_vars: bool = False,
        train_step_counter: tf.Variable | None = None,
        name: str | None = None,
        *,
        minibatch_size: int | None = None,
        jit_compile: bool | None = None,
    ) -> None:
        """Creates the agent.

        Args:
            time_step_spec: spec of the time steps, without batch dimensions.
            action_spec: nest of BoundedTensorSpecs of the actions.
            optimizer: a tf.keras, legacy tf.keras or tf.compat.v1 optimizer; default: Adam with TensorFlow's defaults.
            actor_net: maps observations to a nest of action distributions.
            value_net: maps observations to values.
            greedy_eval: whether `policy` takes the most likely action instead of a sample.
            importance_ratio_clipping: epsilon of the clipped surrogate objective; 0 for none.
            lambda_value: lambda of generalized advantage estimation.
            discount_factor: gamma.
            entropy_regularization: coefficient of the entropy bonus.
            policy_l2_reg: weight decay of kernels that only the actor network has.
            value_function_l2_reg: weight decay of kernels that only the value network has.
            shared_vars_l2_reg: weight decay of kernels that both have.
            value_pred_loss_coef: factor of the value loss.
            num_epochs: passes over the experience per call of `train`.
            use_gae: generalized advantage estimation; else advantages are returns minus values.
            use_td_lambda_return: value targets are advantage plus value; needs `use_gae`.
            normalize_rewards: divide rewards by their running standard deviation.
            reward_norm_clipping: bound of normalised rewards; 0 for none.
            normalize_observations: normalise observations by running mean and standard deviation.
            log_prob_clipping: bound of log-probabilities; 0 for none.
            kl_cutoff_factor: KL beyond this multiple of `adaptive_kl_target` is penalised; 0 or None for never.
            kl_cutoff_coef: factor of that squared penalty.
            initial_adaptive_kl_beta: first coefficient of the adaptive KL penalty; 0 for no such penalty.
            adaptive_kl_target: KL per update, in nats, that the coefficient is adapted to.
            adaptive_kl_tolerance: relative band around the target in which it is left alone.
            gradient_clipping: bound of the gradients' global norm; None or 0 for none.
            value_clipping: bound of the change of value predictions; None or 0 for none.
            check_numerics: raise InvalidArgumentError when a loss is NaN or infinite (for debugging).
            compute_value_and_advantage_in_train: if False, the collect policy stores value predictions, and
                `preprocess_sequence` has to fill in returns and advantages before `train`.
            update_normalizers_in_train: if False, the caller calls `update_observation_normalizer` and
                `update_reward_normalizer`.
            aggregate_losses_across_replicas: divide losses by the number of replicas of a tf.distribute strategy.
            debug_summaries: write debug summaries in the first and last epoch.
            summarize_grads_and_vars: write histograms of gradients and variables too.
            train_step_counter: int64 variable, grows by one per gradient step; default: the global step.
            name: name of the module.
            minibatch_size: rows (time steps, or whole sequences with recurrent networks) per gradient step; None makes
                one gradient step per epoch from the whole experience.
            jit_compile: whether XLA compiles the gradient steps; None chooses by the sizes of minibatch and networks.

        Raises:
            TypeError: a network is not a `tf_agents.networks.Network`.
            ValueError: a network does not fit the specs, or a number is out of range.
        """
        given = locals()
        config = PPOConfig(**{f.name: given[f.name] for f in dataclasses.fields(PPOConfig)})
        check_is_network("actor_net", actor_net)
        check_is_network("value_net", value_net)
        if jit_compile and (check_numerics or debug_summaries or summarize_grads_and_vars):
            raise ValueError(
                "jit_compile is True, expected None or False with check_numerics, debug_summaries or "
                "summarize_grads_and_vars: XLA has no such operations."
            )
        tf.Module.__init__(self, name=name)
        self._config = config
        self._optimizer = optimizer
        self._actor_net, self._value_net = actor_net, value_net
        self._compute_value_and_advantage_in_train = compute_value_and_advantage_in_train
        self.update_normalizers_in_train = update_normalizers_in_train
        self._adaptive_kl_beta = None
        if initial_adaptive_kl_beta > 0:
            self._adaptive_kl_beta = common.create_variable(
                "adaptive_kl_beta", initial_adaptive_kl_beta, dtype=tf.float32
            )
        self._reward_normalizer = self._observation_normalizer = None
        if normalize_rewards:
            self._reward_normalizer = StreamingNormalizer(tf.TensorSpec([], tf.float32), scope="normalize_reward")
        if normalize_observations:
            self._observation_normalizer = StreamingNormalizer(time_step_spec.observation, "normalize_observations")
        self._codec = ParameterCodec(
            actor_net, create_variables(actor_net, time_step_spec, self._observation_normalizer, "actor_net")
        )
        collect_policy = self._make_policy(time_step_spec, action_spec, collect=True)
        policy = self._make_policy(time_step_spec, action_spec, collect=False)
        super().__init__(
            time_step_spec,
            action_spec,
            greedy_policy.GreedyPolicy(policy) if greedy_eval else policy,
            collect_policy,
            train_sequence_length=None,
            training_data_spec=self._make_training_data_spec(collect_policy),
            debug_summaries=debug_summaries,
            summarize_grads_and_vars=summarize_grads_and_vars,
            train_step_counter=train_step_counter,
        )
        self._as_trajectory = data_converter.AsTrajectory(self.data_context, sequence_length=None)
        self._report = tf.Variable(
            np.zeros(len(_REPORT), np.float32),
            trainable=False,
            name="report",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        if minibatch_size is not None:
            seed = tf.random.uniform([], maxval=np.iinfo(np.int64).max, dtype=tf.int64)
            self._shuffle_seed = tf.Variable(seed, trainable=False, name="shuffle_seed")
        self._compiler = UpdateCompiler(self._update)

    @property
    def actor_net(self) -> network.Network:
        """The actor network."""
        return self._actor_net

    @property
    def value_net(self) -> network.Network:
        """The value network."""
        return self._value_net

    def train_metrics(self) -> dict[str, float]:
        """What the last call of `train` reported.

        Returns:
            Means over its gradient steps: `loss`, its terms as in `PPOLossInfo`, `entropy` (nats), `approx_kl` (nats,
            see `losses.approximate_kl`), `gradient_norm` (before clipping); and `explained_variance` of the returns by
            the value predictions before the update, `learning_rate`, `adaptive_kl_beta` and `mean_kl_divergence` (NaN
            without adaptive KL penalty) after it.
        """
        return dict(zip(_REPORT, self._report.numpy().tolist(), strict=True))

    def compute_advantages(self, rewards: Tensor, returns: Tensor, discounts: Tensor, value_preds: Tensor) -> tf.Tensor:
        """Advantages, by generalized advantage estimation if `use_gae`, else returns minus values.

        Args:
            rewards: float32 [B, T].
            returns: float32 [B, T].
            discounts: float32 [B, T], gamma included, 0 at the end of an episode.
            value_preds: float32 [B, T + 1], the last one for the final observation.

        Returns:
            float32 [B, T].
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
        rewards = self._normalized_rewards(next_time_steps.reward)
        discounts = self._config.discount_factor * next_time_steps.discount
        rewards, discounts = return_ops.cut_at_episode_ends(rewards, discounts, value_preds, next_time_steps.is_last())
        returns = return_ops.discounted_returns(rewards, discounts, value_preds[:, -1])
        advantages = self.compute_advantages(rewards, returns, discounts, value_preds)
        if self._debug_summaries:
            summaries.write_histograms(self.train_step_counter, returns=returns, advantages=advantages)
        if self._config.use_td_lambda_return and self._config.use_gae:
            returns = advantages + value_preds[:, :-1]
        return returns, advantages

    def update_observation_normalizer(self, batched_observations: Nest) -> None:
        """Takes observations (nest of [N, ...] or [B, T, ...]) into the running statistics."""
        if self._observation_normalizer is not None:
            self._observation_normalizer.update(batched_observations)

    def update_reward_normalizer(self, batched_rewards: Tensor) -> None:
        """Takes rewards ([N] or [B, T]) into the running statistics."""
        if self._reward_normalizer is not None:
            self._reward_normalizer.update(batched_rewards)

    # What follows is called by TFAgent's public methods and by `train`.

    def _initialize(self) -> None:
        """Nothing to do: all variables have their initial values."""

    def _preprocess_sequence(self, experience: Trajectory) -> Trajectory:
        return experience if self._compute_value_and_advantage_in_train else self._preprocess(experience)

    def _preprocess(self, experience: Trajectory) -> Trajectory:
        """Fills `value_prediction`, `return` and `advantage` into the policy info of [B, T] or [T] rows."""
        if experience.discount.shape.rank == 1:
            batched = tf.nest.map_structure(lambda tensor: tensor[tf.newaxis], experience)
            return tf.nest.map_structure(lambda tensor: tensor[0], self._preprocess(batched))
        experience_checks.check_length(experience)
        info = dict(experience.policy_info)
        if self._compute_value_and_advantage_in_train:
            present = masking.observation_mask(experience.step_type, experience.next_step_type)
            observations = masking.replace_invalid_rows(experience.observation, present)
            info["value_prediction"] = tf.stop_gradient(self._predict_values(observations, experience.step_type))
        returns, advantages = self.compute_return_and_advantage(
            preprocessing.next_time_steps_of(experience), info["value_prediction"]
        )
        # The last step's are unknown; zeros keep the length.
        info["return"], info["advantage"] = (tf.pad(tensor, [[0, 0], [0, 1]]) for tensor in (returns, advantages))
        return experience._replace(policy_info=info)

    def _train(self, experience: Nest, weights: Tensor | None) -> LossInfo:
        trajectory = self._checked(experience)
        if self._optimizer is None:
            self._optimizer = optimizers.default_optimizer()
        if not self._is_distributed():
            optimizers.create_slots(self._optimizer, self._trained_variables())
        loss_info = self._call_update(trajectory, weights)
        # In a graph the answer is a tensor; the summary operations ask it themselves.
        if not tf.executing_eagerly() or tf.summary.should_record_summaries():
            self._write_summaries()
        return loss_info

    def _call_update(self, trajectory: Trajectory, weights: Tensor | None) -> LossInfo:
        if self._is_distributed():
            return self._update(trajectory, weights, capacity=None, jit=False)
        batch_size, length = trajectory.step_type.shape
        jit = self._config.jit_compile
        if jit is None:
            jit = self._xla_is_faster(length)
        capacity = None
        if jit and length is not None:
            capacity = padded_capacity(length, 32, 2) if self._is_recurrent else padded_capacity(batch_size * length)
        return self._compiler(trajectory, weights, capacity, jit)

    def _xla_is_faster(self, length: int | None) -> bool:
        size = self._config.minibatch_size
        if self._plain_graph_needed or size is None:
            return False
        rows = size * (length or 1) if self._is_recurrent else size
        return xla_is_faster(rows, sum(int(np.prod(v.shape)) for v in self._trained_variables()))

    def _loss(self, experience: Nest, weights: Tensor | None, training: bool) -> LossInfo:
        batch = self._make_batch(self._checked(experience), weights)
        rows, minibatches = self._deal_out(batch, capacity=None)
        minibatch = update.select_minibatch(rows, minibatches, tf.constant(0))
        return self._minibatch_loss(minibatch, self._debug_summaries, training).loss_info

    def _checked(self, experience: Nest) -> Trajectory:
        experience_checks.check_kind(experience)
        if not isinstance(experience, Trajectory):
            experience = self._as_trajectory(experience)
        trajectory = experience_checks.as_tensors(experience, self.training_data_spec)
        batch_size, length = trajectory.step_type.shape
        if self._compute_value_and_advantage_in_train:
            experience_checks.check_length(trajectory)
            length = length and length - 1
        known = batch_size and length
        num_rows, unit = (batch_size, "sequences") if self._is_recurrent else (known and batch_size * length, "steps")
        experience_checks.check_minibatch_size(self._config.minibatch_size, num_rows, unit)
        return trajectory

    def _update(self, trajectory: Trajectory, weights: Tensor | None, capacity: Tensor | None, jit: bool) -> LossInfo:
        """The whole of `train`: batch, epochs, adaptive beta, normalisers, report; inside one compiled function."""
        rows, minibatches = self._deal_out(self._make_batch(trajectory, weights), capacity)
        last, means = self._run_epochs(rows, minibatches, jit)
        mean_kl = self._adapt_beta(rows)
        if self.update_normalizers_in_train:
            self._update_normalizers(trajectory)
        explained = return_ops.explained_variance(rows.returns, rows.old_values, rows.mask)
        beta = float("nan") if self._adaptive_kl_beta is None else self._adaptive_kl_beta
        rest = tf.stack([explained, optimizers.learning_rate(self._optimizer), beta, mean_kl])
        self._report.assign(tf.concat([means, rest], axis=0))
        loss, *extra = tf.unstack(last[: len(PPOLossInfo._fields) + 1])
        return LossInfo(loss, PPOLossInfo(*extra))

    def _make_batch(self, trajectory: Trajectory, weights: Tensor | None) -> TrainingBatch:
        if self._compute_value_and_advantage_in_train:
            mask = preprocessing.bootstrap_free_mask(trajectory)
            trajectory = self._preprocess(trajectory)
        else:
            mask = preprocessing.precomputed_mask(trajectory)
        batch = preprocessing.make_batch(trajectory, mask, weights, self._codec)
        if self._debug_summaries:
            normalized = masking.normalize_advantages(batch.advantages, mask)
            summaries.write_nest_histograms(self.train_step_counter, "actions", trajectory.action)
            summaries.write_histograms(self.train_step_counter, advantages_normalized=normalized)
        return batch

    def _deal_out(self, batch: TrainingBatch, capacity: Tensor | None) -> tuple[TrainingBatch, update.Minibatches]:
        """Rows and plan; rows are padded to `capacity` so that a changing experience keeps its compiled shape."""
        size = self._config.minibatch_size
        if size is None:
            return batch, update.whole_batch(self._config.num_epochs)
        rows = batch if self._is_recurrent else preprocessing.flatten_time(batch)
        if capacity is not None:
            rows = preprocessing.pad_rows(rows, axis=1 if self._is_recurrent else 0, size=capacity)
        seed = tf.stack([self._shuffle_seed, tf.cast(self.train_step_counter, tf.int64)])
        return rows, update.make_minibatches(tf.reduce_any(rows.mask, axis=1), size, self._config.num_epochs, seed)

    def _run_epochs(
        self, rows: TrainingBatch, minibatches: update.Minibatches, jit: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if self._is_distributed():
            return update.run_unrolled(lambda index: self._step(rows, minibatches, index), minibatches)

        def run(rows: TrainingBatch, *plan: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            dealt = update.Minibatches(minibatches.size, *plan)
            return update.run_epochs(lambda index: self._step(rows, dealt, index), dealt.num_steps, len(_STEP_REPORT))

        return tf.function(run, jit_compile=jit, autograph=False)(rows, *minibatches[1:])

    def _step(self, rows: TrainingBatch, minibatches: update.Minibatches, index: Tensor) -> tf.Tensor:
        """Takes one gradient step and reports it, see `_STEP_REPORT`."""
        minibatch = update.select_minibatch(rows, minibatches, index)
        # As in TF-Agents, only the first and the last epoch are summarised.
        epoch = index // minibatches.count
        recorded = (epoch == 0) | (epoch == self._config.num_epochs - 1)
        with tf.summary.record_if(recorded) if self._plain_graph_needed else contextlib.nullcontext():
            result, gradients = update.gradient_step(
                lambda: self._minibatch_loss(minibatch, self._debug_summaries, training=True),
                self._trained_variables(),
                self._optimizer,
                self._config.gradient_clipping,
            )
            if self._summarize_grads_and_vars and self._debug_summaries:
                summaries.write_gradients_and_variables(self.train_step_counter, gradients)
        self.train_step_counter.assign_add(1)
        loss, extra = result.loss_info
        return tf.stack([loss, *extra, *(result.metrics[name] for name in _STEP_REPORT[len(extra) + 1 :])])

    def _minibatch_loss(self, minibatch: TrainingBatch, debug_summaries: bool, training: bool) -> update.StepResult:
        weights = minibatch.weights * masking.balanced_weights(minibatch.mask)
        arguments = (
            minibatch.time_steps,
            minibatch.actions,
            minibatch.action_log_probs,
            minibatch.returns,
            masking.normalize_advantages(minibatch.advantages, minibatch.mask),
            minibatch.distribution_parameters,
            weights,
        )
        if getattr(self.get_loss, "__func__", None) is PPOObjective.get_loss:
            return self._evaluate_loss(*arguments, debug_summaries, minibatch.old_values, training)
        # A pipeline has put its own loss in place: it does not tell the metrics.
        unknown = {"entropy": tf.constant(float("nan")), "approx_kl": tf.constant(float("nan"))}
        loss_info = self.get_loss(
            *arguments, self.train_step_counter, debug_summaries, minibatch.old_values, training=training
        )
        return update.StepResult(loss_info, unknown)

    def _adapt_beta(self, rows: TrainingBatch) -> Tensor:
        if self._adaptive_kl_beta is None:
            return float("nan")
        divergence = self._kl_divergence(
            rows.time_steps, rows.distribution_parameters, self._current_distribution(rows.time_steps)
        )
        divergence *= rows.weights * masking.balanced_weights(rows.mask)
        self.update_adaptive_kl_beta(divergence)
        return tf.reduce_mean(divergence)

    def _update_normalizers(self, trajectory: Trajectory) -> None:
        step_types = (trajectory.step_type, trajectory.next_step_type)
        present, transitions = masking.observation_mask(*step_types), masking.transition_mask(*step_types)
        self.update_observation_normalizer(
            tf.nest.map_structure(lambda tensor: tf.boolean_mask(tensor, present), trajectory.observation)
        )
        self.update_reward_normalizer(tf.boolean_mask(trajectory.reward, transitions))

    def _normalized_rewards(self, rewards: Tensor) -> tf.Tensor:
        step = self.train_step_counter
        if self._debug_summaries:
            summaries.write_histograms(step, rewards=rewards)
            summaries.write_scalars(step, rewards_mean=tf.reduce_mean(rewards))
        if self._reward_normalizer is None:
            return rewards
        normalized = self._reward_normalizer.normalize(
            rewards, clip_value=self._config.reward_norm_clipping, center_mean=False
        )
        if self._debug_summaries:
            summaries.write_histograms(step, rewards_normalized=normalized)
            summaries.write_scalars(step, rewards_normalized_mean=tf.reduce_mean(normalized))
        return normalized

    def _write_summaries(self) -> None:
        report = dict(zip(_REPORT, tf.unstack(self._report), strict=True))
        summaries.write_train_metrics(report, self.train_step_counter)
        if self._summarize_grads_and_vars:
            summaries.write_variables(self.train_step_counter, self._trained_variables())

    def _trained_variables(self) -> list[tf.Variable]:
        """Both networks' trainable variables, each once, in an order that is the same in every process."""
        variables = {id(v): v for v in (*self._actor_net.trainable_weights, *self._value_net.trainable_weights)}
        return sorted(variables.values(), key=lambda v: v.name)

    @property
    def _is_recurrent(self) -> bool:
        return bool(self._actor_net.state_spec or self._value_net.state_spec)

    @property
    def _plain_graph_needed(self) -> bool:
        return self._config.check_numerics or self._debug_summaries or self._summarize_grads_and_vars

    def _is_distributed(self) -> bool:
        """Whether gradient steps synchronise replicas, which TensorFlow does not allow inside a loop."""
        mirrored = any(isinstance(v, tf.distribute.DistributedValues) for v in self._trained_variables())
        return mirrored or tf.distribute.get_strategy().num_replicas_in_sync > 1

    def _make_policy(self, time_step_spec: TimeStep, action_spec: Nest, collect: bool) -> PPOPolicy:
        return PPOPolicy(
            time_step_spec,
            action_spec,
            self._actor_net,
            self._value_net,
            observation_normalizer=self._observation_normalizer,
            clip=False,
            collect=collect,
            compute_value_and_advantage_in_train=self._compute_value_and_advantage_in_train,
        )

    def _make_training_data_spec(self, collect_policy: PPOPolicy) -> Trajectory | None:
        if self._compute_value_and_advantage_in_train:
            return None
        spec = collect_policy.trajectory_spec
        scalar = tensor_spec.TensorSpec([], tf.float32)
        return spec._replace(policy_info={**spec.policy_info, "return": scalar, "advantage": scalar})
