"""From what a user says to the settings of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import gymnasium
import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.trajectories import time_step as ts

from ppo_agent import PPOAgent, presets
from ppo_agent.common.observation_kinds import LeafKind, leaf_kind
from ppo_agent.common.types import Nest
from ppo_agent.config import PPOConfig
from ppo_agent.training import named_environments, preset_files, settings
from ppo_agent.training.named_environments import EnvLike
from ppo_agent.training.settings import Settings

# What a ready agent decides, and what of the rest concerns networks that are made for one.
_OF_NETWORKS = (
    "agent", "actor_fc_layers", "value_fc_layers", "shared_fc_layers", "activation", "layer_norm", "orthogonal_init",
    "initial_log_std", "state_dependent_std", "squash_actions", "shared_torso", "recurrent", "memory", "memory_units",
    "policy_output_gain", "actor_observation_keys", "value_observation_keys",
    "learning_rate", "learning_rate_schedule", "importance_ratio_clipping_schedule", "entropy_regularization_schedule",
    "value_clipping_schedule",
    "greedy_eval", "update_normalizers_in_train", "debug_summaries", "summarize_grads_and_vars", "nminibatches",
)  # fmt: skip
OF_AGENT = frozenset({*PPOConfig.__dataclass_fields__, *_OF_NETWORKS})


def choose(env: EnvLike, preset: str, given: Mapping[str, Any]) -> tuple[Settings, str]:
    """The settings of a run, and in words where they come from.

    Args:
        env: see `named_environments.make_training_environment`.
        preset: `auto`, `none`, the name of a preset, or a file, see `preset_files`.
        given: what the user set.

    Raises:
        ValueError: settings do not fit one another, or there is no such environment or preset.
    """
    preset_files.check(preset)
    settings.check_given(given)
    given = _sized(env, given)
    if preset_files.is_file(preset):
        return settings.combine(preset_files.read(preset).settings, given), f"preset {preset}"
    name = preset
    if preset == presets.AUTO:
        name = named_environments.gymnasium_name(env) if isinstance(env, str) else ""
    if (found := presets.find(name)) is not None:
        return settings.combine(found.settings, given), f"preset {presets.family(name)}"
    if preset == presets.NONE:
        return settings.combine({}, given), "no preset"
    return settings.combine(_general_preset(env).settings, given), "general settings"


def for_agent(agent: Any, env: EnvLike, given: Mapping[str, Any]) -> Settings:
    """The settings of a run with a ready agent, which decides its hyper-parameters itself.

    Raises:
        TypeError: it is no `PPOAgent`.
        ValueError: a setting that the agent decides was given, or others do not fit one another.
    """
    _check_is_agent(agent)
    if decided := sorted(OF_AGENT & set(given)):
        raise ValueError(f"{decided[0]} is given with a ready agent, expected it as a keyword of the agent.")
    # Given by none of the flags, and told by the agent itself where it is asked for.
    known = {"minibatch_size": agent._config.minibatch_size or 1}
    values = {**_sized(env, given), **known}
    if steps := agent._config.sequence_length:
        values |= {"recurrent": True, "sequence_length": steps, "minibatch_size": steps * known["minibatch_size"]}
    return settings.combine({}, values)


def with_changes(saved: Settings, given: Mapping[str, Any]) -> Settings:
    """Settings of a loaded run with others in place of some of them."""
    settings.check_given(given)
    return settings.combine(dataclasses.asdict(saved), given)


def _sized(env: EnvLike, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, with the number of environments that an object holds; raises ValueError if another was given."""
    size = _batch_size(env)
    if size is None:
        return dict(given)
    if (found := given.get("num_environments", size)) != size:
        raise ValueError(f"num_environments is {found}, expected {size}, the size of the environment given.")
    return {**given, "num_environments": size}


def _batch_size(env: EnvLike) -> int | None:
    """How many environments an object holds; None for what still has to be made."""
    if isinstance(env, tf_environment.TFEnvironment):
        return int(env.batch_size or 1)
    return env.num_envs if isinstance(env, gymnasium.vector.VectorEnv) else None


def _general_preset(env: EnvLike) -> presets.Preset:
    """Settings for an environment without a preset, chosen from its spaces.

    Raises:
        ValueError: there is no such environment, or it is of no use for PPO.
    """
    observation_spec, action_spec = _specs_of(env)
    return presets.general(
        continuous_actions=any(spec.dtype.is_floating for spec in tf.nest.flatten(action_spec)),
        images=any(leaf_kind(spec) is LeafKind.IMAGE for spec in tf.nest.flatten(observation_spec)),
    )


def _specs_of(env: EnvLike) -> tuple[Nest, Nest]:
    """The specs of observations and actions; an environment that is not ready is made for them, and closed."""
    if isinstance(env, tf_environment.TFEnvironment):
        return env.observation_spec(), env.action_spec()
    if isinstance(env, gymnasium.vector.VectorEnv):
        from ppo_agent.drivers.environments import spaces

        return spaces.observation_spec(env.single_observation_space), spaces.action_spec(env.single_action_space)
    name = named_environments.gymnasium_name(env) if isinstance(env, str) else env
    with named_environments.make_environment(name) as single:
        return single.observation_spec(), single.action_spec()


def made_for(env: EnvLike, make: Callable[[ts.TimeStep, Nest], PPOAgent]) -> PPOAgent:
    """The agent that a function makes for an environment, see `made_by`."""
    observation_spec, action_spec = _specs_of(env)
    return made_by(make, ts.time_step_spec(observation_spec), action_spec)


def made_by(make: Callable[[ts.TimeStep, Nest], PPOAgent], time_step_spec: ts.TimeStep, action_spec: Nest) -> PPOAgent:
    """The agent that a function makes of an environment's `time_step_spec` and `action_spec`.

    Raises:
        TypeError: it returns something else.
    """
    agent = make(time_step_spec, action_spec)
    _check_is_agent(agent)
    return agent


def _check_is_agent(agent: Any) -> None:
    if not isinstance(agent, PPOAgent):
        raise TypeError(f"agent is {type(agent).__name__}, expected a PPOAgent.")


def is_maker(agent: Any) -> TypeGuard[Callable[[ts.TimeStep, Nest], PPOAgent]]:
    """Whether it is a function that makes an agent."""
    return callable(agent) and not isinstance(agent, PPOAgent)


def sorted_out(agent: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The ready agent or the function that makes it, if there is one, and the settings given.

    The kind of the agent is one of the settings.

    Raises:
        ValueError: a setting is unknown.
    """
    if isinstance(agent, str):
        agent, given = None, {**given, "agent": agent}
    settings.check_names(given)
    return agent, given
