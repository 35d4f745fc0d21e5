"""How many faults of environments are tolerated."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ppo_agent.common.checks import check_int
from ppo_agent.common.environment_options import INVALID_STEPS

from .faults import EnvironmentFaultError, Fault

# An environment that drops so many episodes and ends none in between yields no experience.
MOST_DROPS_IN_A_ROW = 100

_logger = logging.getLogger(__name__)


class Recovery:
    """Decides whether faults of a batch of environments are tolerated, and counts them.

    Each may be recreated `max_restarts` times. Episodes with an invalid step are dropped or an error.

    Attributes:
        restarts: How often each environment was recreated.
        drops: How many episodes of each were dropped because of an invalid step.
        has_dropped: Whether any was.
    """

    def __init__(self, num_environments: int, max_restarts: int, drops_invalid: bool, seed: int | None) -> None:
        """Starts with no faults of B environments; `seed` is that of new ones, None for no seed."""
        self._max_restarts, self._drops_invalid, self._seed = max_restarts, drops_invalid, seed
        self.restarts = np.zeros(num_environments, int)
        self.drops = np.zeros(num_environments, int)
        self._drops_in_a_row = np.zeros(num_environments, int)
        self.has_dropped = False

    def judge(self, environment: int, step: int, fault: Fault) -> bool:
        """Returns whether an environment has to be recreated after a fault in a step of its episode, else only reset.

        Raises:
            EnvironmentFaultError: It is not tolerated, or not any more.
        """
        if fault.is_bystander:
            return True
        place = f"in step {step} of its episode" if step else "in the reset of its episode"
        text = f"environment {environment} {fault.text}, {place}"
        if fault.leaf is not None and self._drops_invalid:
            self._count_drop(environment)
            if self._drops_in_a_row[environment] < MOST_DROPS_IN_A_ROW:
                _logger.warning("%s; the episode is dropped.", text)
                return False
            text += f", the {MOST_DROPS_IN_A_ROW}th episode in a row that had to be dropped"
        elif fault.leaf is None and self.restarts[environment] < self._max_restarts:
            self.restarts[environment] += 1
            times = f"{self.restarts[environment]} of {self._max_restarts}"
            _logger.warning("%s; it is recreated (%s) and the episode dropped.", text, times)
            return True
        elif fault.leaf is None and self._max_restarts:
            text += f", after it had been recreated {self._max_restarts} times"
        raise EnvironmentFaultError(f"{text}.", environment, step, fault.leaf) from fault.error

    def _count_drop(self, environment: int) -> None:
        self.has_dropped = True
        self.drops[environment] += 1
        self._drops_in_a_row[environment] += 1

    def ended(self, environments: np.ndarray) -> None:
        """Takes note of episodes that ended as they should; a bool for every environment, or indices."""
        self._drops_in_a_row[environments] = 0

    def new_seed(self, environment: int) -> int | None:
        """Returns another seed for every restart."""
        if self._seed is None:
            return None
        entropy = (self._seed, environment, int(self.restarts[environment] + self.drops[environment]))
        return int(np.random.SeedSequence(entropy).generate_state(1)[0] % 2**31)


def check_limits(max_restarts: Any, step_time_limit_s: Any, invalid_steps: Any) -> None:
    """Checks the keywords of `GymnasiumEnvironment`.

    Raises:
        ValueError: One of them has a wrong value.
    """
    check_int("max_restarts", max_restarts, at_least=0)
    is_number = isinstance(step_time_limit_s, (int, float)) and not isinstance(step_time_limit_s, bool)
    if step_time_limit_s is not None and not (is_number and step_time_limit_s > 0):
        raise ValueError(f"step_time_limit_s is {step_time_limit_s!r}, expected None or a positive number.")
    if invalid_steps not in INVALID_STEPS:
        raise ValueError(f"invalid_steps is {invalid_steps!r}, expected {' or '.join(INVALID_STEPS)}.")
