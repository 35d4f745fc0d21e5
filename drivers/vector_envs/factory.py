"""Makes a `gymnasium.vector.VectorEnv` from an environment id, a callable or a ready vector environment."""

from __future__ import annotations

import functools
import importlib
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium.vector import VectorEnv

from ppo_agent.common.checks import check_int
from ppo_agent.common.environment_options import ATARI_PREFIX, VECTORIZATIONS

from . import envpool, processes
from .serial import RAISED, SerialVectorEnv, close_quietly


class Vectorised(NamedTuple):
    """Makes environments that are stepped together in a form of their own, as many as are asked for."""

    make: Callable[[int], VectorEnv]


EnvLike = str | Callable[..., gym.Env] | VectorEnv | Vectorised

# Extras of this package, by the modules that hold the environments.
_EXTRAS = {"gymnasium.envs.box2d": "box2d", "gymnasium.envs.mujoco": "mujoco", "ale_py": "atari", "envpool": "envpool"}
# Processes are taken from this wall time of a step on. They cost about 0.1 ms a step, so that they would pay somewhat
# earlier, but a simulator that is near the limit must not be run this way today and that way tomorrow.
WORTH_PROCESSES_S = 1e-3 / 2
_FEWEST_PROCESSES = 4
_MEASURED_STEPS = 9
# Fewer CartPoles step faster one by one: 1, 2, 4, 8 and 32 took 33, 55, 93, 181 and 604 us a vector step on a busy
# machine, gymnasium's vectorised form 87, 72, 86, 76 and 103 us.
_WORTH_VECTORISING = 4


def make_vector_env(
    env: EnvLike,
    num_environments: int,
    vectorization: str,
    env_kwargs: Mapping[str, Any] | None,
    step_time_limit_s: float | None = None,
    one_by_one: bool = False,
    seed: int | None = None,
) -> VectorEnv:
    """Returns a vector environment of `num_environments` copies of `env`.

    Args:
        env: A gymnasium id (`module:Name-v0` included), `envpool:` and a name of EnvPool's, a callable that returns a
            `gymnasium.Env`, a `Vectorised`, whatever `vectorization` says, a ready `VectorEnv`, which is returned as it
            is, or a ready EnvPool object.
        num_environments: How many copies.
        vectorization: One of `VECTORIZATIONS`. 'auto' is 'sync' for fewer than 4 environments and for a callable; else
            it takes the environment's own vectorised form if the registry has one with the same spaces, else 'async' on
            a machine with several cores if a step takes half a millisecond or more (the median of 9 in an environment
            that is then closed), else 'sync'.
        env_kwargs: Keyword arguments of the environment.
        step_time_limit_s: Of environments in processes, see `processes.make_process_env`.
        seed: Of EnvPool's environments, which are seeded when they are made; the others are in `reset`.
        one_by_one: 'auto' does not take the environment's own vectorised form, in which one cannot be reset alone.

    Raises:
        TypeError: `env` is none of these.
        ValueError: An argument does not fit, the id is unknown, or a package that it needs is not installed.
    """
    _check_arguments(num_environments, vectorization)
    if env_kwargs is not None and not isinstance(env_kwargs, Mapping):
        raise TypeError(f"env_kwargs is {env_kwargs!r}, expected a dict of keyword arguments.")
    kwargs = dict(env_kwargs or {})
    if isinstance(env, Vectorised):
        return env.make(num_environments)
    if envpool.is_envpool(env):
        env = _ready_pool(env, seed)
    if isinstance(env, VectorEnv):
        return _ready(env, num_environments, vectorization, kwargs)
    if isinstance(env, str) and env.startswith(envpool.PREFIX):
        return _from_envpool(env, num_environments, vectorization, kwargs, seed)
    if isinstance(env, str):
        return _from_id(env, num_environments, vectorization, kwargs, step_time_limit_s, one_by_one)
    if not callable(env):
        raise TypeError(
            f"env_name is {env!r}, expected a gymnasium id, a callable that returns a gymnasium.Env, or a "
            "gymnasium.vector.VectorEnv."
        )
    if vectorization == "vector_entry_point":
        raise ValueError("vectorization is 'vector_entry_point', which needs a gymnasium id, found a callable.")
    return _from_callable(functools.partial(env, **kwargs), num_environments, vectorization, step_time_limit_s)


def _check_arguments(num_environments: int, vectorization: str) -> None:
    check_int("num_environments", num_environments)
    if vectorization not in VECTORIZATIONS:
        raise ValueError(f"vectorization is {vectorization!r}, expected one of {', '.join(VECTORIZATIONS)}.")


def _ready(env: VectorEnv, num_environments: int, vectorization: str, kwargs: dict[str, Any]) -> VectorEnv:
    """Checks that nothing is asked for that a ready vector environment has decided already."""
    if num_environments not in (1, env.num_envs):
        raise ValueError(f"num_environments is {num_environments}, but the vector environment has {env.num_envs}.")
    if vectorization != "auto" or kwargs:
        raise ValueError("vectorization and env_kwargs have no meaning for a ready vector environment, leave them out.")
    return env


def _ready_pool(pool: Any, seed: int | None) -> VectorEnv:
    if seed is not None and seed != (own := pool.config["seed"]):
        raise ValueError(f"seed is {seed}, expected None or {own}: the EnvPool object was made with that one.")
    return envpool.EnvPoolVectorEnv(pool)


