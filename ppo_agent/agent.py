"""Proximal Policy Optimization as a TF-Agents agent."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.agents import data_converter
from tf_agents.agents.tf_agent import TFAgent
from tf_agents.networks import network
from tf_agents.policies import greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import TimeStep, Trajectory
from tf_agents.utils import common

from ppo_agent.common import action_masks
from ppo_agent.common.action_masks import Splitter
from ppo_agent.common.types import Nest
from ppo_agent.config import PPOConfig, document_keywords
from ppo_agent.learner.compilation import UpdateCompiler
from ppo_agent.learning import REPORT_SIZE, PPOLearning
from ppo_agent.maths.distributions import ParameterCodec
from ppo_agent.maths.schedules import Scheduled
from ppo_agent.normalizers import StreamingNormalizer, make_observation_normalizer
from ppo_agent.objective import PPOLossInfo
from ppo_agent.policy import PPOPolicy, check_is_network, check_output, create_variables, splitter_of

__all__ = ["PPOAgent", "PPOLossInfo"]


class PPOAgent(PPOLearning, TFAgent):
    """Proximal Policy Optimization (Schulman et al., 2017, https://arxiv.org/abs/1707.06347).

    Takes the keywords of TF-Agents 0.19.0's `PPOAgent` in their order and with their defaults. `train` runs all
    epochs in one compiled call; with `minibatch_size` it makes shuffled minibatches of the experience itself. Where
    the numbers differ from TF-Agents' is listed in the README.
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
        store_policy_state: bool = False,
        sequence_length: int | None = None,
        observation_and_action_constraint_splitter: Splitter | None = None,
        target_kl: float | None = None,
        normalize_rewards_by: str = "reward",
        max_skipped_steps: int = 10,
    ) -> None:
        """Creates the agent.

        {keywords}

        Raises:
            TypeError: a network is not a `tf_agents.networks.Network`, or another argument of another kind.
            ValueError: a network does not fit the specs, or a number is out of range.
        """
        given = locals()
        config = PPOConfig(**{f.name: given[f.name] for f in dataclasses.fields(PPOConfig)})
        _check_kinds(time_step_spec, optimizer, observation_and_action_constraint_splitter)
        check_is_network("actor_net", actor_net)
        check_is_network("value_net", value_net)
        if jit_compile and (check_numerics or debug_summaries or summarize_grads_and_vars):
            raise ValueError(
                "jit_compile is True, expected None or False with check_numerics, debug_summaries or "
                "summarize_grads_and_vars: XLA has no such operations."
            )
        tf.Module.__init__(self, name=name)
        actor_net, value_net = (
            _with_masks(net, time_step_spec.observation, action_spec, observation_and_action_constraint_splitter)
            for net in (actor_net, value_net)
        )
        self._config = config
        self._optimizer = optimizer
        self._actor_net, self._value_net = actor_net, value_net
        self._compute_value_and_advantage_in_train = compute_value_and_advantage_in_train
        self.update_normalizers_in_train = update_normalizers_in_train
        self._create_state(time_step_spec.observation)
        actor_output, value_output = (
            create_variables(net, time_step_spec, self._observation_normalizer, name)
            for net, name in ((actor_net, "actor_net"), (value_net, "value_net"))
        )
        self._codec = ParameterCodec(actor_net, actor_output)
        check_output("actor_net", actor_output, "action_spec", action_spec)
        check_output("value_net", value_output, "one value for each observation", tf.TensorSpec([], tf.float32))
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
        self._compiler = UpdateCompiler(self._update)

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

    def _create_state(self, observation_spec: Nest) -> None:
        """Creates all variables but those of networks and optimizer."""
        config = self._config
        self._adaptive_kl_beta = None
        if config.initial_adaptive_kl_beta > 0:
            self._adaptive_kl_beta = common.create_variable(
                "adaptive_kl_beta", config.initial_adaptive_kl_beta, dtype=tf.float32
            )
        self._reward_normalizer = self._observation_normalizer = None
        if config.normalize_rewards:
            self._reward_normalizer = StreamingNormalizer(tf.TensorSpec([], tf.float32), "normalize_reward")
        self._running_return = None
        if config.normalize_observations:
            self._observation_normalizer = make_observation_normalizer(
                observation_spec, _spec_without_mask(self._actor_net), splitter_of(self._actor_net)
            )
        if config.minibatch_size is not None:
            seed = tf.random.uniform([], maxval=np.iinfo(np.int64).max, dtype=tf.int64)
            self._shuffle_seed = tf.Variable(seed, trainable=False, name="shuffle_seed")
        self._report = tf.Variable(
            np.zeros(REPORT_SIZE, np.float32),
            trainable=False,
            name="report",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

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
            store_policy_state=self._config.store_policy_state,
        )

    def _make_training_data_spec(self, collect_policy: PPOPolicy) -> Trajectory | None:
        if self._compute_value_and_advantage_in_train:
            return None
        spec = collect_policy.trajectory_spec
        scalar = tensor_spec.TensorSpec([], tf.float32)
        return spec._replace(policy_info={**spec.policy_info, "return": scalar, "advantage": scalar})


def _check_kinds(time_step_spec: Any, optimizer: Any, splitter: Any) -> None:
    """Raises TypeError for what would fail later and elsewhere."""
    if not isinstance(time_step_spec, TimeStep):
        raise TypeError(f"time_step_spec is {type(time_step_spec).__name__}, expected a TimeStep of specs.")
    if optimizer is not None and not hasattr(optimizer, "apply_gradients"):
        raise TypeError(f"optimizer is {optimizer!r}, expected one of tf.keras or tf.compat.v1.")
    if splitter is not None and not callable(splitter):
        raise TypeError(f"observation_and_action_constraint_splitter is {splitter!r}, expected a callable.")


def _spec_without_mask(net: network.Network) -> Nest | None:
    """What a network was built for, without the action mask; None if it does not tell."""
    wrapped = getattr(net, "network", None)
    if wrapped is not None:
        return wrapped.input_tensor_spec
    spec = net.input_tensor_spec
    return None if spec is None else action_masks.split(spec, splitter_of(net))[0]


def _with_masks(
    net: network.Network, observation_spec: Nest, action_spec: Nest, splitter: Splitter | None
) -> network.Network:
    """The network itself if it splits observations that hold an action mask, or if they hold none; else it wrapped."""
    if splitter is None:
        wraps = action_masks.has_mask(observation_spec) and not action_masks.has_mask(net.input_tensor_spec)
    else:
        wraps = splitter_of(net) is None
    if not wraps or splitter_of(net) is not None:
        return net
    from ppo_agent.networks import MaskedNetwork

    return MaskedNetwork(net, action_spec, splitter)
