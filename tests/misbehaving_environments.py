"""A toy environment that misbehaves in many ways."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

# Of an observation or reward, which are caught as invalid.
INVALID = (
    "nan_observation",
    "inf_observation",
    "huge_observation",
    "nan_reward",
    "inf_reward",
    "no_reward",
    "vector_reward",
    "wrong_shape",
    "wrong_dtype",
    "object_dtype",
    "no_observation",
    "outside_discrete",
    "four_results",
)
# What an environment raises.
RAISED = ("raise_in_step", "raise_in_reset", "raise_in_constructor", "strange_error")
# What only a process survives.
FATAL = ("hang_in_step", "hang_in_reset", "exit", "killed")
# What does no harm.
HARMLESS = ("raise_in_close", "never_ending", "length_one", "no_info", "flags_as_arrays")
FAULTS = (*INVALID, *RAISED, *FATAL, *HARMLESS)
# Long enough for a test's time limit, too short to be left behind.
HANGS_S = 20.0


class StrangeError(Exception):
    """Cannot be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class Misbehaving(gym.Env):
    """An episode of 5 steps; the observation is the number of the step and a category, the reward is 1.

    Args:
        fault: one of `FAULTS`, several with commas between them that take turns, or empty for none.
        first_step: of an object's life in which it misbehaves; later it does so again with every `period` steps.
        period: see `first_step`.
        marker: a file; with it, it misbehaves only until that exists and creates it when it does.
    """

    def __init__(self, fault: str = "", first_step: int = 7, period: int = 11, marker: str | None = None) -> None:
        self.observation_space = spaces.Dict({"x": spaces.Box(-9.0, 9.0, [2], np.float64), "kind": spaces.Discrete(6)})
        self.action_space = spaces.Discrete(2)
        self.faults, self.first_step, self.period = fault.split(","), first_step, period
        self.marker = None if marker is None else Path(marker)
        self.life = self.count = self.errors = 0
        if self._now("raise_in_constructor", self.marker is not None and self.marker.exists()):
            raise RuntimeError("no licence left")

    def _now(self, fault: str, when: bool) -> bool:
        """Whether to misbehave in this way now."""
        if not when or self.faults[self.errors % len(self.faults)] != fault:
            return False
        if self.marker is not None and fault != "raise_in_constructor":
            try:
                self.marker.touch(exist_ok=False)  # At once: other processes look for it too.
            except FileExistsError:
                return False
        self.errors += 1
        return True

    @property
    def _is_due(self) -> bool:
        return self.life >= self.first_step and (self.life - self.first_step) % self.period == 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        late = self.life >= self.first_step
        if self._now("raise_in_reset", late):
            raise RuntimeError("cannot start over")
        if self._now("hang_in_reset", late):
            time.sleep(HANGS_S)
        return self._observation(), None if "no_info" in self.faults else {}

    def step(self, action: Any) -> Any:
        self.life += 1
        self.count += 1
        due = self._is_due
        if self._now("raise_in_step", due) or self._now("raise_in_constructor", due and self.marker is None):
            raise RuntimeError("the simulator is gone")
        if self.faults == ["raise_in_constructor"] and due:
            if self.marker is not None:
                self.marker.touch()
            raise RuntimeError("the simulator is gone")
        if self._now("strange_error", due):
            raise StrangeError("strange", "error")
        if self._now("hang_in_step", due):
            time.sleep(HANGS_S)
        if self._now("exit", due):
            os._exit(3)
        if self._now("killed", due):
            os.kill(os.getpid(), signal.SIGKILL)
        ended = self.count >= (1 if "length_one" in self.faults else 5) and "never_ending" not in self.faults
        flag: Any = np.array(ended) if "flags_as_arrays" in self.faults else ended
        result = (self._observation(due), self._reward(due), flag, False, [] if "no_info" in self.faults else {})
        return result[:4] if self._now("four_results", due) else result

    def close(self) -> None:
        if "raise_in_close" in self.faults:
            raise RuntimeError("cannot close")

    def _reward(self, due: bool) -> Any:
        values = {"nan_reward": np.nan, "inf_reward": -np.inf, "no_reward": None, "vector_reward": np.ones(2)}
        return next((value for name, value in values.items() if self._now(name, due)), 1.0)

    def _observation(self, due: bool = False) -> Any:
        x, kind = np.array([self.count % 9, 0.5]), min(self.count, 5)
        xs = {
            "nan_observation": np.array([np.nan, 0]),
            "inf_observation": np.array([0, np.inf]),
            "huge_observation": np.array([1e300, 0]),
            "wrong_shape": np.zeros(3),
            "wrong_dtype": np.array(["a", "b"]),
            "object_dtype": np.array([None, {}], object),
        }
        x = next((value for name, value in xs.items() if self._now(name, due)), x)
        if self._now("no_observation", due):
            return None
        return {"x": x, "kind": 77 if self._now("outside_discrete", due) else kind}


gym.register("Misbehaving-v0", "misbehaving_environments:Misbehaving", disable_env_checker=True)
