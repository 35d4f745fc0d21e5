"""A driver that collects a number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tf_agents.environments import tf_environment
from tf_agents.policies import tf_policy
from tf_agents.trajectories import time_step as ts

from ppo_agent.common.configurable import configurable
from ppo_agent.common.types import Nest

from .rollout_driver import RolloutDriver


@configurable("tf_agents.drivers.dynamic_step_driver")
class DynamicStepDriver(RolloutDriver):
    """Steps until at least `num_steps` environment steps were taken, summed over all environments of the batch.

    Rows between two episodes (step type LAST, next step type FIRST) are collected and not counted.

    Observers get the rows after the rollout, see `ppo_agent.drivers.observers`.
    """

    _counted, _counts_boundaries = "num_steps", False

    def __init__(
        self,
        env: tf_environment.TFEnvironment,
        policy: tf_policy.TFPolicy,
        observers: Sequence[Callable] | None = None,
        transition_observers: Sequence[Callable] | None = None,
        num_steps: int = 1,
        *,
        bootstrap_row: bool = False,
    ) -> None:
        """As `RolloutDriver`.

        Args:
            env: Batched environment.
            policy: Policy that fits its specs.
            observers: Callables that take a `Trajectory` of rows.
            transition_observers: Callables that take (time_step, policy_step, next_time_step).
            num_steps: Environment steps per run, over all environments.
            bootstrap_row: Whether each run ends with a row for the time step after its last action.
        """
        super().__init__(env, policy, observers, transition_observers, num_steps, bootstrap_row=bootstrap_row)

    def run(
        self,
        time_step: ts.TimeStep | None = None,
        policy_state: Nest = None,
        maximum_iterations: int | None = None,
    ) -> tuple[ts.TimeStep, Nest]:
        """Collects steps and informs the observers.

        Args:
            time_step: Where to start, [B, ...]; None for the environment's current time step. It has to be the
                environment's current time step; this is not checked.
            policy_state: The policy's state there; None for its initial state.
            maximum_iterations: Most vector steps to take.

        Returns:
            (time step, policy state) after the last step, tensors.
        """
        if time_step is None:
            time_step = self.env.current_time_step()
        return self._collect(time_step, policy_state, self._num, maximum_iterations)
