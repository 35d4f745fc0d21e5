"""What an iteration says of itself: the numbers of a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import StepType, Trajectory
from tf_agents.utils import nest_utils

from ppo_agent.config import number
from ppo_agent.training.metrics_table import INFO

# What the scale of a continuous action's distribution is called among its parameters.
_SCALES = ("scale", "scale_diag", "stddev")


def of_episodes(returns: Sequence[float], lengths: Sequence[int]) -> dict[str, float]:
    """Mean, least and greatest return and length of the episodes of an iteration; NaN if none has ended."""
    row: dict[str, float] = {"episodes": len(returns)}
    for name, values in (("episode_return", returns), ("episode_length", lengths)):
        known = values or [math.nan]
        row |= {f"{name}_mean": sum(known) / len(known), f"{name}_min": min(known), f"{name}_max": max(known)}
    return row


def of_infos(means: Mapping[str, float]) -> dict[str, float]:
    """What the environments said of themselves at episodes' ends: means by `info/` and name."""
    return {f"{INFO}{name}": value for name, value in means.items()}


def of_experience(experience: Trajectory) -> dict[str, float]:
    """What can be read off the experience [B, T, ...] of an iteration.

    Returns:
        `truncated_fraction`: of the episodes that have ended, those that were cut off by a limit (NaN if none has);
        `action_std`: mean standard deviation of continuous actions (NaN without any).
    """
    next_step_type, step_type = np.asarray(experience.next_step_type), np.asarray(experience.step_type)
    ended = (next_step_type == StepType.LAST) & (step_type != StepType.LAST)
    discounts = np.asarray(experience.discount)[ended]
    return {
        "truncated_fraction": float(np.mean(discounts > 0)) if discounts.size else math.nan,
        "action_std": _action_std(experience.policy_info),
    }


def of_schedules(agent: Any) -> dict[str, float]:
    """The values in force of what may follow a schedule."""
    names = ("importance_ratio_clipping", "entropy_regularization", "value_clipping")
    values = {name: getattr(agent._config, name) for name in names}
    return {name: number(value() if callable(value) else value) for name, value in values.items()}


def _action_std(policy_info: Any) -> float:
    if not isinstance(policy_info, Mapping) or "dist_params" not in policy_info:
        return math.nan
    leaves = nest_utils.flatten_with_joined_paths(policy_info["dist_params"])
    scales = [np.mean(leaf) for path, leaf in leaves if path.rpartition("/")[2] in _SCALES and _is_float(leaf)]
    return float(np.mean(scales)) if scales else math.nan


def _is_float(leaf: Any) -> bool:
    return tf.as_dtype(leaf.dtype).is_floating
