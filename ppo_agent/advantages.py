"""Returns, advantages and running statistics of `PPOAgent`: what it makes of raw experience."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tf_agents.trajectories import TimeStep, Trajectory

from ppo_agent import summaries
from ppo_agent.common import scalar_summaries
from ppo_agent.common.nest_checks import NestCheck
from ppo_agent.common.types import Nest, Tensor
from ppo_agent.config import PPOConfig
from ppo_agent.learner import batches, experience_checks
from ppo_agent.maths import masking
from ppo_agent.maths import returns as return_ops
from ppo_agent.normalizers import StreamingNormalizer


class PPOAdvantages:
    """Mix-in of `PPOAgent`: from rewards and values to returns and advantages, and the normalisers."""

    _config: PPOConfig
    _reward_normalizer: StreamingNormalizer | None
    _observation_normalizer: StreamingNormalizer | None
    _running_return: Any
    _compute_value_and_advantage_in_train: bool
    _debug_summaries: bool
    _predict_values: Callable[..., tf.Tensor]
    train_step_counter: tf.Variable
    time_step_spec: TimeStep

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
        NestCheck("batched_observations", self.time_step_spec.observation).check_shapes(batched_observations, ...)
        if self._observation_normalizer is not None:
            self._observation_normalizer.update(batched_observations)

    def update_reward_normalizer(self, batched_rewards: Tensor) -> None:
        """Takes rewards ([N] or [B, T]) into the running statistics; with `normalize_rewards_by='return'` returns."""
        if self._reward_normalizer is not None:
            self._reward_normalizer.update(batched_rewards)

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
            state = tf.nest.map_structure(lambda stored: stored[:, 0], info.get("policy_state", ()))
            values = self._predict_values(observations, experience.step_type, policy_state=state)
            info["value_prediction"] = tf.stop_gradient(values)
        returns, advantages = self.compute_return_and_advantage(
            batches.next_time_steps_of(experience), info["value_prediction"]
        )
        # What is unknown is 0, the last step's among it, which keeps the length.
        unknown = batches.rollout_ends(experience)
        for name, known in (("return", returns), ("advantage", advantages)):
            info[name] = tf.where(unknown, 0.0, tf.pad(known, [[0, 0], [0, 1]]))
        return experience._replace(policy_info=info)

    def _update_normalizers(self, trajectory: Trajectory, failed: Tensor | None = None) -> None:
        """Takes all finite observations and rewards in; none where an update has failed, which is made again."""
        step_types = (trajectory.step_type, trajectory.next_step_type)
        present, transitions = masking.observation_mask(*step_types), masking.transition_mask(*step_types)
        transitions &= masking.finite_rows(trajectory.reward)
        if failed is not None:
            present, transitions = present & ~failed, transitions & ~failed
        self.update_observation_normalizer(
            tf.nest.map_structure(lambda tensor: tf.boolean_mask(tensor, present), trajectory.observation)
        )
        if self._reward_normalizer is not None:
            values = trajectory.reward
            if self._config.normalize_rewards_by == "return":
                values = self._running_returns(trajectory, transitions, failed)
            self.update_reward_normalizer(tf.boolean_mask(values, transitions))

    def _running_returns(self, trajectory: Trajectory, transitions: Tensor, failed: Tensor | None) -> tf.Tensor:
        """Returns so far, [B, T]; episodes go on from the last call if there is a variable for B rows."""
        running = self._running_return
        carries = running is not None and running.shape[0] == trajectory.step_type.shape[0]
        before = running.read_value() if carries else tf.zeros_like(trajectory.reward[:, 0])
        returns = return_ops.running_returns(
            trajectory.reward, self._config.discount_factor, trajectory.is_first(), transitions, before
        )
        if carries:
            running.assign(returns[:, -1] if failed is None else tf.where(failed, before, returns[:, -1]))
        return returns

    def _create_running_return(self, batch_size: int | None) -> None:
        """Creates the variable for as many rows as `train` gets first; a shape that is left open confuses Grappler."""
        is_needed = self._reward_normalizer is not None and self._config.normalize_rewards_by == "return"
        if is_needed and self._running_return is None and batch_size is not None:
            with tf.init_scope():
                self._running_return = tf.Variable(
                    tf.zeros([batch_size]), trainable=False, name="running_return",
                    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                )  # fmt: skip

    def _normalized_rewards(self, rewards: Tensor) -> tf.Tensor:
        step = self.train_step_counter
        if self._debug_summaries:
            summaries.write_histograms(step, rewards=rewards)
            scalar_summaries.write_scalars(step, rewards_mean=tf.reduce_mean(rewards))
        if self._reward_normalizer is None:
            return rewards
        normalized = self._reward_normalizer.normalize(
            rewards, clip_value=self._config.reward_norm_clipping, center_mean=False
        )
        if self._debug_summaries:
            summaries.write_histograms(step, rewards_normalized=normalized)
            scalar_summaries.write_scalars(step, rewards_normalized_mean=tf.reduce_mean(normalized))
        return normalized
