"""What an update asks of an agent, put together from the methods that its subclasses may override."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tf_agents.trajectories import Trajectory

from ppo_agent import objective
from ppo_agent.common import replicas, shared_results
from ppo_agent.config import PPOConfig
from ppo_agent.learner import statistics
from ppo_agent.learner.batches import TrainingBatch
from ppo_agent.learner.compilation import CompiledUpdate, work_per_row
from ppo_agent.learner.interface import UpdateVariables
from ppo_agent.learner.report import StepResult
from ppo_agent.learner.update import Update
from ppo_agent.maths import masking

if TYPE_CHECKING:
    from ppo_agent.agent import PPOAgent


class UpdateMethods:
    """The `learner.update.UpdateMethods` of an agent."""

    def __init__(self, agent: PPOAgent) -> None:
        """Takes the agent."""
        self._agent = agent

    def fill_targets(self, trajectory: Trajectory) -> Trajectory:
        """Fills returns, advantages and values into the policy info of raw experience."""
        return self._agent._preprocess(trajectory)

    @shared_results.remembering()
    def evaluate(self, minibatch: TrainingBatch, training: bool) -> StepResult:
        """The loss of a minibatch, and beside it the metrics, which a loss of the pipeline's own does not cost."""
        agent = self._agent
        arguments, weights = objective.loss_arguments(minibatch)
        first_state = minibatch.first_state
        # Only where there is one, for pipelines that override the method as TF-Agents knows it.
        state = {"policy_state": first_state} if minibatch.policy_state else {}
        get_loss: Any = agent.get_loss
        loss_info = get_loss(
            *arguments,
            agent.train_step_counter,
            agent.debug_summaries,
            old_value_predictions=minibatch.old_values,
            training=training,
            **state,
        )
        return StepResult(loss_info, agent._objective.metrics(minibatch, weights, first_state))

    def adapt_beta(self, batch: TrainingBatch) -> tf.Tensor | None:
        """Adapts beta to how far the policy is from the one that collected a batch; the mean KL, None without beta."""
        agent = self._agent
        if agent._adaptive_kl_beta is None:
            return None
        current = agent._objective.current_distribution(batch.time_steps, policy_state=batch.first_state)
        divergence = agent._kl_divergence(batch.time_steps, batch.distribution_parameters, current)
        divergence *= batch.weights * masking.balanced_weights(batch.mask)
        agent.update_adaptive_kl_beta(divergence)
        return replicas.mean(tf.reduce_mean(divergence))

    def update_normalizers(self, trajectory: Trajectory) -> None:
        """Takes all finite observations and rewards of an experience in, if that is asked for."""
        agent = self._agent
        if not agent.update_normalizers_in_train:
            return
        agent.update_observation_normalizer(statistics.observations(trajectory))
        if agent._reward_normalizer is None:
            return
        if agent._config.normalize_rewards_by == "return":
            values = statistics.returns_so_far(trajectory, agent._config.discount_factor, agent._running_return)
        else:
            values = statistics.rewards(trajectory)
        agent.update_reward_normalizer(values)

    def update_value_scale(self, rows: TrainingBatch) -> None:
        """Takes the returns of rows into the moments that value predictions are scaled by, if they are."""
        if self._agent._value_scale is not None:
            self._agent._value_scale.update(rows.returns, rows.mask)

    def work_per_row(self) -> int:
        """About how many multiplications the networks take for one observation."""
        return work_per_row(self._agent._trained_variables(), self._agent.time_step_spec.observation)

    def trained_variables(self) -> list[tf.Variable]:
        """Both networks' trainable variables."""
        return self._agent._trained_variables()

    def network_state(self) -> list[tf.Variable]:
        """Their other variables, which a forward pass may change: moving averages, counters."""
        nets, trained = (self._agent.actor_net, self._agent.value_net), {id(v) for v in self.trained_variables()}
        return list({id(v): v for net in nets for v in net.variables if id(v) not in trained}.values())


def make_update(
    agent: PPOAgent, config: PPOConfig, shuffle_seed: tf.Variable | None, *, is_series: bool = False
) -> CompiledUpdate:
    """An update of an agent by hyper-parameters that may differ from its own.

    Args:
        agent: what is updated.
        config: the hyper-parameters of the update.
        shuffle_seed: int64 scalar; None without minibatches.
        is_series: see `learner.update.Update`.
    """
    methods = UpdateMethods(agent)
    variables = UpdateVariables(agent._report, agent.train_step_counter, shuffle_seed, agent._adaptive_kl_beta)
    update = Update(
        config,
        agent._codec,
        agent._optimizer,
        variables,
        methods,
        is_recurrent=bool(agent.actor_net.state_spec or agent.value_net.state_spec),
        writes_debug_summaries=agent.debug_summaries,
        writes_gradients=agent.summarize_grads_and_vars,
        is_series=is_series,
    )
    return CompiledUpdate(update, methods.work_per_row)
