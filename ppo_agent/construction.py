"""What an agent is made of: its variables, policies and update, from its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.networks import network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import TimeStep, Trajectory
from tf_agents.utils import common

from ppo_agent import network_checks
from ppo_agent.common import replicas
from ppo_agent.common.action_masks import Splitter
from ppo_agent.common.limits import LARGEST_INT64
from ppo_agent.common.seeds import draw_seed
from ppo_agent.common.types import Nest, Tensor
from ppo_agent.config import PPOConfig
from ppo_agent.learner import experience_checks, optimizers, report
from ppo_agent.normalizers import StreamingNormalizer, make_observation_normalizer
from ppo_agent.policy import PPOPolicy
from ppo_agent.value_scale import ValueScale, make_value_scale

Networks = tuple[network.Network, network.Network]


def check_arguments(given: Mapping[str, Any], config: PPOConfig) -> None:
    """Raises TypeError or ValueError for arguments of an agent that would fail later and elsewhere."""
    time_step_spec, optimizer = given["time_step_spec"], given["optimizer"]
    splitter = given["observation_and_action_constraint_splitter"]
    writes_summaries = given["debug_summaries"] or given["summarize_grads_and_vars"]
    if not tf.executing_eagerly():
        experience_checks.check_caller("PPOAgent")
    if not isinstance(time_step_spec, TimeStep):
        raise TypeError(f"time_step_spec is {type(time_step_spec).__name__}, expected a TimeStep of specs.")
    _check_specs("time_step_spec", time_step_spec)
    _check_specs("action_spec", given["action_spec"])
    _check_reward_spec(time_step_spec.reward)
    optimizers.check(optimizer)
    if config.learning_rate_kl_target > 0 and optimizers.learning_rate_variable(optimizer) is None:
        raise ValueError(
            f"learning_rate_kl_target is {config.learning_rate_kl_target}, expected 0 without an optimizer of tf.keras "
            "whose learning rate is a number, which can be adapted."
        )
    if splitter is not None and not callable(splitter):
        raise TypeError(f"observation_and_action_constraint_splitter is {splitter!r}, expected a callable.")
    if config.jit_compile and (config.check_numerics or writes_summaries):
        raise ValueError(
            "jit_compile is True, expected None or False with check_numerics, debug_summaries or "
            "summarize_grads_and_vars: XLA has no such operations."
        )


def _check_specs(name: str, nest: Nest) -> None:
    leaves = tf.nest.flatten(nest)
    if not leaves:
        raise ValueError(f"{name} is {nest!r}, expected at least one spec.")
    for leaf in leaves:
        if not isinstance(leaf, tf.TypeSpec):
            found = type(leaf).__name__
            raise TypeError(
                f"{name} holds a {found}, expected TensorSpecs, which tensor_spec.from_spec makes of others."
            )


def _check_reward_spec(spec: Nest) -> None:
    leaves = tf.nest.flatten(spec)
    if tf.nest.is_nested(spec) or tuple(spec.shape) != () or not tf.as_dtype(spec.dtype).is_floating:
        shapes = ", ".join(f"{tf.as_dtype(leaf.dtype).name} of shape {tuple(leaf.shape)}" for leaf in leaves)
        shapes = f"a nest of {shapes}" if tf.nest.is_nested(spec) and len(leaves) == 1 else shapes
        raise ValueError(f"time_step_spec.reward is {shapes or 'empty'}, expected a floating-point scalar.")


def check_networks(nets: Networks, config: PPOConfig) -> None:
    """Raises ValueError for hyper-parameters that do not go with networks with or without a state."""
    is_recurrent = any(net.state_spec for net in nets)
    if config.store_policy_state and not is_recurrent:
        raise ValueError("store_policy_state is True, expected False: neither actor_net nor value_net has a state.")
    if config.minibatch_size == 1 and not is_recurrent:
        raise ValueError("minibatch_size is 1, expected at least 2: a single advantage is always normalised to 0.")


def make_networks(
    config: PPOConfig,
    actor_net: Any,
    value_net: Any,
    observation_spec: Nest,
    action_spec: Nest,
    splitter: Splitter | None,
) -> Networks:
    """Actor and value network, wrapped where they know nothing of the action masks in observations.

    Raises:
        TypeError: one of them is no `tf_agents.networks.Network`.
        ValueError: a hyper-parameter does not go with them.
    """
    network_checks.check_is_network("actor_net", actor_net)
    network_checks.check_is_network("value_net", value_net)
    actor_net, value_net = (
        network_checks.with_masks(net, observation_spec, action_spec, splitter) for net in (actor_net, value_net)
    )
    nets = (actor_net, value_net)
    check_networks(nets, config)
    return nets


def create_networks(
    nets: Networks, time_step_spec: TimeStep, action_spec: Nest, normalizer: StreamingNormalizer | None
) -> Nest:
    """Creates the variables of actor and value network and checks what they emit.

    Returns:
        The spec of the actor network's output.

    Raises:
        ValueError: a network does not fit the specs.
    """
    actor_output, value_output = (
        network_checks.create_variables(net, time_step_spec, normalizer, name)
        for net, name in zip(nets, ("actor_net", "value_net"), strict=True)
    )
    network_checks.check_output("actor_net", actor_output, "action_spec", action_spec)
    scalar = tf.TensorSpec([], tf.float32)
    network_checks.check_output("value_net", value_output, "one value for each observation", scalar)
    return actor_output


def observation_normalizer(
    config: PPOConfig, observation_spec: Nest, net: network.Network
) -> StreamingNormalizer | None:
    """The normaliser of what a network takes as floating-point numbers; None if that is off."""
    if not config.normalize_observations:
        return None
    return make_observation_normalizer(
        observation_spec, network_checks.spec_without_mask(net), network_checks.splitter_of(net)
    )


def reward_normalizer(config: PPOConfig) -> StreamingNormalizer | None:
    """The normaliser of rewards; None if that is off."""
    return StreamingNormalizer(tf.TensorSpec([], tf.float32), "normalize_reward") if config.normalize_rewards else None


def value_scale(config: PPOConfig, value_net: network.Network) -> ValueScale | None:
    """The scale of the value network's predictions; None if that is off."""
    return make_value_scale(value_net) if config.normalize_value_targets else None


