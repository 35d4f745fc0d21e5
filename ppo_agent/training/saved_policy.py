"""Exported policies at work."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from google.protobuf import message
from tensorflow.core.protobuf import saved_model_pb2
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import StepType
from tf_agents.utils import nest_utils

from ppo_agent.common.environment_options import ATARI_PREFIX
from ppo_agent.common.types import Nest
from ppo_agent.drivers import GymnasiumEnvironment
from ppo_agent.training import named_environments, videos
from ppo_agent.training.command_line import one_line
from ppo_agent.training.evaluation import Act, num_environments


def make_environment(env_name: str, num_episodes: int, seed: int, video_dir: str) -> GymnasiumEnvironment:
    """The environments to evaluate in; a single one that records its episodes if a folder for videos is given.

    Raises:
        ValueError: there is no such environment, or it cannot be recorded.
    """
    env_name = named_environments.gymnasium_name(env_name)
    if not video_dir:
        return named_environments.make_environment(env_name, num_environments=num_environments(num_episodes), seed=seed)
    with named_environments.make_environment(env_name):  # For its messages.
        pass
    if env_name.startswith(ATARI_PREFIX):
        raise ValueError(f"video_dir is given, expected another env_name than {env_name!r}: games are not recorded.")
    return GymnasiumEnvironment(functools.partial(_recorded, env_name, video_dir), seed=seed)


def _recorded(env_name: str, video_dir: str) -> gymnasium.Env:
    try:
        env = gymnasium.make(env_name, render_mode="rgb_array")
        return videos.Recorder(env, video_dir)
    except (ValueError, TypeError, AssertionError, gymnasium.error.Error) as error:
        raise ValueError(
            f"video_dir is given, expected an env_name that renders 'rgb_array': {one_line(str(error))}"
        ) from error


def load(directory: Path, env: GymnasiumEnvironment) -> Act:
    """A function that acts in an environment as a policy does that `export_policy` wrote.

    Raises:
        ValueError: the folder holds something else or names that lead out of it, or the policy does not fit the
            environment.
    """
    check_inside(directory)
    try:
        policy = tf.saved_model.load(str(directory))
    except (OSError, ValueError, tf.errors.OpError, KeyError, IndexError) as error:
        raise ValueError(f"policy_dir is {str(directory)!r}, which cannot be loaded: {one_line(str(error))}") from error
    if not callable(getattr(policy, "action", None)) or "action" not in policy.signatures:
        raise ValueError(f"policy_dir is {str(directory)!r}, expected what export_policy writes: it has no 'action'.")
    act = _SavedAct(policy, env.batch_size)
    _check_fit(act, directory, env)
    return act


def check_inside(directory: Path) -> None:
    """Raises ValueError if loading would read files outside of the folder: by links, or by names of assets."""
    inside = directory.resolve()
    graphs = saved_model_pb2.SavedModel()
    try:
        graphs.ParseFromString((directory / "saved_model.pb").read_bytes())
    except (message.DecodeError, OSError) as error:
        raise ValueError(
            f"policy_dir is {str(directory)!r}, which cannot be loaded: saved_model.pb is damaged."
        ) from error
    assets = [asset.filename for graph in graphs.meta_graphs for asset in graph.asset_file_def]
    for path in (*directory.rglob("*"), *(directory / "assets" / name for name in assets)):
        if not path.resolve().is_relative_to(inside):
            raise ValueError(f"policy_dir is {str(directory)!r}, but {path.name} in it leads to {path.resolve()}.")


def _check_fit(act: _SavedAct, directory: Path, env: GymnasiumEnvironment) -> None:
    # Not the environment's own first step: it would lose the seed, and be recorded.
    zeros = tensor_spec.zero_spec_nest(env.time_step_spec(), outer_dims=[env.batch_size])
    try:
        found = act(tf.nest.map_structure(lambda tensor: tensor.numpy(), zeros))
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        shapes = tf.nest.map_structure(np.shape, env.time_step_spec().observation)
        raise ValueError(
            f"policy_dir is {str(directory)!r}, whose policy does not take the environment's observations {shapes}."
        ) from error
    expected = env.action_spec()
    try:
        tf.nest.assert_same_structure(found, expected)
        fits = all(
            a.shape[1:] == tuple(s.shape) and a.dtype == s.dtype.as_numpy_dtype
            for a, s in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True)
        )
    except (ValueError, TypeError):
        fits = False
    if not fits:
        raise ValueError(f"policy_dir is {str(directory)!r}, whose policy's actions do not fit the environment's.")


class _SavedAct:
    """Calls an exported policy and keeps the state of a recurrent one."""

    def __init__(self, policy: Any, batch_size: int) -> None:
        self._policy, self._batch_size = policy, batch_size
        self._is_recurrent = hasattr(policy, "initial_state")
        self._state: Nest = policy.initial_state(tf.constant(batch_size)) if self._is_recurrent else ()
        given, named = policy.action.concrete_functions[0].structured_input_signature
        self._spec = given[0] if given else named["observation"]

    def __call__(self, time_step: Any) -> Nest:
        # A policy may ask for less than the environment observes.
        seen = nest_utils.prune_extra_keys(self._spec, time_step.observation)
        observation = tf.nest.map_structure(tf.constant, seen)
        if self._is_recurrent:
            self._state = self._policy.reset_state(self._state, tf.constant(time_step.step_type == StepType.FIRST))
            action, self._state = self._policy.action(observation, self._state)
        else:
            action = self._policy.action(observation)
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), action)
