"""How TF-Agents' examples collect: through an Actor in Python, or through a DynamicStepDriver in a graph."""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import tensorflow as tf
from tf_agents.drivers import dynamic_step_driver
from tf_agents.environments import batched_py_environment, py_environment, tf_py_environment
from tf_agents.metrics import tf_metrics
from tf_agents.policies import py_tf_eager_policy
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.specs import array_spec
from tf_agents.train import actor
from tf_agents.trajectories import Trajectory
from tf_agents.trajectories import time_step as ts

from benchmarks import environments, measure


def _box(space: gym.Space) -> gym.spaces.Box:
    if not isinstance(space, gym.spaces.Box):
        raise TypeError(f"the space is {space}, expected a Box.")
    return space


class GymnasiumPyEnvironment(py_environment.PyEnvironment):
    """One gymnasium environment with Box observations."""

    def __init__(self, env: gym.Env, seed: int) -> None:
        """Wraps `env`; `seed` is that of its first reset."""
        super().__init__(handle_auto_reset=True)
        self._env = env
        self._reset_seed: int | None = seed

    def observation_spec(self) -> array_spec.BoundedArraySpec:
        """Bounds and shape of the space; float32 but for images."""
        space = _box(self._env.observation_space)
        dtype: Any = np.uint8 if space.dtype == np.uint8 else np.float32
        return array_spec.BoundedArraySpec(space.shape, dtype, space.low, space.high)

    def action_spec(self) -> array_spec.BoundedArraySpec:
        """Of a Box or Discrete space."""
        space = self._env.action_space
        if isinstance(space, gym.spaces.Discrete):
            return array_spec.BoundedArraySpec((), np.int64, 0, space.n - 1)
        space = _box(space)
        return array_spec.BoundedArraySpec(space.shape, np.float32, space.low, space.high)

    def _reset(self) -> ts.TimeStep:
        observation, _ = self._env.reset(seed=self._reset_seed)
        self._reset_seed = None
        return ts.restart(np.asarray(observation, np.float32))

    def _step(self, action: np.ndarray) -> ts.TimeStep:
        space = self._env.action_space
        if isinstance(space, gym.spaces.Box):
            action = np.clip(action, space.low, space.high)
        observation, reward, terminated, truncated, _ = self._env.step(action)
        observation = np.asarray(observation, np.float32)
        if terminated:
            return ts.termination(observation, reward)
        if truncated:
            return ts.truncation(observation, reward)
        return ts.transition(observation, reward)


class BatchedEnvironment(batched_py_environment.BatchedPyEnvironment):
    """Steps environments one after the other; an Actor gives it tensors."""

    def _step(self, actions: Any) -> Any:
        return super()._step(tf.nest.map_structure(np.asarray, actions))


def make_environment(arguments: measure.Arguments) -> BatchedEnvironment:
    """The workload's environments, stepped one after the other."""
    workload = arguments.workload
    make = environments.maker(workload)
    copies = [GymnasiumPyEnvironment(make(), arguments.seed + index) for index in range(workload.num_environments)]
    return BatchedEnvironment(copies, multithreading=False)


class Collector(Protocol):
    """Collects the experience of an iteration."""

    def collect(self) -> Trajectory:
        """Returns experience [B, T, ...] with the workload's number of steps, and rows between episodes."""

    def write_metrics(self) -> None:
        """Writes the episodes' metrics as events."""

    def mean_return(self) -> float:
        """Mean return of the last 100 episodes."""


class ActorCollector:
    """As the examples with PPOLearner: an Actor steps the environments in Python and calls the policy as a function.

    The rows are kept in a list, which costs less than the Reverb server there.
    """

    def __init__(self, env: Any, agent: Any, steps: int, root_dir: str, policy: Any = None) -> None:
        """Makes the Actor for `steps` environment steps a run; `policy` stands in for TF-Agents' `PyTFEagerPolicy`."""
        self._rows: list[Trajectory] = []
        policy = policy or py_tf_eager_policy.PyTFEagerPolicy(
            agent.collect_policy, use_tf_function=True, batch_time_steps=False
        )
        metrics = actor.collect_metrics(buffer_size=100)
        self._returns = next(metric for metric in metrics if metric.name == "AverageReturn")
        self._actor = actor.Actor(
            env,
            policy,
            agent.train_step_counter,
            steps_per_run=steps,
            observers=[self._rows.append],
            metrics=metrics,
            summary_dir=root_dir,
            summary_interval=1,
        )

    def collect(self) -> Trajectory:
        """See `Collector`."""
        self._actor.run()
        experience = tf.nest.map_structure(lambda *rows: tf.constant(np.stack(rows, axis=1)), *self._rows)
        self._rows.clear()
        return experience

    def write_metrics(self) -> None:
        """The Actor writes them itself."""

    def mean_return(self) -> float:
        """See `Collector`."""
        return float(self._returns.result())


class DriverCollector:
    """As the examples without PPOLearner: driver and replay buffer in one graph, which calls Python for every step."""

    def __init__(
        self,
        env: Any,
        agent: Any,
        steps: int,
        root_dir: str,
        driver_class: Any = dynamic_step_driver.DynamicStepDriver,
    ) -> None:
        """Makes the driver for `steps` environment steps a run; TF-Agents' own is run as a graph function."""
        env = tf_py_environment.TFPyEnvironment(env)
        self._agent = agent
        # Every step may be followed by the boundary row behind an episode.
        self._buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(
            agent.collect_data_spec, batch_size=env.batch_size, max_length=2 * steps // env.batch_size + 2
        )
        self._returns = tf_metrics.AverageReturnMetric(batch_size=env.batch_size, buffer_size=100)
        self._metrics = [
            self._returns,
            tf_metrics.AverageEpisodeLengthMetric(batch_size=env.batch_size, buffer_size=100),
            tf_metrics.EnvironmentSteps(),
            tf_metrics.NumberOfEpisodes(),
        ]
        driver = driver_class(env, agent.collect_policy, [self._buffer.add_batch, *self._metrics], num_steps=steps)
        is_own = driver_class is dynamic_step_driver.DynamicStepDriver
        self._run = tf.function(driver.run, autograph=False) if is_own else driver.run
        self._state = (env.reset(), agent.collect_policy.get_initial_state(env.batch_size))
        self._writer = tf.summary.create_file_writer(root_dir)

    def collect(self) -> Trajectory:
        """See `Collector`."""
        self._state = self._run(*self._state)
        experience = self._buffer.gather_all()
        self._buffer.clear()
        return experience

    def write_metrics(self) -> None:
        """See `Collector`."""
        with self._writer.as_default():
            for metric in self._metrics:
                metric.tf_summaries(train_step=self._agent.train_step_counter)

    def mean_return(self) -> float:
        """See `Collector`."""
        return float(self._returns.result())
