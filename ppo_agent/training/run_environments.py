"""The environments of a run: those that it learns in, and those that it is evaluated in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tf_agents.environments import tf_environment

from ppo_agent.agent import PPOAgent
from ppo_agent.common.nest_checks import NestCheck
from ppo_agent.training import evaluation, named_environments
from ppo_agent.training.named_environments import EnvLike
from ppo_agent.training.settings import Settings

# Added to a run's seed, so that it is evaluated in other episodes than those that it was trained in.
EVALUATION_SEED_OFFSET = 1_000_003


def for_training(like: EnvLike, settings: Settings, seed: int) -> tf_environment.TFEnvironment:
    """The environments that an agent learns in, see `named_environments.make_training_environment`.

    Raises:
        ValueError: there is no such environment, or it is of no use for PPO.
    """
    if settings.rollout_workers:
        return named_environments.make_remote_environments(like, settings.num_environments)
    return named_environments.make_training_environment(
        like,
        num_environments=settings.num_environments,
        seed=seed,
        vectorization=settings.vectorization,
        **settings.limits,
    )


@contextlib.contextmanager
def for_evaluation(
    like: EnvLike, num_episodes: int, settings: Settings, seed: int
) -> Iterator[tf_environment.TFEnvironment]:
    """The environments for an evaluation of so many episodes; those that are made for it are closed behind the block.

    The seed is that of the run. Raises as `for_training`.
    """
    if not named_environments.is_recipe(like):
        yield named_environments.make_training_environment(like, num_environments=1, seed=seed)
        return
    name = named_environments.gymnasium_name(like) if isinstance(like, str) else like
    size = evaluation.num_environments(num_episodes)
    with named_environments.make_environment(
        name, num_environments=size, seed=seed + EVALUATION_SEED_OFFSET, **settings.limits
    ) as env:
        yield env


def check_fit(env: tf_environment.TFEnvironment, agent: PPOAgent) -> None:
    """Raises ValueError if an environment is of another kind than that an agent was made for."""
    for name, spec, expected in (
        ("observation", env.observation_spec(), agent.time_step_spec.observation),
        ("action", env.action_spec(), agent.action_spec),
    ):
        NestCheck(f"the environment's {name}", expected)(tf.nest.map_structure(_as_tensor_spec, spec))


def _as_tensor_spec(spec: Any) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, spec.dtype)
