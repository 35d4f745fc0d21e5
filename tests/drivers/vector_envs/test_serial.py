"""Environments one after the other, against gymnasium's SyncVectorEnv."""

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import SyncVectorEnv

from ppo_agent.drivers.faults.faults import FAULTS
from ppo_agent.drivers.vector_envs.serial import SerialVectorEnv

_IMAGE = Box(0, 255, (2, 3), np.uint8)
SPACES: list[tuple[gym.Space, gym.Space]] = [
    (Box(-1, 1, (3,), np.float32), Discrete(3)),
    (Box(-1, 1, (2, 2), np.float64), Box(-1, 1, (2,), np.float32)),
    (Discrete(5), MultiDiscrete([2, 3])),
    (MultiDiscrete([4, 2]), MultiBinary(3)),
    (MultiBinary(4), Discrete(2, start=3)),
    (_IMAGE, Tuple((Discrete(2), Box(0, 1, (1,))))),
    (Dict({"b": _IMAGE, "a": Discrete(3)}), Dict({"y": Discrete(2), "x": Box(0, 1, (2,))})),
    (Tuple((Box(-1, 1, (2,)), Dict({"c": MultiBinary(2)}))), MultiDiscrete([2, 2])),
]


class Sampler(gym.Env):
    """Observations from its space, episodes of random length, a reward that tells which action it was given."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space) -> None:
        self.observation_space, self.action_space = copy.deepcopy((observation_space, action_space))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {"start": True}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        reward = float(np.sum(gym.spaces.flatten(self.action_space, action) * np.arange(1, 1 + self._size)))
        ends = self.np_random.random(2) < 0.2
        return self.observation_space.sample(), reward, bool(ends[0]), bool(ends[1]), {"more": 1}

    @property
    def _size(self) -> int:
        return gym.spaces.flatdim(self.action_space)


def _assert_equal(actual: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        actual, expected = tuple(actual.values()), tuple(expected.values())
    if isinstance(expected, tuple):
        for a, e in zip(actual, expected, strict=True):
            _assert_equal(a, e)
        return
    np.testing.assert_array_equal(actual, expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)


@pytest.mark.parametrize("num_environments", [1, 3])
@pytest.mark.parametrize("spaces", SPACES, ids=str)
def test_steps_as_gymnasium_does(spaces: tuple[gym.Space, gym.Space], num_environments: int) -> None:
    makes: list[Callable[[], gym.Env]] = [lambda: Sampler(*spaces)] * num_environments
    env, expected = SerialVectorEnv(makes), SyncVectorEnv(makes)
    _assert_equal(env.reset(seed=5)[0], expected.reset(seed=5)[0])
    env.action_space.seed(1)
    num_ends = 0
    for _ in range(40):
        action = env.action_space.sample()
        actual, wanted = env.step(action), expected.step(action)
        _assert_equal(actual[:4], wanted[:4])
        num_ends += int(np.count_nonzero(actual[2] | actual[3]))
    assert num_ends > 5
    _assert_equal(env.reset()[0], expected.reset()[0])


class Misshapen(Sampler):
    """Returns a number where a vector is expected."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.float32(0.5), *super().step(action)[1:]


def test_an_observation_of_another_shape_is_not_broadcast() -> None:
    env = SerialVectorEnv([lambda: Misshapen(*SPACES[0])] * 2)
    env.reset(seed=0)
    faults = env.step(np.zeros(2, np.int64))[-1][FAULTS]
    assert list(faults) == [0, 1]
    assert "gave an invalid observation, an array of shape (), expected shape" in faults[0].text


def test_rewards_and_flags_are_not_changed_by_later_steps() -> None:
    env = SerialVectorEnv([lambda: Sampler(*SPACES[0])] * 2)
    env.reset(seed=0)
    results = [env.step(np.array([step % 3, 2]))[1:4] for step in range(6)]
    kept = [[value.copy() for value in result] for result in results]
    env.step(np.zeros(2, np.int64))
    for result, before in zip(results, kept, strict=True):
        _assert_equal(result, tuple(before))
    assert [result[0][0] for result in results[:3]] != [results[0][0][0]] * 3
