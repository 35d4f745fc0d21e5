"""A driver that collects whole episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.policies import tf_policy
from tf_agents.trajectories import time_step as ts

from ppo_agent.common.configurable import configurable
from ppo_agent.common.environment_options import LONGEST_EPISODE
from ppo_agent.common.types import Nest

from .rollout_driver import NO_LIMIT, RolloutDriver, check_count


@configurable("tf_agents.drivers.dynamic_episode_driver")
class DynamicEpisodeDriver(RolloutDriver):
    """Steps until `num_episodes` episodes have ended, over all environments of the batch.

    An episode counts when its environment has begun the next one, so that the row between them (step type LAST, next
    step type FIRST) is collected too. The environments are stepped together: those whose episodes have not ended
    contribute partial ones, and with several environments short episodes are seen more often than long ones.

    Observers get the rows after the rollout, see `ppo_agent.drivers.observers`.
    """

    _counted, _counts_boundaries = "num_episodes", True

    def __init__(
        self,
        env: tf_environment.TFEnvironment,
        policy: tf_policy.TFPolicy,
        observers: Sequence[Callable] | None = None,
        transition_observers: Sequence[Callable] | None = None,
        num_episodes: int = 1,
        *,
        bootstrap_row: bool = False,
    ) -> None:
        """As `RolloutDriver`.

        Args:
            env: Batched environment.
            policy: Policy that fits its specs.
            observers: Callables that take a `Trajectory` of rows.
            transition_observers: Callables that take (time_step, policy_step, next_time_step).
            num_episodes: Episodes per run, over all environments.
            bootstrap_row: Whether each run ends with a row for the time step after its last action.
        """
        super().__init__(env, policy, observers, transition_observers, num_episodes, bootstrap_row=bootstrap_row)

    def run(
        self,
        time_step: ts.TimeStep | None = None,
        policy_state: Nest = None,
        num_episodes: int | None = None,
        maximum_iterations: int | None = None,
    ) -> tuple[ts.TimeStep, Nest]:
        """Collects episodes and informs the observers.

        Args:
            time_step: Where to start, [B, ...]; None resets the environments. What the last run returned continues
                from there. It has to be the environment's current time step; this is not checked.
            policy_state: The policy's state there; None for its initial state.
            num_episodes: Episodes to collect in place of the constructor's number.
            maximum_iterations: Most vector steps to take, for episodes that may never end. None takes 100,000 for each
                episode asked for, unless that is a tensor; a run that ends there has collected fewer episodes.

        Returns:
            (time step, policy state) after the last step, tensors.

        Raises:
            ValueError: `num_episodes` is no positive int.
        """
        if time_step is None:
            time_step = self.env.reset()
        target = self._num if num_episodes is None else check_count("num_episodes", num_episodes)
        if maximum_iterations is None and not tf.is_tensor(target):
            maximum_iterations = min(LONGEST_EPISODE * target, NO_LIMIT)
        return self._collect(time_step, policy_state, target, maximum_iterations)
