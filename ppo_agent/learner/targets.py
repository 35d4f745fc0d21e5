"""From the rewards and values of an experience to what gradient steps aim at: returns and advantages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tf_agents.trajectories import TimeStep, Trajectory

from ppo_agent.common.types import Nest, Tensor
from ppo_agent.config import PPOConfig
from ppo_agent.learner import batches, experience_checks
from ppo_agent.maths import masking
from ppo_agent.maths import returns as return_ops

ReturnsAndAdvantages = Callable[[TimeStep, Tensor], tuple[Tensor, Tensor]]


def with_targets(
    experience: Trajectory,
    compute_return_and_advantage: ReturnsAndAdvantages,
    predict_values: Callable[..., Tensor] | None,
) -> Trajectory:
    """Fills `return` and `advantage`, and `value_prediction` if they are not there yet, into the policy info.

    Args:
        experience: raw experience [B, T, ...] or [T, ...].
        compute_return_and_advantage: see `PPOAgent.compute_return_and_advantage`.
        predict_values: from observations and step types [B, T] (and the keyword `policy_state`) to values; None if the
            policy info has them.

    Returns:
        Experience of the same shape; what is unknown is 0, the last step's targets among it.

    Raises:
        ValueError: there is only one time step.
    """
    if experience.discount.shape.rank == 1:
        batched = tf.nest.map_structure(lambda tensor: tensor[tf.newaxis], experience)
        filled = with_targets(batched, compute_return_and_advantage, predict_values)
        return tf.nest.map_structure(lambda tensor: tensor[0], filled)
    experience_checks.check_length(experience)
    info: dict[str, Any] = dict(experience.policy_info)
    if predict_values is not None:
        info["value_prediction"] = _values(experience, predict_values, info.get("policy_state", ()))
    returns, advantages = compute_return_and_advantage(batches.next_time_steps_of(experience), info["value_prediction"])
    unknown = batches.rollout_ends(experience)
    for name, known in (("return", returns), ("advantage", advantages)):
        info[name] = tf.where(unknown, 0.0, tf.pad(known, [[0, 0], [0, 1]]))
    return experience._replace(policy_info=info)


def _values(experience: Trajectory, predict_values: Callable[..., Tensor], stored_state: Nest) -> tf.Tensor:
    """Value predictions [B, T]; nothing in padding reaches the network."""
    present = masking.observation_mask(experience.step_type, experience.next_step_type)
    observations = masking.replace_invalid_rows(experience.observation, present)
    state = tf.nest.map_structure(lambda stored: stored[:, 0], stored_state)
    return tf.stop_gradient(predict_values(observations, experience.step_type, policy_state=state))


def returns_and_advantages(
    next_time_steps: TimeStep,
    values: Tensor,
    config: PPOConfig,
    normalize: Callable[[Tensor], Tensor],
    compute_advantages: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Targets of the value function, advantages, and the Monte-Carlo returns that both come from.

    Args:
        next_time_steps: what each action led to [B, T], see `PPOAgent.compute_return_and_advantage`.
        values: float32 [B, T + 1].
        config: hyper-parameters.
        normalize: normalises rewards.
        compute_advantages: from rewards, returns, discounts (gamma included) and values to advantages.

    Returns:
        float32 [B, T] each.
    """
    discounts = config.discount_factor * next_time_steps.discount
    rewards, discounts = return_ops.cut_at_episode_ends(
        normalize(next_time_steps.reward), discounts, values, next_time_steps.is_last()
    )
    returns = return_ops.discounted_returns(rewards, discounts, values[:, -1])
    advantages = compute_advantages(rewards, returns, discounts, values)
    is_lambda_return = config.use_td_lambda_return and config.use_gae
    return advantages + values[:, :-1] if is_lambda_return else returns, advantages, returns
