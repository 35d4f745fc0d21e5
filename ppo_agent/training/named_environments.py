"""From a name on the command line to environments."""

from __future__ import annotations

import difflib
import functools
from typing import Any

import gymnasium
from tf_agents.environments import tf_environment

from ppo_agent.common.environment_options import ATARI_PREFIX
from ppo_agent.drivers import GymnasiumEnvironment, TensorFlowEnvironment, TFAcrobot, TFCartPole, TFPendulum
from ppo_agent.drivers.ray_workers import cluster
from ppo_agent.drivers.ray_workers.remote_environments import RemoteEnvironments
from ppo_agent.drivers.vector_envs import atari, envpool, factory

# Atari games have a vectorised form of their own and no other.
_OF_GAMES = ("auto", "vector_entry_point")

# Environments in TensorFlow operations, each with the gymnasium environment whose dynamics it has.
_IN_TENSORFLOW: dict[str, tuple[type[TensorFlowEnvironment], str]] = {
    "TFCartPole": (TFCartPole, "CartPole-v1"),
    "TFPendulum": (TFPendulum, "Pendulum-v1"),
    "TFAcrobot": (TFAcrobot, "Acrobot-v1"),
}


# An id, a callable that makes an environment, a gymnasium vector environment, or a ready `TFEnvironment`.
EnvLike = Any


def make_training_environment(
    env_name: EnvLike, *, num_environments: int, seed: int, vectorization: str = "auto", **limits: Any
) -> tf_environment.TFEnvironment:
    """Makes the environments that an agent is to learn in.

    Args:
        env_name: `TFCartPole` and its like, which run in TensorFlow operations; or as `make_environment` takes it; or
            a ready `TFEnvironment`, which is returned.
        num_environments: how many.
        seed: of the first episodes.
        vectorization: see `GymnasiumEnvironment`; those in TensorFlow operations have no such choice.
        **limits: see `make_environment`; those in TensorFlow operations do not fail.

    Raises:
        ValueError: as `make_environment`.
    """
    if isinstance(env_name, tf_environment.TFEnvironment):
        return env_name
    if isinstance(env_name, str) and env_name in _IN_TENSORFLOW:
        return _IN_TENSORFLOW[env_name][0](num_environments=num_environments, seed=seed)
    return make_environment(
        env_name,
        num_environments=num_environments,
        seed=seed,
        vectorization=vectorization,
        is_training=True,
        **limits,
    )


def make_remote_environments(env_name: EnvLike, num_environments: int) -> RemoteEnvironments:
    """Makes what stands for environments in the workers of Ray, of an id of gymnasium's or a callable.

    Raises:
        ValueError: Ray is not installed, there is no such environment, or it is of no use for PPO or for workers.
    """
    own = isinstance(env_name, str) and (env_name in _IN_TENSORFLOW or env_name.startswith(envpool.PREFIX))
    if own or not is_recipe(env_name):
        raise ValueError(
            f"env_name is {env_name!r}, expected an id of gymnasium's or a callable with rollout_workers: they do not "
            "step environments that are vectorised by themselves."
        )
    if isinstance(env_name, str):
        check_is_known(env_name)
    try:
        cluster.load_ray()
    except ImportError as error:
        raise ValueError(str(error)) from error
    if isinstance(env_name, str) and env_name.startswith(ATARI_PREFIX):
        # A worker has one core.
        games = functools.partial(atari.make_atari_env, env_name, ends_with_life=True, num_threads=1)
        return factory.make_named(lambda: RemoteEnvironments(factory.Vectorised(games), num_environments), env_name)
    return RemoteEnvironments(env_name, num_environments)


def is_recipe(like: EnvLike) -> bool:
    """Whether environments are made from this, an id or a callable, a class for instance, rather than given ready."""
    return isinstance(like, (str, type)) or (callable(like) and not hasattr(like, "step"))


def gymnasium_name(env_name: str) -> str:
    """The gymnasium id of an environment, which has its preset, and in which its policies are evaluated."""
    return _IN_TENSORFLOW[env_name][1] if env_name in _IN_TENSORFLOW else env_name


def has_variables(env: tf_environment.TFEnvironment) -> bool:
    """Whether all of an environment's state is in variables, so that a checkpoint can hold it."""
    return isinstance(env, TensorFlowEnvironment)


def make_environment(
    env_name: EnvLike,
    *,
    num_environments: int = 1,
    seed: int | None = None,
    vectorization: str = "auto",
    is_training: bool = False,
    **limits: Any,
) -> GymnasiumEnvironment:
    """Makes the environments that a name stands for.

    Args:
        env_name: a gymnasium id, `envpool:` and a name of EnvPool's, a callable or a vector environment. Atari
            games (`ALE/Name-v5`) come with the preprocessing of `drivers.vector_envs.atari`.
        num_environments: how many.
        seed: of the first episodes.
        vectorization: see `GymnasiumEnvironment`.
        is_training: whether an agent learns in them, rather than being evaluated.
        **limits: `max_restarts`, `step_time_limit_s` and `invalid_steps` of `GymnasiumEnvironment`.

    Raises:
        ValueError: there is no such environment, a package is missing, or it is of no use for PPO.
    """
    if isinstance(env_name, str) and env_name.startswith(ATARI_PREFIX):
        if vectorization not in _OF_GAMES:
            raise ValueError(f"vectorization is {vectorization}, expected auto: Atari games are stepped in threads.")
        games = factory.make_named(
            lambda: atari.make_atari_env(env_name, num_environments, ends_with_life=is_training), env_name
        )
        return GymnasiumEnvironment(games, seed=seed, **limits)
    if isinstance(env_name, gymnasium.vector.VectorEnv):
        return GymnasiumEnvironment(env_name, seed=seed, **limits)
    if isinstance(env_name, str) and env_name.startswith(envpool.PREFIX) and envpool.is_game(env_name):
        limits = {"env_kwargs": {"episodic_life": is_training}, **limits}
    if isinstance(env_name, str):
        check_is_known(env_name)
    return GymnasiumEnvironment(
        env_name, num_environments=num_environments, seed=seed, vectorization=vectorization, **limits
    )


def check_is_known(env_name: str) -> None:
    """Raises ValueError for an id that nothing has registered, with the closest one that is, if there is one."""
    if ":" in env_name or env_name in gymnasium.registry:
        return
    family = env_name.rpartition("-v")[0] or env_name
    if any(spec.name.lower() == family.lower() and spec.name == family for spec in gymnasium.registry.values()):
        return  # Of another version: gymnasium tells which there are.
    known = {name.lower(): name for name in (*gymnasium.registry, *_IN_TENSORFLOW)}
    close = difflib.get_close_matches(env_name.lower(), known, n=1, cutoff=0.75)
    if close:
        raise ValueError(f"env_name is {env_name!r}, expected a registered id (did you mean {known[close[0]]}?).")
