"""Environments that are elsewhere: in the workers of a driver."""

from __future__ import annotations

from typing import Any, NoReturn

from tf_agents.environments import tf_environment

from ppo_agent.common.types import Nest

from ..environments.gymnasium_environment import GymnasiumEnvironment


class RemoteEnvironments(tf_environment.TFEnvironment):
    """Knows the specs of environments that only a `RayDriver` steps.

    Attributes:
        env: A gymnasium id or a callable that makes a `gymnasium.Env`.
        drivers: Those that step them; closed together with this.
    """

    def __init__(self, env: Any, num_environments: int) -> None:
        """Makes one environment, see `RayDriver`, to learn its specs, and closes it."""
        with GymnasiumEnvironment(env, vectorization="sync") as single:
            super().__init__(single.time_step_spec(), single.action_spec(), batch_size=num_environments)
        self.env = env
        self.drivers: list[Any] = []

    def pop_episode_infos(self) -> dict[str, float]:
        """As `RayDriver.pop_episode_infos`."""
        return {name: mean for driver in self.drivers for name, mean in driver.pop_episode_infos().items()}

    def close(self) -> None:
        """Closes the drivers; may be called again."""
        for driver in self.drivers:
            driver.close()

    def _current_time_step(self) -> NoReturn:
        raise RuntimeError("the environments are in Ray's workers, expected their RayDriver to step them.")

    def _reset(self) -> NoReturn:
        self._current_time_step()

    def _step(self, action: Nest) -> NoReturn:
        del action
        self._current_time_step()
