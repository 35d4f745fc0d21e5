"""An environment that tells of every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tf_agents.environments import tf_environment
from tf_agents.trajectories import TimeStep

from ppo_agent.common.types import Nest


class StepWatch(tf_environment.TFEnvironment):
    """An environment with `step_numpy`, and a function that is called after each step.

    All of its environments are stepped together: `lanes`, of which one could step while the policy acts for another,
    are not offered.

    Args:
        env: the environment, stepped by this one from now on.
        on_step: called without arguments.
    """

    def __init__(self, env: Any, on_step: Callable[[], None]) -> None:
        super().__init__(env.time_step_spec(), env.action_spec(), env.batch_size)
        self._watched, self._on_step = env, on_step

    def step_numpy(self, action: Nest) -> TimeStep:
        """Steps every environment; see `GymnasiumEnvironment`."""
        time_step = self._watched.step_numpy(action)
        self._on_step()
        return time_step

    def current_numpy(self) -> TimeStep:
        """Returns the current time step of arrays."""
        return self._watched.current_numpy()

    def _current_time_step(self) -> TimeStep:
        return self._watched.current_time_step()

    def _reset(self) -> TimeStep:
        return self._watched.reset()

    def _step(self, action: Nest) -> TimeStep:
        return self._watched.step(action)
