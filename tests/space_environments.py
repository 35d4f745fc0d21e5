"""Environments of every kind of space, registered as `space_environments:OBSERVATION-ACTION-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

VECTOR = spaces.Box(-2.0, 2.0, [3])
IMAGE = spaces.Box(0, 255, [16, 16, 3], np.uint8)

OBSERVATIONS = {
    "vector": VECTOR,
    "scalar": spaces.Box(-1.0, 1.0, []),
    "matrix64": spaces.Box(-np.inf, np.inf, [2, 3], np.float64),
    "bytes": spaces.Box(0, 255, [5], np.uint8),
    "integers": spaces.Box(-1000, 1000, [2, 2], np.int32),
    "image": IMAGE,
    "frames": spaces.Box(0, 255, [4, 12, 12], np.uint8),
    "discrete": spaces.Discrete(6, start=2),
    "multi": spaces.MultiDiscrete([3, 2, 4]),
    "binary": spaces.MultiBinary(4),
    "dict": spaces.Dict({"pixels": IMAGE, "position": VECTOR, "room": spaces.Discrete(5)}),
    "tuple": spaces.Tuple([VECTOR, spaces.Dict({"a": spaces.MultiDiscrete([2, 3]), "b": spaces.MultiBinary(2)})]),
}
ACTIONS = {
    "discrete": spaces.Discrete(4),
    "started": spaces.Discrete(3, start=-1),
    "multi": spaces.MultiDiscrete([2, 5, 3]),
    "table": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "binary": spaces.MultiBinary(3),
    "box": spaces.Box(-1.0, 2.0, [2]),
    "unbounded": spaces.Box(-np.inf, np.inf, [2, 2], np.float64),
    "scalar": spaces.Box(0.0, 1.0, []),
    "dict": spaces.Dict({"move": spaces.Box(-1.0, 1.0, [2]), "tool": spaces.MultiDiscrete([2, 3])}),
    "tuple": spaces.Tuple([spaces.Discrete(3), spaces.Tuple([spaces.Box(-3.0, 3.0, [1]), spaces.MultiBinary(2)])]),
}


class AnySpaces(gym.Env):
    """Observes random members of a space; the reward depends on the action; episodes end in both ways.

    With `masked`, the observation holds a mask that allows a random choice for every discrete component.
    """

    def __init__(self, observation: str, action: str, masked: bool = False) -> None:
        self._inner, self.action_space = OBSERVATIONS[observation], ACTIONS[action]
        self._sizes = category_counts(self.action_space)
        self.observation_space = self._inner
        if masked:
            mask = spaces.MultiBinary(sum(self._sizes))
            self.observation_space = spaces.Dict({"observation": self._inner, "action_mask": mask})
        self._mask = np.ones(sum(self._sizes), np.int8)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self._inner.seed(seed)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert all(map(contains, leaves(self.action_space), parts(self.action_space, action))), action
        flat = spaces.flatten(self.action_space, action)
        self._check_mask(action)
        reward = float(np.tanh(np.sum(flat * np.cos(np.arange(flat.size)))))
        end = self.np_random.random()
        return self._observe(), reward, end < 0.08, 0.08 <= end < 0.16, {}

    def _observe(self) -> Any:
        observation = self._inner.sample()
        if self.observation_space is self._inner:
            return observation
        parts = [self._random_mask(size) for size in self._sizes]
        self._mask = np.concatenate(parts).astype(np.int8)
        return {"observation": observation, "action_mask": self._mask}

    def _random_mask(self, size: int) -> np.ndarray:
        mask = self.np_random.random(size) < 0.5
        mask[self.np_random.integers(size)] = True
        return mask

    def _check_mask(self, action: Any) -> None:
        start = 0
        for size, category in zip(self._sizes, categories(self.action_space, action), strict=True):
            assert self._mask[start + category], f"forbidden action {action}"
            start += size


def category_counts(space: gym.Space) -> list[int]:
    """Numbers of categories of the discrete components, in the order of TF nests."""
    return [count for leaf in leaves(space) for count in _counts(leaf)]


def leaves(space: gym.Space) -> list[gym.Space]:
    if isinstance(space, spaces.Dict):
        return [leaf for key in sorted(space.spaces) for leaf in leaves(space[key])]
    if isinstance(space, spaces.Tuple):
        return [leaf for child in space.spaces for leaf in leaves(child)]
    return [space]


def parts(space: gym.Space, action: Any) -> list[Any]:
    """The parts of an action that belong to `leaves(space)`."""
    if isinstance(space, spaces.Dict):
        return [part for key in sorted(space.spaces) for part in parts(space[key], action[key])]
    if isinstance(space, spaces.Tuple):
        return [part for child, a in zip(space.spaces, action, strict=True) for part in parts(child, a)]
    return [action]


def contains(space: gym.Space, action: Any) -> bool:
    # A vector environment hands a scalar of NumPy on, about which Box warns.
    return space.contains(np.asarray(action, space.dtype) if isinstance(space, spaces.Box) else action)


def _counts(space: gym.Space) -> list[int]:
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.ravel().tolist()
    return [2] * space.shape[0] if isinstance(space, spaces.MultiBinary) else []


def categories(space: gym.Space, action: Any) -> list[int]:
    """The category of each discrete component of an action, counted from 0."""
    if isinstance(space, spaces.Dict):
        return [c for key in sorted(space.spaces) for c in categories(space[key], action[key])]
    if isinstance(space, spaces.Tuple):
        return [c for child, part in zip(space.spaces, action, strict=True) for c in categories(child, part)]
    if isinstance(space, spaces.Box):
        return []
    start = space.start if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else 0
    return np.ravel(np.asarray(action, np.int64) - start).tolist()


def env_id(observation: str, action: str, masked: bool) -> str:
    return f"Spaces-{observation}-{action}{'-masked' if masked else ''}-v0"


for _observation in OBSERVATIONS:
    for _action in ACTIONS:
        for _masked in (False, True):
            gym.register(
                env_id(_observation, _action, _masked),
                entry_point=AnySpaces,
                kwargs={"observation": _observation, "action": _action, "masked": _masked},
            )
