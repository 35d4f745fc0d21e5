"""An environment that takes its time. It is here because workers import the module that it is in, and nothing else."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np


class Slow(gym.Env):
    """An environment whose step takes a millisecond, of work or of waiting."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (17,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (6,), np.float32)

    def __init__(self, step_s: float, works: bool) -> None:
        """Takes the seconds of a step, and whether they are work of a core."""
        self._step_s, self._works, self._count = step_s, works, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode."""
        super().reset(seed=seed, options=options)
        self._count = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes its time."""
        if self._works:
            # Of this process, so that others on the same core do not shorten it.
            end = time.process_time() + self._step_s
            while time.process_time() < end:
                pass
        elif self._step_s:
            time.sleep(self._step_s)
        self._count += 1
        return self._observation(), float(action[0]), False, self._count >= 1000, {}

    def _observation(self) -> Any:
        return self.np_random.uniform(-1.0, 1.0, 17).astype(np.float32)
