"""Episodes with a policy that does not learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.policies import greedy_policy, tf_policy
from tf_agents.trajectories import StepType

from ppo_agent.drivers import GymnasiumEnvironment

Nest = Any
# Called with a time step of arrays [B, ...], returns a nest of action arrays [B, ...].
Act = Callable[[Any], Nest]

# Environments that are stepped together in an evaluation.
MOST_ENVIRONMENTS = 20
# An episode that takes longer counts with the return that it has reached: some environments never end one.
LONGEST_EPISODE = 100_000


class Evaluation(NamedTuple):
    """Returns of N episodes."""

    returns: list[float]

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """The standard deviation of the returns, over N."""
        return float(np.std(self.returns))


def evaluate(env: GymnasiumEnvironment, act: Act, num_episodes: int) -> Evaluation:
    """Runs episodes from a reset.

    All environments start together and each counts with one episode, so that long episodes count as much as short ones.

    Args:
        env: the environments, B of them.
        act: the policy.
        num_episodes: N.

    Returns:
        The returns of N episodes.
    """
    returns: list[float] = []
    while len(returns) < num_episodes:
        returns += _one_episode_each(env, act).tolist()
    return Evaluation(returns[:num_episodes])


def num_environments(num_episodes: int) -> int:
    """How many environments to evaluate so many episodes in."""
    rounds = -(-num_episodes // MOST_ENVIRONMENTS)
    return -(-num_episodes // rounds)


def _one_episode_each(env: GymnasiumEnvironment, act: Act) -> np.ndarray:
    time_step = env.reset_numpy()
    returns = np.zeros(len(time_step.step_type))
    running = np.ones(len(returns), bool)
    for _ in range(LONGEST_EPISODE):
        time_step = env.step_numpy(act(time_step))
        # An episode that was given up is another one now.
        returns = np.where(running & (time_step.step_type == StepType.FIRST), 0.0, returns)
        returns += np.where(running, time_step.reward, 0.0)
        running &= time_step.step_type != StepType.LAST
        if not running.any():
            return returns
    warnings.warn(f"an episode was cut short after {LONGEST_EPISODE} steps.", stacklevel=3)
    return returns


def act_with(policy: tf_policy.TFPolicy, batch_size: int) -> Act:
    """A function that acts as a TF-Agents policy does now: in NumPy where the policy offers that.

    Args:
        policy: any policy.
        batch_size: number of environments.
    """
    greedy = isinstance(policy, greedy_policy.GreedyPolicy)
    make = getattr(policy.wrapped_policy if greedy else policy, "numpy_policy", None)
    numpy_policy = make(greedy=greedy) if make else None
    if numpy_policy is not None:
        numpy_policy.refresh()
        return _NumpyAct(numpy_policy, batch_size)
    return _StatefulAct(policy, batch_size)


class _NumpyAct:
    """Calls a NumPy policy and keeps its state, which it starts anew by itself where episodes do."""

    def __init__(self, numpy_policy: Any, batch_size: int) -> None:
        self._policy = numpy_policy
        self._state = numpy_policy.initial_state(batch_size)

    def __call__(self, time_step: Any) -> Nest:
        action, _, self._state = self._policy.act(time_step.observation, time_step.step_type, self._state)
        return action


class _StatefulAct:
    """Calls a TF policy and keeps its state, which starts anew with every reset of all environments."""

    def __init__(self, policy: tf_policy.TFPolicy, batch_size: int) -> None:
        self._action = tf.function(policy.action, autograph=False)
        self._initial_state = policy.get_initial_state(batch_size)
        self._state = self._initial_state

    def __call__(self, time_step: Any) -> Nest:
        if np.all(time_step.step_type == StepType.FIRST):
            self._state = self._initial_state
        step = self._action(tf.nest.map_structure(tf.convert_to_tensor, time_step), self._state)
        self._state = step.state
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), step.action)
