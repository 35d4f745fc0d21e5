"""Episodes with a policy that does not learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from tf_agents.environments import tf_environment
from tf_agents.policies import tf_policy
from tf_agents.trajectories import StepType

from ppo_agent.common import host_calls
from ppo_agent.common.environment_options import LONGEST_EPISODE
from ppo_agent.common.types import Nest
from ppo_agent.drivers.array_policies.array_policy import ArrayPolicy

# Called with a time step of arrays [B, ...], returns a nest of action arrays [B, ...].
Act = Callable[[Any], Nest]

# Environments that are stepped together in an evaluation.
MOST_ENVIRONMENTS = 20


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


def evaluate(env: tf_environment.TFEnvironment, act: Act, num_episodes: int) -> Evaluation:
    """Runs N episodes from a reset with a policy; their returns.

    All environments start together and each counts with one episode, so that long episodes count as much as short ones.
    """
    returns: list[float] = []
    while len(returns) < num_episodes:
        returns += _one_episode_each(env, act).tolist()
    return Evaluation(returns[:num_episodes])


def num_environments(num_episodes: int) -> int:
    """How many environments to evaluate so many episodes in."""
    rounds = -(-num_episodes // MOST_ENVIRONMENTS)
    return -(-num_episodes // rounds)


def _one_episode_each(env: tf_environment.TFEnvironment, act: Act) -> np.ndarray:
    reset, step = _on_arrays(env)
    time_step = reset()
    returns = np.zeros(len(time_step.step_type))
    running = np.ones(len(returns), bool)
    for _ in range(LONGEST_EPISODE):
        time_step = step(act(time_step))
        # An episode that was given up is another one now.
        returns = np.where(running & (time_step.step_type == StepType.FIRST), 0.0, returns)
        returns += np.where(running, time_step.reward, 0.0)
        running &= time_step.step_type != StepType.LAST
        if not running.any():
            return returns
    warnings.warn(f"an episode was cut short after {LONGEST_EPISODE} steps.", stacklevel=3)
    return returns


def _on_arrays(env: Any) -> tuple[Callable[[], Any], Callable[[Nest], Any]]:
    """An environment's `reset` and `step` with arrays."""
    if hasattr(env, "step_numpy"):
        return env.reset_numpy, env.step_numpy
    return (
        lambda: host_calls.to_arrays(env.reset()),
        lambda action: host_calls.to_arrays(env.step(host_calls.to_tensors(action))),
    )


def act_with(policy: tf_policy.TFPolicy, batch_size: int) -> Act:
    """A function that acts as a TF-Agents policy does now in B environments; its state is reset with all of them."""
    array_policy = ArrayPolicy(policy)
    array_policy.refresh()
    initial_state = array_policy.initial_state(batch_size)
    state = initial_state

    def act(time_step: Any) -> Nest:
        nonlocal state
        if np.all(time_step.step_type == StepType.FIRST):
            state = initial_state
        action, _, state = array_policy.act(time_step, state)
        return action

    return act
