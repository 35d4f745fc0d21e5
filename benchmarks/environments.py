"""Environments of the benchmarks that gymnasium does not have."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.workloads import Workload

IMAGE_SHAPE, IMAGE_ACTIONS = (84, 84, 4), 6
VECTOR_SIZE, ACTION_SIZE = 17, 6


class Slow(gym.Wrapper):
    """An environment whose steps cost processor time."""

    def __init__(self, env: gym.Env, seconds: float) -> None:
        """Wraps `env`; each step takes `seconds` more of processor time."""
        super().__init__(env)
        self._seconds = seconds

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Works, then steps."""
        end = time.thread_time() + self._seconds
        while time.thread_time() < end:
            pass
        return self.env.step(action)


def make_slow(env_name: str, seconds: float) -> gym.Env:
    """Makes one slow environment."""
    return Slow(gym.make(env_name), seconds)


def maker(workload: Workload) -> Callable[[], gym.Env]:
    """A function that makes one environment of the workload."""
    if workload.env_name is None:
        return functools.partial(Stub, workload.images)
    if workload.step_cost_s:
        return functools.partial(make_slow, workload.env_name, workload.step_cost_s)
    return functools.partial(gym.make, workload.env_name)


class Stub(gym.Env):
    """Has the spaces of a learner-only workload; peers that cannot do without an environment are given it."""

    def __init__(self, images: bool) -> None:
        """Makes the spaces."""
        self.observation_space = self._space = _observation_space(images)
        self.action_space = (
            gym.spaces.Discrete(IMAGE_ACTIONS) if images else gym.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Returns zeros."""
        super().reset(seed=seed, options=options)
        return np.zeros(self._space.shape, self._space.dtype), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Returns zeros."""
        del action
        return np.zeros(self._space.shape, self._space.dtype), 0.0, False, False, {}


def _observation_space(images: bool) -> gym.spaces.Box:
    if images:
        return gym.spaces.Box(0, 255, IMAGE_SHAPE, np.uint8)
    return gym.spaces.Box(-np.inf, np.inf, (VECTOR_SIZE,), np.float32)


def random_observations(workload: Workload, rng: np.random.Generator, *outer: int) -> np.ndarray:
    """Observations [*outer, ...] of a learner-only workload."""
    if workload.images:
        return rng.integers(0, 256, (*outer, *IMAGE_SHAPE), dtype=np.uint8)
    return rng.standard_normal((*outer, VECTOR_SIZE), dtype=np.float32)


def random_actions(workload: Workload, rng: np.random.Generator, *outer: int) -> np.ndarray:
    """Actions [*outer, ...] of a learner-only workload."""
    if workload.images:
        return rng.integers(0, IMAGE_ACTIONS, outer)
    return rng.standard_normal((*outer, ACTION_SIZE), dtype=np.float32)


class PositionsAndVelocities(gym.ObservationWrapper):
    """A MuJoCo environment whose observation is a mapping of `position` and `velocity`, for actors that see one."""

    def __init__(self, env: gym.Env) -> None:
        """Wraps an environment whose last `nv` entries of the observation are the velocities."""
        super().__init__(env)
        space, model = env.observation_space, getattr(env.unwrapped, "model", None)
        if not isinstance(space, gym.spaces.Box) or model is None:
            raise ValueError(f"env is {env}, expected one of MuJoCo's.")
        nv = self._velocities = model.nv
        low, high = space.low, space.high
        parts = {"position": (low[:-nv], high[:-nv]), "velocity": (low[-nv:], high[-nv:])}
        self.observation_space = gym.spaces.Dict({name: gym.spaces.Box(*part) for name, part in parts.items()})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """Cuts the observation in two."""
        position, velocity = np.split(observation.astype(np.float32), [-self._velocities])
        return {"position": position, "velocity": velocity}


def make_parts(env_name: str, **keywords: Any) -> gym.Env:
    """Makes an environment with positions and velocities apart."""
    return PositionsAndVelocities(gym.make(env_name, **keywords))


for _name in ("HalfCheetah", "Hopper"):
    _maker = functools.partial(make_parts, f"{_name}-v5")
    gym.register(f"{_name}Parts-v5", _maker, max_episode_steps=1000, disable_env_checker=True)
