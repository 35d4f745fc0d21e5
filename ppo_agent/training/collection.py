"""Collects the experience of one iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.environments import tf_environment
from tf_agents.trajectories import Trajectory
from tf_agents.trajectories import time_step as ts

from ppo_agent.common.checks import check_int
from ppo_agent.common.types import Nest
from ppo_agent.drivers import (
    DynamicEpisodeDriver,
    DynamicStepDriver,
    EpisodeStatistics,
    RayDriver,
    UniformReplayBuffer,
)
from ppo_agent.drivers.ray_workers.remote_environments import RemoteEnvironments
from ppo_agent.training import named_environments
from ppo_agent.training.settings import Settings

# Episodes that do not end are trained on in parts of this many environment steps.
MOST_STEPS = 2**16


class Collector:
    """Steps the environments with the collect policy, from where the last iteration left them.

    Nothing is thrown away: every step is trained on once, and an episode that is under way at the end of an iteration
    continues in the next one.

    Attributes:
        last_steps: environment steps of the last iteration, 0 before the first.
    """

    def __init__(
        self,
        env: tf_environment.TFEnvironment,
        agent: tf_agent.TFAgent,
        settings: Settings,
        statistics: EpisodeStatistics,
        seed: int = 0,
    ) -> None:
        """Creates driver and replay buffer; `seed` is that of environments in rollout workers."""
        self._seed = seed
        self._env, self._policy, self._settings, self._statistics = env, agent.collect_policy, settings, statistics
        self._most_steps = max(MOST_STEPS // env.batch_size, settings.collect_steps_per_iteration or 1)
        # Boundary rows and the bootstrap row need room too.
        self._buffer = UniformReplayBuffer(agent.collect_data_spec, env.batch_size, 2 * self._most_steps + 2)
        self._driver = self._make_driver(env)
        self._on_step: Callable[[], None] | None = None
        self._time_step: Any = None
        self._policy_state: Any = None
        self.last_steps = 0

    def _make_driver(self, env: tf_environment.TFEnvironment) -> Any:
        observers = [self._buffer.add_batch, self._statistics]
        if isinstance(env, RemoteEnvironments):
            return self._make_ray_driver(env, observers)
        arguments = (env, self._policy, observers)
        if (steps := self._settings.steps_per_iteration) is not None:
            return DynamicStepDriver(*arguments, num_steps=steps, bootstrap_row=True)
        episodes = self._settings.collect_episodes_per_iteration or 1
        return DynamicEpisodeDriver(*arguments, num_episodes=episodes, bootstrap_row=True)

    def _make_ray_driver(self, env: RemoteEnvironments, observers: list[Any]) -> RayDriver:
        steps, keywords = self._settings.steps_per_iteration or 1, self._settings.collection_keywords
        driver = RayDriver(
            env.env, self._policy, observers, num_steps=steps, seed=self._seed, bootstrap_row=True, **keywords
        )
        env.drivers.append(driver)
        return driver

    def reported(self) -> dict[str, Any]:
        """What a run's result tells of collection: with rollout workers, how often they were restarted."""
        if not isinstance(self._driver, RayDriver):
            return {}
        return {"worker_restarts": sum(self._driver.restarts), "stale_rollouts": self._driver.stale_rollouts}

    def watch_steps(self, on_step: Callable[[], None] | None) -> bool:
        """Has a function called after each step of all environments, or no function any more.

        Returns:
            False if the environments are stepped inside TensorFlow, where nothing can be called.
        """
        # The workers' environments are not stepped here either.
        if on_step is not None and not hasattr(self._env, "step_numpy"):
            return False
        if on_step is not self._on_step:
            self._on_step, state = on_step, self._driver.get_state()
            self._driver = self._make_driver(self._env if on_step is None else _StepWatch(self._env, on_step))
            self._driver.set_state(state)
        return True

    def restart(self) -> None:
        """Starts new episodes at the next collection; those that are under way are dropped."""
        self._time_step = self._policy_state = None
        if isinstance(self._driver, RayDriver):
            self._driver.restart()
        self.pop_episode_infos()

    def pop_episode_infos(self) -> dict[str, float]:
        """Means of the numbers in the infos of the episodes that ended since the last call, by name."""
        pop = getattr(self._env, "pop_episode_infos", None)
        return pop() if pop is not None else {}

    def collect(self, budget: int) -> Trajectory | None:
        """Collects an iteration, with at least as many rows as a minibatch and at most `budget` environment steps.

        Returns:
            Experience [B, T, ...] whose last row holds the final observation; None if the budget is too small.
        """
        if not self._is_worthwhile(budget):
            return None
        before = self._statistics.get_state()
        try:
            return self._collect(budget)
        except BaseException:
            # What is lost was not trained on, and does not count; nobody knows where the environments are now.
            self._statistics.set_state(before)
            self._buffer.clear()
            self.restart()
            raise

    def get_state(self) -> dict[str, Any]:
        """Everything that the next rollout depends on beside environment and policy, for `set_state` of another one.

        Time step and policy state belong to an environment whose state can be saved too. Others start new episodes.
        """
        state = {"last_steps": self.last_steps, "driver": self._driver.get_state(), "time_step": None}
        if named_environments.has_variables(self._env) and self._time_step is not None:
            state["time_step"] = [np.asarray(x) for x in tf.nest.flatten(self._time_step)]
            state["policy_state"] = [np.asarray(x) for x in tf.nest.flatten(self._policy_state)]
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from where `get_state` was called."""
        self.last_steps = check_int("last_steps", state["last_steps"], at_least=0)
        self._driver.set_state(state["driver"])
        self._time_step = self._policy_state = None
        if state["time_step"] is not None:
            self._time_step = _packed(self._env.time_step_spec(), state["time_step"])
            self._policy_state = _packed(self._policy.policy_state_spec, state["policy_state"])

    def _collect(self, budget: int) -> Trajectory:
        start = self._statistics.num_environment_steps
        parts: list[Trajectory] = []
        # Environments that fail may leave a part without any step.
        while self._num_rows(parts) < self._settings.minibatch_size or self._statistics.num_environment_steps == start:
            left = budget - (self._statistics.num_environment_steps - start)
            parts.append(self._run(min(left // self._env.batch_size, self._most_steps)))
        self.last_steps = self._statistics.num_environment_steps - start
        return _join(parts)

    def _is_worthwhile(self, budget: int) -> bool:
        """Whether the last steps of a run can be trained on: a small batch would do more harm than good."""
        # Boundary rows may fill a minibatch sooner, but nobody knows how many there will be.
        size = self._env.batch_size
        if budget // size * size < max(self._settings.minibatch_size, size):
            return False
        if self._settings.steps_per_iteration is None:
            return budget >= self.last_steps / 2
        return budget >= self._settings.steps_per_iteration or self.last_steps == 0

    def _num_rows(self, parts: list[Trajectory]) -> int:
        return self._env.batch_size * sum(part.step_type.shape[1] - 1 for part in parts)

    def _run(self, most_steps: int) -> Trajectory:
        if self._time_step is None and not isinstance(self._driver, RayDriver):
            self._time_step = self._env.reset()
        self._time_step, self._policy_state = self._driver.run(
            self._time_step, self._policy_state, maximum_iterations=most_steps
        )
        experience = self._buffer.gather_all()
        self._buffer.clear()
        return experience


class _StepWatch(tf_environment.TFEnvironment):
    """An environment with `step_numpy`, stepped as one group, and a function that is called after each step."""

    def __init__(self, env: Any, on_step: Callable[[], None]) -> None:
        super().__init__(env.time_step_spec(), env.action_spec(), env.batch_size)
        self._watched, self._on_step = env, on_step

    def step_numpy(self, action: Nest) -> ts.TimeStep:
        """Steps every environment; see `GymnasiumEnvironment`."""
        time_step = self._watched.step_numpy(action)
        self._on_step()
        return time_step

    def current_numpy(self) -> ts.TimeStep:
        """Returns the current time step of arrays."""
        return self._watched.current_numpy()

    def _current_time_step(self) -> ts.TimeStep:
        return self._watched.current_time_step()

    def _reset(self) -> ts.TimeStep:
        return self._watched.reset()

    def _step(self, action: Nest) -> ts.TimeStep:
        return self._watched.step(action)


def _packed(spec: Any, arrays: list[np.ndarray]) -> Any:
    return tf.nest.pack_sequence_as(spec, [tf.constant(array) for array in arrays])


def _join(parts: list[Trajectory]) -> Trajectory:
    """Puts rollouts [B, T, ...] one after the other; the last row of each but the last stands in the next one too."""
    if len(parts) == 1:
        return parts[0]
    cut = [tf.nest.map_structure(lambda x: x[:, :-1], part) for part in parts[:-1]]
    return tf.nest.map_structure(lambda *x: tf.concat(x, axis=1), *cut, parts[-1])
