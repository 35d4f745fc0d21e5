"""EnvPool: environments written in C++ and stepped in threads (Weng et al., 2022, https://arxiv.org/abs/2206.10558).

EnvPool 1.2.5 resets an environment in the step after an episode's end, whatever the action: that step has the new
episode's first observation, reward 0 and elapsed_step 0, which is gymnasium's NEXT_STEP. Where an episode terminates in
the very step in which it reaches its time limit, EnvPool reports the time limit alone, gymnasium both.

Its gymnasium interface spends about 8 us a step on conversions in Python. What lies beneath, `_send` and `_recv`, takes
and gives lists of arrays: on a busy machine a step of 8 CartPoles took 27 us in place of 35, one of 64 CartPoles 73 in
place of 81, one of 8 HalfCheetahs 296 in place of 345.
"""

from __future__ import annotations

import difflib
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from ppo_agent.common.limits import LARGEST_INT32
from ppo_agent.common.types import Array, Nest

from .autoreset import StepResult, take_spaces

PREFIX = "envpool:"
_NO_INFOS: dict[str, Any] = {}
_INFO = "info:"


def is_envpool(env: Any) -> bool:
    """Returns whether an object is EnvPool's, of any of its interfaces."""
    return any(base.__module__.startswith("envpool.python") for base in type(env).__mro__)


def make_envpool_env(name: str, num_environments: int, seed: int | None, **kwargs: Any) -> EnvPoolVectorEnv:
    """Makes environments by their name in EnvPool.

    Atari games are played as in `atari.make_atari_env`: an action is repeated with probability 0.25, rewards are not
    clipped, and the newest of the stacked frames comes last, [84, 84, 4].

    Args:
        name: For instance `HalfCheetah-v5`.
        num_environments: How many.
        seed: Of all of them; None for a random one.
        **kwargs: More keywords of `envpool.make_gymnasium`.

    Raises:
        ImportError: EnvPool is not installed.
        ValueError: EnvPool has no environment of that name.
        TypeError: EnvPool has no such keyword.
    """
    import envpool

    names = envpool.list_all_envs()
    if name not in names:
        similar = difflib.get_close_matches(name, names, n=3)
        hint = f"expected for instance {' or '.join(similar)}." if similar else "see envpool.list_all_envs()."
        raise ValueError(f"env_name is '{PREFIX}{name}', which EnvPool does not have, {hint}")
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    seed %= LARGEST_INT32 - num_environments
    plays = is_game(name)
    if plays:
        kwargs = {"repeat_action_probability": 0.25, **kwargs}
    return EnvPoolVectorEnv(envpool.make_gymnasium(name, num_envs=num_environments, seed=seed, **kwargs), plays)


def is_game(env_name: str) -> bool:
    """Returns whether a name of EnvPool's, with or without `PREFIX`, is that of an Atari game."""
    try:
        import envpool
    except ImportError:
        return False
    name = env_name.removeprefix(PREFIX)
    return name in envpool.list_all_envs() and "repeat_action_probability" in envpool.make_spec(name)._config_keys


class EnvPoolVectorEnv(VectorEnv):
    """An EnvPool object as a vector environment of batched spaces, with infos where an episode ends."""

    def __init__(self, pool: Any, channels_last: bool = False) -> None:
        """Takes what `envpool.make_gymnasium` has made, which is closed with this one.

        With `channels_last`, images [channels, height, width] become [height, width, channels].

        Raises:
            ValueError: It is of another interface, asynchronous, or for several players.
        """
        _check(pool)
        self._pool, self._channels_last = pool, channels_last
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*precision lowered by casting")  # Bounds are written as doubles.
            observation_space, action_space = pool.observation_space, pool.action_space
        if channels_last:
            observation_space = _channels_last_space(pool)
        take_spaces(self, pool.config["num_envs"], observation_space, action_space, pool)
        self._ids = np.arange(self.num_envs, dtype=np.int32)
        keys = list(pool._state_keys)
        self._reward, self._done, self._truncated = (keys.index(key) for key in ("reward", "done", "trunc"))
        self._observation = keys.index("obs") if "obs" in keys else None
        self._infos = {key.removeprefix(_INFO): i for i, key in enumerate(keys) if key.startswith(_INFO)}
        self._action_dtype = pool._spec._action_spec[-1][0]
        self._acts_on_arrays = len(pool._action_keys) == 3  # Numbers of environments, of players, and the action.

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Nest, dict[str, Any]]:
        """Resets all environments; the seed is the one that EnvPool was given when it made them."""
        del seed, options
        self._pool._reset(self._ids)
        return self._observations(self._pool._recv()), {}

    def step(self, actions: Nest) -> StepResult:
        """Steps all environments; those whose episode has ended are reset and ignore their action."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Nest) -> None:
        """Lets EnvPool's threads begin to step."""
        if self._acts_on_arrays:
            self._pool._send([self._ids, self._ids, np.ascontiguousarray(actions, self._action_dtype)])
        else:
            self._pool.send(actions, self._ids)

    def step_wait(self) -> StepResult:
        """Waits for the result of the step."""
        values = self._pool._recv()
        done, truncated = values[self._done], values[self._truncated]
        infos = {name: values[i] for name, i in self._infos.items()} if done.any() else _NO_INFOS
        return self._observations(values), values[self._reward], done & ~truncated, truncated, infos

    def _observations(self, values: list[Array]) -> Nest:
        if self._observation is None:
            return self._pool._to(values, True, True)[0]
        observation = values[self._observation]
        return np.moveaxis(observation, 1, -1) if self._channels_last else observation

    def render(self) -> Any:
        """Returns the frames of all environments."""
        return tuple(self._pool.render(self._ids))

    def close_extras(self, **_: Any) -> None:
        """Ends the threads, by letting go of the object."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def _check(pool: Any) -> None:
    if not any(base.__name__ == "GymnasiumEnvPoolMixin" for base in type(pool).__mro__):
        raise ValueError(f"env_name is a {type(pool).__name__}, expected an object that envpool.make_gymnasium made.")
    config = pool.config
    if pool.is_async:
        raise ValueError(
            f"batch_size of the EnvPool object is {config['batch_size']}, expected its num_envs, {config['num_envs']}: "
            "its asynchronous mode mixes steps of different times."
        )
    if config["max_num_players"] > 1:
        raise ValueError(f"max_num_players of the EnvPool object is {config['max_num_players']}, expected 1.")


def _channels_last_space(pool: Any) -> gym.spaces.Box:
    frames, height, width = pool.observation_space.shape
    return gym.spaces.Box(0, 255, (height, width, frames), np.uint8)
