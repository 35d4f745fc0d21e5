"""What can go wrong with an environment, and how much of it is put up with."""

from __future__ import annotations

import logging
import pickle
import traceback
from typing import Any, NamedTuple

import numpy as np

# The key of a vector environment's infos that holds the faults of a step, by row.
FAULTS = "ppo_agent_faults"
INVALID_STEPS = ("error", "drop")
# An environment that drops so many episodes and ends none in between is of no use any more.
MOST_DROPS_IN_A_ROW = 100

_logger = logging.getLogger(__name__)


class EnvironmentFaultError(RuntimeError):
    """An environment failed, and is not or cannot be put right.

    The error that the environment raised, if it did, is the cause (`__cause__`).

    Attributes:
        environment: its index; None if a vector environment does not tell.
        step: number of the step within its episode, 0 for the reset; for environments of TensorFlow operations the step
            of the rollout; None if it is not known.
        leaf: path of the leaf that was found to be invalid, for instance `observation/position` or `reward`, or None.
    """

    def __init__(self, text: str, environment: int | None, step: int | None, leaf: str | None = None) -> None:
        """Takes the sentence and the attributes."""
        super().__init__(text)
        self.environment, self.step, self.leaf = environment, step, leaf

    def __reduce__(self) -> tuple:
        """Keeps the attributes when pickled."""
        return type(self), (str(self), self.environment, self.step, self.leaf)


class Fault(NamedTuple):
    """What went wrong in one environment.

    Attributes:
        text: the end of the sentence 'environment 3 ...'.
        leaf: the leaf of an invalid step; None for all other faults.
        error: what the environment raised.
        is_bystander: the environment itself did nothing wrong, but was in the process of one that did.
    """

    text: str
    leaf: str | None = None
    error: BaseException | None = None
    is_bystander: bool = False


def raised(error: BaseException) -> Fault:
    """The fault of an environment that raised an error."""
    return Fault(f"raised {type(error).__name__}: {str(error).strip()[:1000]}", error=error)


def portable(fault: Fault) -> Fault:
    """The same fault, fit to be sent to another process; its error carries the traceback as a note."""
    if fault.error is None:
        return fault
    note = "In a process of environments:\n" + "".join(traceback.format_exception(fault.error))
    try:
        error = pickle.loads(pickle.dumps(fault.error))  # noqa: S301 - It was pickled here and now.
    except Exception:  # Whatever is wrong with it, its text will do.
        error = RuntimeError(fault.text)
    error.add_note(note)
    return fault._replace(error=error)


class Recovery:
    """Decides what becomes of the faults of a batch of environments, and keeps count.

    Attributes:
        restarts: how often each environment was made anew.
        drops: how many episodes of each were dropped because of an invalid step.
        has_dropped: whether any was.
    """

    def __init__(self, num_environments: int, max_restarts: int, drops_invalid: bool, seed: int | None) -> None:
        """Nothing has happened yet.

        Args:
            num_environments: B.
            max_restarts: how often each environment may be made anew.
            drops_invalid: whether episodes with an invalid step are dropped instead of being an error.
            seed: new environments are seeded from it; None for no seed.
        """
        self._max_restarts, self._drops_invalid, self._seed = max_restarts, drops_invalid, seed
        self.restarts = np.zeros(num_environments, int)
        self.drops = np.zeros(num_environments, int)
        self._drops_in_a_row = np.zeros(num_environments, int)
        self.has_dropped = False

    def judge(self, environment: int, step: int, fault: Fault) -> bool:
        """Whether an environment has to be made anew, or else is only reset.

        Args:
            environment: its index.
            step: of its episode.
            fault: what happened.

        Raises:
            EnvironmentFaultError: it is not put up with any more.
        """
        place = f"in step {step} of its episode" if step else "in the reset of its episode"
        text = f"environment {environment} {fault.text}, {place}"
        if fault.is_bystander:
            return True
        if fault.leaf is not None and self._drops_invalid:
            self.has_dropped = True
            self.drops[environment] += 1
            self._drops_in_a_row[environment] += 1
            if self._drops_in_a_row[environment] < MOST_DROPS_IN_A_ROW:
                _logger.warning("%s; the episode is dropped.", text)
                return False
            text += f", the {MOST_DROPS_IN_A_ROW}th episode in a row that had to be dropped"
        elif fault.leaf is None and self.restarts[environment] < self._max_restarts:
            self.restarts[environment] += 1
            times = f"{self.restarts[environment]} of {self._max_restarts}"
            _logger.warning("%s; it is made anew (%s) and the episode dropped.", text, times)
            return True
        elif fault.leaf is None and self._max_restarts:
            text += f", after it had been made anew {self._max_restarts} times"
        raise EnvironmentFaultError(f"{text}.", environment, step, fault.leaf) from fault.error

    def ended(self, environments: np.ndarray) -> None:
        """Takes note of episodes that ended as they should; a bool for every environment, or indices."""
        self._drops_in_a_row[environments] = 0

    def new_seed(self, environment: int) -> int | None:
        """Another seed for every restart."""
        if self._seed is None:
            return None
        entropy = (self._seed, environment, int(self.restarts[environment] + self.drops[environment]))
        return int(np.random.SeedSequence(entropy).generate_state(1)[0] % 2**31)


def check_limits(max_restarts: Any, step_time_limit_s: Any, invalid_steps: Any) -> None:
    """Checks the keywords of `GymnasiumEnvironment`.

    Raises:
        ValueError: one of them has a wrong value.
    """
    if isinstance(max_restarts, bool) or not isinstance(max_restarts, (int, np.integer)) or max_restarts < 0:
        raise ValueError(f"max_restarts is {max_restarts!r}, expected an int of at least 0.")
    is_number = isinstance(step_time_limit_s, (int, float)) and not isinstance(step_time_limit_s, bool)
    if step_time_limit_s is not None and not (is_number and step_time_limit_s > 0):
        raise ValueError(f"step_time_limit_s is {step_time_limit_s!r}, expected None or a positive number.")
    if invalid_steps not in INVALID_STEPS:
        raise ValueError(f"invalid_steps is {invalid_steps!r}, expected {' or '.join(INVALID_STEPS)}.")
