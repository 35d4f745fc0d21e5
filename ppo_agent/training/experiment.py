"""The agent and the optimiser of a run, from its settings and the environment's specs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.trajectories import TimeStep

from ppo_agent import PPOAgent, PPOClipAgent, PPOKLPenaltyAgent
from ppo_agent.common.types import Nest
from ppo_agent.config import PPOConfig
from ppo_agent.training.networks import make_networks, use_uniform_kernels
from ppo_agent.training.scheduled_value import ScheduledValue
from ppo_agent.training.settings import FIELDS, OF_VARIANT, Settings

ADAM_EPSILON = 1e-5
_RATE = "learning_rate"
# Keywords of the agents that are settings of the same name and the same meaning.
_OTHERS = ("greedy_eval", "update_normalizers_in_train", "debug_summaries", "summarize_grads_and_vars")
_SAME = [name for name in (*PPOConfig.__dataclass_fields__, *_OTHERS) if name in FIELDS]
_OF_SEQUENCES = ("minibatch_size", "store_policy_state", "sequence_length")


class Learner(NamedTuple):
    """An agent and what changes over its run.

    Attributes:
        agent: the agent.
        optimizer: whose learning rate may follow a schedule; None for a ready agent, which keeps its own.
        scheduled: what follows a schedule, by name: hyper-parameters of the agent, and `learning_rate`.
    """

    agent: tf_agent.TFAgent
    optimizer: Any = None
    scheduled: Mapping[str, ScheduledValue] = MappingProxyType({})

    def update_schedules(self, share_done: float) -> None:
        """Sets what follows a schedule for the share of the run that is done, in [0, 1]."""
        for name, value in self.scheduled.items():
            value.update(share_done)
            if name == _RATE:
                self.optimizer.learning_rate = value()


def make_learner(time_step_spec: TimeStep, action_spec: Nest, settings: Settings) -> Learner:
    """The agent that the settings describe, with its optimiser and schedules.

    Args:
        time_step_spec: of the environment.
        action_spec: of the environment.
        settings: hyper-parameters.

    Raises:
        TypeError: the environment or a setting is of no use for PPO.
        ValueError: likewise.
    """
    optimizer = tf.keras.optimizers.Adam(settings.learning_rate, epsilon=ADAM_EPSILON)
    scheduled = scheduled_values(settings)
    of_agent = {name: value for name, value in scheduled.items() if name != _RATE}
    agent = make_agent(time_step_spec, action_spec, settings, optimizer, of_agent)
    return Learner(agent, optimizer, scheduled)


def scheduled_values(settings: Settings) -> dict[str, ScheduledValue]:
    """What changes over the run, by name."""
    names = [_RATE, "entropy_regularization", *(["value_clipping"] if settings.value_clipping else [])]
    names += ["importance_ratio_clipping"] if settings.agent == "clip" else []
    schedules = {name: getattr(settings, f"{name}_schedule") for name in names}
    return {
        name: ScheduledValue(schedule, getattr(settings, name))
        for name, schedule in schedules.items()
        if schedule != "constant"
    }


def make_agent(
    time_step_spec: TimeStep,
    action_spec: Nest,
    settings: Settings,
    optimizer: Any,
    scheduled: Mapping[str, ScheduledValue] = MappingProxyType({}),
) -> PPOAgent:
    """The agent that the settings describe; `scheduled` values beat those of the settings.

    Args:
        time_step_spec: of the environment.
        action_spec: of the environment.
        settings: hyper-parameters.
        optimizer: of both networks.
        scheduled: hyper-parameters that change, by name.
    """
    actor_net, value_net = make_networks(time_step_spec.observation, action_spec, settings)
    keywords = {**_keywords(settings), **scheduled}
    make = PPOClipAgent if settings.agent == "clip" else PPOKLPenaltyAgent
    agent = make(
        time_step_spec,
        action_spec,
        optimizer=optimizer,
        actor_net=actor_net,
        value_net=value_net,
        train_step_counter=tf.Variable(0, dtype=tf.int64, name="train_step"),
        **keywords,
    )
    if not settings.orthogonal_init:
        use_uniform_kernels(actor_net, value_net)
    agent.initialize()
    return agent


def _keywords(settings: Settings) -> dict[str, Any]:
    """The agent's keywords that are settings."""
    values = dataclasses.asdict(settings)
    of_other = OF_VARIANT["kl_penalty" if settings.agent == "clip" else "clip"]
    keywords = {name: values[name] for name in _SAME if name not in (*of_other, *_OF_SEQUENCES)}
    stores_state = settings.recurrent and settings.store_policy_state
    return {
        **keywords,
        "minibatch_size": settings.rows_per_minibatch,
        "store_policy_state": stores_state,
        "sequence_length": settings.sequence_length if stores_state else None,
    }
