"""What can go wrong with an environment."""

from __future__ import annotations

import pickle
import traceback
from typing import NamedTuple

# The key of a vector environment's infos that holds the faults of a step, by row.
FAULTS = "ppo_agent_faults"
# The key of infos that holds the numbers in the infos of the episodes that ended with a step, by row and name.
EPISODES = "ppo_agent_episodes"


class EnvironmentFaultError(RuntimeError):
    """An environment failed, and is not or cannot be restarted.

    The error that the environment raised, if it did, is the cause (`__cause__`).

    Attributes:
        environment: Its index; None if a vector environment does not tell.
        step: Number of the step within its episode, 0 for the reset; for environments of TensorFlow operations the step
            of the rollout; None if it is not known.
        leaf: Path of the leaf that was found to be invalid, for instance `observation/position` or `reward`, or None.
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
        text: The end of the sentence 'environment 3 ...'.
        leaf: The leaf of an invalid step; None for all other faults.
        error: What the environment raised.
        is_bystander: The environment itself did nothing wrong, but was in the process of one that did.
    """

    text: str
    leaf: str | None = None
    error: BaseException | None = None
    is_bystander: bool = False


def raised(error: BaseException) -> Fault:
    """Returns the fault of an environment that raised an error."""
    return Fault(f"raised {type(error).__name__}: {str(error).strip()[:1000]}", error=error)


def portable(fault: Fault) -> Fault:
    """Returns the same fault, fit to be sent to another process; its error carries the traceback as a note."""
    if fault.error is None:
        return fault
    note = "In a process of environments:\n" + "".join(traceback.format_exception(fault.error))
    try:
        error = pickle.loads(pickle.dumps(fault.error))  # noqa: S301 - It was pickled here and now.
    except Exception:  # Whatever is wrong with it, its text will do.
        error = RuntimeError(fault.text)
    error.add_note(note)
    return fault._replace(error=error)