def train_step(counter: tf.Variable | None) -> tf.Variable:
    """The variable that counts gradient steps: the one that was given, else the global step.

    Raises:
        TypeError: something else was given.
    """
    if counter is not None and not hasattr(counter, "assign_add"):
        raise TypeError(f"train_step_counter is {counter!r}, expected None or a tf.Variable.")
    return tf.compat.v1.train.get_or_create_global_step() if counter is None else counter


def adapted_variables(config: PPOConfig, optimizer: Any) -> tuple[tf.Variable | None, tf.Variable | None]:
    """The coefficient of the KL penalty, and the optimiser's learning rate if it is adapted; None for what is off.

    Checkpoints find the learning rate in the agent, because not every optimiser counts it among its variables.
    """
    first, beta = config.initial_adaptive_kl_beta, None
    if first > 0:
        beta = common.create_variable("adaptive_kl_beta", first, dtype=tf.float32)
    return beta, optimizers.learning_rate_variable(optimizer) if config.learning_rate_kl_target > 0 else None


def shuffle_seed(config: PPOConfig) -> tf.Variable | None:
    """What minibatches are shuffled with, int64; None without minibatches."""
    if config.minibatch_size is None:
        return None
    return tf.Variable(draw_seed(LARGEST_INT64), trainable=False, dtype=tf.int64, name="shuffle_seed")


def report_variable() -> tf.Variable:
    """Where `train` leaves its report."""
    return _shared_variable(np.zeros(len(report.ENTRIES), np.float32), "report")


def running_return(batch_size: int, is_distributed: bool) -> tf.Variable:
    """Returns so far of the rows of an experience, of all replicas; a shape that is left open confuses Grappler."""

    def create() -> tf.Variable:
        with tf.init_scope():
            return _shared_variable(tf.zeros([number * batch_size]), "running_return")

    number = replicas.count()
    return replicas.create(create) if is_distributed else create()


def _shared_variable(value: Tensor, name: str) -> tf.Variable:
    """A variable that is the first replica's under a tf.distribute strategy."""
    return tf.Variable(value, trainable=False, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)


def policy_maker(
    config: PPOConfig,
    nets: Networks,
    time_step_spec: TimeStep,
    action_spec: Nest,
    normalizer: StreamingNormalizer | None,
    value_scale: ValueScale | None,
) -> Callable[[bool], PPOPolicy]:
    """A function that makes the policy; takes whether it is the one that collects."""

    def make(collect: bool) -> PPOPolicy:
        return PPOPolicy(
            time_step_spec,
            action_spec,
            *nets,
            observation_normalizer=normalizer,
            clip=False,
            collect=collect,
            compute_value_and_advantage_in_train=config.compute_value_and_advantage_in_train,
            store_policy_state=config.store_policy_state,
            value_scale=value_scale,
            observation_norm_clipping=config.observation_norm_clipping,
        )

    return make


def training_data_spec(config: PPOConfig, collect_policy: PPOPolicy) -> Trajectory | None:
    """What `train` takes where `preprocess_sequence` has filled in returns and advantages; None for raw experience."""
    if config.compute_value_and_advantage_in_train:
        return None
    spec, scalar = collect_policy.trajectory_spec, tensor_spec.TensorSpec([], tf.float32)
    return spec._replace(policy_info={**spec.policy_info, "return": scalar, "advantage": scalar})