def _from_envpool(
    env_id: str, num_environments: int, vectorization: str, kwargs: dict[str, Any], seed: int | None
) -> VectorEnv:
    if vectorization not in ("auto", "vector_entry_point"):
        raise ValueError(f"vectorization is {vectorization!r}, expected auto: EnvPool steps environments in threads.")
    name = env_id.removeprefix(envpool.PREFIX)
    return make_named(functools.partial(envpool.make_envpool_env, name, num_environments, seed, **kwargs), env_id)


def _from_id(
    env_id: str,
    num_environments: int,
    vectorization: str,
    kwargs: dict[str, Any],
    limit: float | None,
    one_by_one: bool,
) -> VectorEnv:
    """Makes the vector environment of a registered id."""
    scalar = make_named(functools.partial(gym.make, env_id, **kwargs), env_id)
    if vectorization == "vector_entry_point" or (vectorization == "auto" and not one_by_one):
        vectorised = functools.partial(
            gym.make_vec, env_id, num_envs=num_environments, vectorization_mode="vector_entry_point", **kwargs
        )
        if vectorization == "vector_entry_point":
            close_quietly(scalar)
            return make_named(vectorised, env_id)
        if num_environments >= _WORTH_VECTORISING and (env := _equivalent(scalar, vectorised)) is not None:
            close_quietly(scalar)
            return env
    make = functools.partial(gym.make, env_id, **kwargs)
    if vectorization == "auto" and num_environments >= _FEWEST_PROCESSES and processes.num_cores() > 1:
        if step_seconds(scalar) >= WORTH_PROCESSES_S:
            vectorization = "async"
        else:
            close_quietly(scalar)  # It has been stepped, which must not be seen.
            scalar = make()
    # The worker processes of 'async' make their own environments; 'sync' uses the one at hand as its first.
    if vectorization == "async":
        close_quietly(scalar)
        return _from_callable(make, num_environments, "async", limit)
    return SerialVectorEnv([make] * num_environments, scalar)


def step_seconds(env: gym.Env) -> float:
    """The median wall time of a step in seconds, over a few random ones; 0 where random actions do not work."""
    seconds = []
    try:
        env.reset()
        for _ in range(_MEASURED_STEPS):
            action, start = env.action_space.sample(), time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            seconds.append(time.perf_counter() - start)
            if terminated or truncated:
                env.reset()
    except RAISED:  # Whatever it is, it is raised again where the user steps the environment.
        return 0.0
    return statistics.median(seconds)


def _equivalent(scalar: gym.Env, vectorised: Callable[[], VectorEnv]) -> VectorEnv | None:
    """Returns the environment's own vectorised form, None if there is none or its spaces are other ones."""
    if scalar.spec is None or scalar.spec.vector_entry_point is None or scalar.spec.additional_wrappers:
        return None
    try:
        env = vectorised()
    except (gym.error.Error, ImportError, TypeError):  # It lacks a package or a keyword that the scalar form has.
        return None
    same = (env.single_observation_space, env.single_action_space) == (scalar.observation_space, scalar.action_space)
    if not same:
        env.close()
    return env if same else None


def _from_callable(
    make: Callable[[], gym.Env], num_environments: int, vectorization: str, limit: float | None
) -> VectorEnv:
    """Makes `num_environments` from a function of no arguments.

    The observations are not copied here, because the caller copies them when it casts them.
    """
    if vectorization == "async":
        with warnings.catch_warnings():
            # The worker processes step environments and never touch TensorFlow, so that its threads do no harm.
            warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
            return processes.make_process_env(make, num_environments, limit)
    first = make()
    if not isinstance(first, gym.Env):
        raise TypeError(f"the callable given as env_name returned {first!r}, expected a gymnasium.Env.")
    return SerialVectorEnv([make] * num_environments, first)


def make_named(make: Callable[[], Any], env_id: str) -> Any:
    """Calls a function that makes a gymnasium environment and says in one sentence what is wrong with its id."""
    try:
        if env_id.startswith(ATARI_PREFIX):
            importlib.import_module("ale_py")  # Registers the names.
        return make()
    except (gym.error.Error, ImportError) as error:
        raise ValueError(f"env_name is {env_id!r}, {_reason(env_id, error)}") from error
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(f"env_kwargs do not fit env_name {env_id!r}: {_first_sentence(error)}") from error


def _reason(env_id: str, error: Exception) -> str:
    """Returns the end of the sentence 'env_name is X, ...'."""
    if isinstance(error, (gym.error.DependencyNotInstalled, ModuleNotFoundError)) and (extra := _extra(env_id)):
        return f'which needs a package that is not installed: run pip install "ppo-agent[{extra}]".'
    if isinstance(error, (gym.error.DependencyNotInstalled, ImportError)):
        where = ""
        if isinstance(error, ModuleNotFoundError) and ":" in env_id:
            where = " (modules are looked for in the current folder, on PYTHONPATH and among what is installed)"
        return f"which cannot be imported: {_first_sentence(error).rstrip('.')}{where}."
    return f"expected an environment that gymnasium knows: {_first_sentence(error)}"


def _extra(env_id: str) -> str | None:
    """Returns this package's extra that the environment needs, None if none of them is of use."""
    for prefix, module in ((ATARI_PREFIX, "ale_py"), (envpool.PREFIX, "envpool")):
        if env_id.startswith(prefix):
            return _EXTRAS[module]
    spec = gym.registry.get(env_id.rpartition(":")[2])
    entry_point = spec.entry_point if spec and isinstance(spec.entry_point, str) else ""
    return next((extra for module, extra in _EXTRAS.items() if entry_point.startswith(module)), None)


def _first_sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0].split(". ")[0].rstrip(".") + "."
