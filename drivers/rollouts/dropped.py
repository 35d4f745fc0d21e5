"""Takes the rows of abandoned episodes out of a rollout."""

from __future__ import annotations

import numpy as np
from tf_agents.trajectories import time_step as ts

from .rollout import Rollout

_FIRST, _LAST = np.int32(ts.StepType.FIRST), np.int32(ts.StepType.LAST)


def drop_abandoned(rollout: Rollout) -> Rollout:
    """Marks the rows of episodes that were given up, so that nobody learns from them or counts them.

    An episode was given up where a first step follows on one that is not the last: its environment was restarted. A
    rollout is a rectangle, so the rows stay; they look like padding (step type and next step type FIRST, reward 0,
    discount 1), which learners mask and `EpisodeStatistics` does not count. Rows of the same episode in earlier
    rollouts have been given away already.

    Args:
        rollout: T >= 1 steps of B environments, arrays, whose step types, rewards and discounts may be written to.

    Returns:
        The same rollout.
    """
    step_type = rollout.time_steps.step_type
    given_up = (step_type[:, 1:] == _FIRST) & (step_type[:, :-1] != _LAST)
    if not given_up.any():
        return rollout
    dropped = np.zeros(given_up.shape, bool)
    for row, end in zip(*np.nonzero(given_up), strict=True):
        starts = np.flatnonzero(step_type[row, : end + 1] == _FIRST)
        dropped[row, starts[-1] if len(starts) else 0 : end + 1] = True
    step_type[:, :-1][dropped] = _FIRST
    for values, number in ((rollout.time_steps.reward, 0.0), (rollout.time_steps.discount, 1.0)):
        values[:, 1:][dropped] = number
    return rollout
