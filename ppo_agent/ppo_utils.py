"""Stands in for `tf_agents.agents.ppo.ppo_utils`: the functions that subclasses of TF-Agents' agents call."""

from __future__ import annotations

from tf_agents.agents.ppo.ppo_utils import (
    distribution_from_spec,
    get_distribution_params,
    get_learning_rate,
    get_metric_observers,
    make_timestep_mask,
    make_trajectory_mask,
    nested_kl_divergence,
)

__all__ = [
    "distribution_from_spec",
    "get_distribution_params",
    "get_learning_rate",
    "get_metric_observers",
    "make_timestep_mask",
    "make_trajectory_mask",
    "nested_kl_divergence",
]
