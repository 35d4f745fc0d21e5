"""The two published forms of PPO, each with only the keywords that concern it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tf_agents.networks import network
from tf_agents.trajectories import TimeStep

from ppo_agent.agent import PPOAgent
from ppo_agent.common.action_masks import Splitter
from ppo_agent.common.configurable import configurable
from ppo_agent.common.types import Nest
from ppo_agent.config import document_keywords, number
from ppo_agent.maths.schedules import Scheduled


@configurable("tf_agents.agents.ppo.ppo_clip_agent")
class PPOClipAgent(PPOAgent):
    """PPO with the clipped surrogate objective and no KL penalty.

    Takes the keywords of TF-Agents' `PPOClipAgent` in their order and with their defaults; see `PPOAgent` for what
    they mean. Unlike there, `log_prob_clipping` has an effect.
    """

    @document_keywords
    def __init__(
        self,
        time_step_spec: TimeStep,
        action_spec: Nest,
        optimizer: Any | None = None,
        actor_net: network.Network | None = None,
        value_net: network.Network | None = None,
        greedy_eval: bool = True,
        importance_ratio_clipping: Scheduled = 0.0,
        lambda_value: float = 0.95,
        discount_factor: float = 0.99,
        entropy_regularization: Scheduled = 0.0,
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
        gradient_clipping: float | None = None,
        value_clipping: Scheduled | None = None,
        check_numerics: bool = False,
        compute_value_and_advantage_in_train: bool = True,
        update_normalizers_in_train: bool = True,
        aggregate_losses_across_replicas: bool = True,
        debug_summaries: bool = False,
        summarize_grads_and_vars: bool = False,
        train_step_counter: tf.Variable | None = None,
        name: str | None = "PPOClipAgent",
        *,
        minibatch_size: int | None = None,
        jit_compile: bool | None = None,
        store_policy_state: bool = False,
        sequence_length: int | None = None,
        observation_and_action_constraint_splitter: Splitter | None = None,
        target_kl: float | None = None,
        normalize_rewards_by: str = "reward",
        max_skipped_steps: int = 10,
        recompute_advantages: bool = False,
        learning_rate_kl_target: float = 0.0,
        dual_clipping: float = 0.0,
        normalize_value_targets: bool = False,
        observation_norm_clipping: float = 5.0,
    ) -> None:
        """Creates the agent.

        {keywords}
        """
        given = _keywords(locals())
        super().__init__(
            **given,
            kl_cutoff_factor=0.0,
            kl_cutoff_coef=0.0,
            initial_adaptive_kl_beta=0.0,
            adaptive_kl_target=0.0,
            adaptive_kl_tolerance=0.0,
        )


@configurable("tf_agents.agents.ppo.ppo_kl_penalty_agent")
class PPOKLPenaltyAgent(PPOAgent):
    """PPO with the adaptive KL penalty and no clipping of importance ratios.

    Takes the keywords of TF-Agents' `PPOKLPenaltyAgent` in their order and with their defaults; see `PPOAgent` for
    what they mean. Unlike there, `kl_cutoff_factor=None` means no cutoff instead of an error in `train`.
    """

    @document_keywords
    def __init__(
        self,
        time_step_spec: TimeStep,
        action_spec: Nest,
        actor_net: network.Network,
        value_net: network.Network,
        num_epochs: int,
        initial_adaptive_kl_beta: float,
        adaptive_kl_target: float,
        adaptive_kl_tolerance: float,
        optimizer: Any | None = None,
        use_gae: bool = True,
        use_td_lambda_return: bool = True,
        lambda_value: float = 0.95,
        discount_factor: float = 0.99,
        value_pred_loss_coef: float = 0.5,
        entropy_regularization: Scheduled = 0.0,
        policy_l2_reg: float = 0.0,
        value_function_l2_reg: float = 0.0,
        shared_vars_l2_reg: float = 0.0,
        normalize_observations: bool = False,
        normalize_rewards: bool = True,
        reward_norm_clipping: float = 0.0,
        log_prob_clipping: float = 0.0,
        gradient_clipping: float | None = None,
        value_clipping: Scheduled | None = None,
        kl_cutoff_coef: float = 0.0,
        kl_cutoff_factor: float | None = None,
        check_numerics: bool = False,
        debug_summaries: bool = False,
        compute_value_and_advantage_in_train: bool = True,
        update_normalizers_in_train: bool = True,
        aggregate_losses_across_replicas: bool = True,
        summarize_grads_and_vars: bool = False,
        train_step_counter: tf.Variable | None = None,
        name: str | None = None,
        *,
        minibatch_size: int | None = None,
        jit_compile: bool | None = None,
        store_policy_state: bool = False,
        sequence_length: int | None = None,
        observation_and_action_constraint_splitter: Splitter | None = None,
        target_kl: float | None = None,
        normalize_rewards_by: str = "reward",
        max_skipped_steps: int = 10,
        recompute_advantages: bool = False,
        learning_rate_kl_target: float = 0.0,
        dual_clipping: float = 0.0,
        normalize_value_targets: bool = False,
        observation_norm_clipping: float = 5.0,
    ) -> None:
        """Creates the agent.

        {keywords}

        Raises:
            ValueError: `kl_cutoff_coef` is positive and `kl_cutoff_factor` is None.
        """
        given = _keywords(locals())
        if kl_cutoff_factor is None and number(kl_cutoff_coef) > 0:
            raise ValueError(f"kl_cutoff_factor is None, expected a number with kl_cutoff_coef = {kl_cutoff_coef}.")
        super().__init__(**given, importance_ratio_clipping=0.0)


def _keywords(scope: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor out of its `locals()`."""
    return {name: value for name, value in scope.items() if name not in ("self", "__class__")}
