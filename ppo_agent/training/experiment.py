"""The agent and the optimiser of a run, from its settings and the environment's specs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.trajectories import TimeStep

from ppo_agent import PPOAgent, PPOClipAgent, PPOKLPenaltyAgent
from ppo_agent.checkpoint import spec_codes
from ppo_agent.checkpoint.variables import named_variables
from ppo_agent.common.types import Nest
from ppo_agent.config import PPOConfig
from ppo_agent.learner import optimizers
from ppo_agent.learner.legacies import Heir
from ppo_agent.maths.schedules import make_schedule
from ppo_agent.training.networks import make_networks, use_uniform_kernels
from ppo_agent.training.setting_rules import OF_VARIANT
from ppo_agent.training.settings import FIELDS, Settings

ADAM_EPSILON = 1e-5
_RATE = "learning_rate"
# Keywords of the agents that are settings of the same name and the same meaning.
_OTHERS = ("greedy_eval", "update_normalizers_in_train", "debug_summaries", "summarize_grads_and_vars")
_SAME = [name for name in (*PPOConfig.__dataclass_fields__, *_OTHERS) if name in FIELDS]
# What an update is not traced with: values of variables, and what happens around it.
_NOT_TRACED = (
    _RATE, "total_environment_steps", "num_environments", "vectorization", "max_environment_restarts",
    "step_time_limit_s", "invalid_steps", "collect_episodes_per_iteration", "collect_steps_per_iteration",
    "num_threads", "eval_interval", "num_eval_episodes", "checkpoint_interval", "checkpoints_kept", "log_interval",
)  # fmt: skip
_OF_SEQUENCES = ("minibatch_size", "store_policy_state", "sequence_length")


class ScheduledValue:
    """A hyper-parameter that follows a schedule: the agent calls it, the training loop updates it."""

    def __init__(self, name: str, first: float) -> None:
        """Takes what `make_schedule` takes."""
        self._schedule = make_schedule(name, first)
        self._value = self._schedule(0.0)

    def __call__(self) -> float:
        """Returns the value in force."""
        return self._value

    def update(self, done: float) -> None:
        """Sets the value for the share of the run that is done, in [0, 1]."""
        self._value = self._schedule(done)


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

    def close(self) -> None:
        """Leaves what was compiled to an equal agent; the agent can be used further, if it has to be."""
        close = getattr(self.agent._run_update, "close", None)
        if close is not None:
            close()

    def update_schedules(self, share_done: float) -> None:
        """Sets what follows a schedule for the share of the run that is done, in [0, 1]."""
        for name, value in self.scheduled.items():
            value.update(share_done)
            if name == _RATE:
                self.optimizer.learning_rate = value()


def make_learner(time_step_spec: TimeStep, action_spec: Nest, settings: Settings) -> Learner:
    """The agent that settings describe for an environment's specs, with its optimiser and schedules.

    Raises:
        TypeError: the environment or a setting is of no use for PPO.
        ValueError: likewise.
    """
    optimizer = tf.keras.optimizers.Adam(settings.learning_rate, epsilon=ADAM_EPSILON)
    scheduled = scheduled_values(settings)
    of_agent = {name: value for name, value in scheduled.items() if name != _RATE}
    agent = make_agent(time_step_spec, action_spec, settings, optimizer, of_agent)
    key = _key_of_update(time_step_spec, action_spec, settings)
    agent._run_update.heir = Heir(key, lambda: _variables(agent))
    return Learner(agent, optimizer, scheduled)


def _key_of_update(time_step_spec: TimeStep, action_spec: Nest, settings: Settings) -> Hashable:
    """What the update of an agent depends on that these describe, beside the values of variables."""
    specs = [spec_codes.encode(spec) for spec in (time_step_spec.observation, action_spec)]
    scalars = repr((time_step_spec.reward, time_step_spec.discount, time_step_spec.step_type))
    keras = tf.keras.backend.floatx(), tf.keras.mixed_precision.global_policy().name
    values = dataclasses.asdict(settings)
    traced = tuple((name, value) for name, value in values.items() if name not in _NOT_TRACED)
    return json.dumps(specs), scalars, keras, tf.config.functions_run_eagerly(), traced


def _variables(agent: PPOAgent) -> dict[str, tf.Variable]:
    """All that an update reads or changes, by names that equal agents have in common."""
    slots = enumerate(optimizers.variables(agent._optimizer))
    return named_variables(agent) | {f"optimizer/{index}": variable for index, variable in slots}


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
    """The agent that settings describe for an environment's specs; `scheduled` values by name beat the settings."""
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
