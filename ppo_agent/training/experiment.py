"""Builds what a run consists of, from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.environments import tf_environment

from ppo_agent import PPOClipAgent, PPOKLPenaltyAgent, presets
from ppo_agent.common.observation_kinds import LeafKind, leaf_kind
from ppo_agent.drivers import EpisodeStatistics
from ppo_agent.maths.schedules import Schedule, make_schedule
from ppo_agent.training import named_environments
from ppo_agent.training.collection import Collector
from ppo_agent.training.networks import make_networks
from ppo_agent.training.random_state import seed_everything
from ppo_agent.training.scheduled_value import ScheduledValue
from ppo_agent.training.settings import Settings

ADAM_EPSILON = 1e-5
# Added to a run's seed, so that it is evaluated in other episodes than those that it was trained in.
EVALUATION_SEED_OFFSET = 1_000_003


class Experiment(NamedTuple):
    """The parts of a run."""

    env: tf_environment.TFEnvironment
    agent: tf_agent.TFAgent
    optimizer: Any
    learning_rate: Schedule
    scheduled: tuple[ScheduledValue, ...]
    statistics: EpisodeStatistics
    collector: Collector


def build(env_name: str, settings: Settings, seed: int, steps_before: int = 0) -> Experiment:
    """Makes environments, networks, agent and collector.

    Args:
        env_name: see `environments.make_training_environment`.
        settings: hyper-parameters.
        seed: of everything that is random.
        steps_before: environment steps before a resume: gymnasium environments, which begin anew, do not begin with
            the same episodes again.

    Raises:
        TypeError: the environment or a setting is of no use for PPO.
        ValueError: likewise.
    """
    seed_everything(seed)
    env = named_environments.make_training_environment(
        env_name,
        num_environments=settings.num_environments,
        seed=seed + steps_before,
        vectorization=settings.vectorization,
        **settings.limits,
    )
    optimizer = tf.keras.optimizers.Adam(settings.learning_rate, epsilon=ADAM_EPSILON)
    scheduled = scheduled_values(settings)
    agent = make_agent(env, settings, optimizer, scheduled)
    statistics = EpisodeStatistics()
    collector = Collector(env, agent, settings, statistics)
    schedule = make_schedule(settings.learning_rate_schedule, settings.learning_rate)
    return Experiment(env, agent, optimizer, schedule, tuple(scheduled.values()), statistics, collector)


def scheduled_values(settings: Settings) -> dict[str, ScheduledValue]:
    """The agent's hyper-parameters that change over the run, by name."""
    names = ["entropy_regularization", *(["importance_ratio_clipping"] if settings.agent == "clip" else [])]
    schedules = {name: getattr(settings, f"{name}_schedule") for name in names}
    return {
        name: ScheduledValue(schedule, getattr(settings, name))
        for name, schedule in schedules.items()
        if schedule != "constant"
    }


def make_agent(
    env: tf_environment.TFEnvironment,
    settings: Settings,
    optimizer: Any,
    scheduled: Mapping[str, ScheduledValue] = MappingProxyType({}),
) -> tf_agent.TFAgent:
    """The agent that the settings describe, for an environment's specs; `scheduled` values beat those of the settings.

    Args:
        env: the environment.
        settings: hyper-parameters.
        optimizer: of both networks.
        scheduled: hyper-parameters that change, by name.
    """
    time_step_spec, action_spec = env.time_step_spec(), env.action_spec()
    actor_net, value_net = make_networks(time_step_spec.observation, action_spec, settings)
    keywords: dict[str, Any] = {
        "actor_net": actor_net,
        "value_net": value_net,
        "optimizer": optimizer,
        "num_epochs": settings.num_epochs,
        "minibatch_size": settings.rows_per_minibatch,
        "store_policy_state": settings.recurrent,
        "sequence_length": settings.sequence_length if settings.recurrent else None,
        "use_gae": True,
        "use_td_lambda_return": True,
        "lambda_value": settings.lambda_value,
        "discount_factor": settings.discount_factor,
        "entropy_regularization": settings.entropy_regularization,
        "value_pred_loss_coef": settings.value_pred_loss_coef,
        "gradient_clipping": settings.gradient_clipping,
        "value_clipping": settings.value_clipping,
        "target_kl": settings.target_kl,
        "normalize_observations": settings.normalize_observations,
        "normalize_rewards": settings.normalize_rewards,
        "normalize_rewards_by": settings.normalize_rewards_by,
        "reward_norm_clipping": 10.0,
        "max_skipped_steps": settings.max_skipped_steps,
        "train_step_counter": tf.Variable(0, dtype=tf.int64, name="train_step"),
    }
    if settings.agent == "kl_penalty":
        agent = PPOKLPenaltyAgent(
            time_step_spec,
            action_spec,
            initial_adaptive_kl_beta=1.0,
            adaptive_kl_target=0.01,
            adaptive_kl_tolerance=0.3,
            **{**keywords, **scheduled},
        )
    else:
        keywords["importance_ratio_clipping"] = settings.importance_ratio_clipping
        agent = PPOClipAgent(time_step_spec, action_spec, **{**keywords, **scheduled})
    agent.initialize()
    return agent


def general_preset(env_name: str) -> presets.Preset:
    """Settings for an environment without a preset, chosen from its spaces.

    Raises:
        ValueError: there is no such environment, or it is of no use for PPO.
    """
    with named_environments.make_environment(named_environments.gymnasium_name(env_name)) as env:
        actions, observations = tf.nest.flatten(env.action_spec()), tf.nest.flatten(env.observation_spec())
    return presets.general(
        continuous_actions=any(spec.dtype.is_floating for spec in actions),
        images=any(leaf_kind(spec) is LeafKind.IMAGE for spec in observations),
    )
