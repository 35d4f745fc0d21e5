"""Which settings fit one another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppo_agent.training.settings import Settings

# Of each environment and iteration, where a preset collects whole episodes and workers do it.
STEPS_OF_WORKERS = 256
# What only one of the two agents has.
OF_VARIANT = {
    "clip": ("importance_ratio_clipping", "importance_ratio_clipping_schedule", "greedy_eval"),
    "kl_penalty": (
        "initial_adaptive_kl_beta", "adaptive_kl_target", "adaptive_kl_tolerance", "kl_cutoff_factor", "kl_cutoff_coef",
    ),
}  # fmt: skip
OF_MEMORIES = ("memory", "memory_units", "sequence_length", "store_policy_state")


def for_workers(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """Settings that rollout workers can collect by: they take equally many steps."""
    if settings.rollout_workers == 0:
        if settings.ray_address:
            raise ValueError("ray_address is given without rollout_workers, expected it with workers only.")
        return settings
    if settings.num_environments % settings.rollout_workers:
        raise ValueError(
            f"num_environments is {settings.num_environments}, expected a multiple of rollout_workers, "
            f"{settings.rollout_workers}."
        )
    if settings.collect_steps_per_iteration is not None:
        return settings
    if given.get("collect_episodes_per_iteration") is not None:
        raise ValueError(
            "collect_episodes_per_iteration is given with rollout_workers, expected collect_steps_per_iteration: "
            "workers take equally many steps."
        )
    return dataclasses.replace(
        settings, collect_episodes_per_iteration=None, collect_steps_per_iteration=STEPS_OF_WORKERS
    )


def check_use(settings: Settings, given: Mapping[str, Any]) -> None:
    """Raises ValueError for values that were given and would have no effect."""
    other = "kl_penalty" if settings.agent == "clip" else "clip"
    for name in OF_VARIANT[other]:
        if name in given:
            raise ValueError(f"{name} is given with agent {settings.agent}, expected it with agent {other} only.")
    for name in OF_MEMORIES:
        if name in given and not settings.recurrent:
            raise ValueError(f"{name} is given without recurrent, expected it with recurrent networks only.")
    if settings.learning_rate_kl_target and settings.learning_rate_schedule != "constant":
        raise ValueError(
            f"learning_rate_schedule is {settings.learning_rate_schedule}, expected constant with "
            "learning_rate_kl_target, which adapts the learning rate."
        )
    for name in ("actor_observation_keys", "value_observation_keys"):
        if getattr(settings, name) and (settings.shared_torso or settings.shared_fc_layers):
            raise ValueError(
                f"{name} is {getattr(settings, name)!r}, expected '' with a shared torso or shared layers, which "
                "see what both networks see."
            )
    if settings.shared_torso and settings.shared_fc_layers:
        raise ValueError(
            f"shared_fc_layers is {settings.shared_fc_layers} with shared_torso, expected one of them: a shared torso "
            "has the layers of the policy."
        )


def size_of(num_minibatches: Any, settings: Settings) -> int:
    """The size of each of so many minibatches of an iteration."""
    steps = settings.steps_per_iteration
    if isinstance(num_minibatches, bool) or not isinstance(num_minibatches, int) or num_minibatches < 1:
        raise ValueError(f"nminibatches is {num_minibatches!r}, expected a positive int.")
    if steps is None:
        raise ValueError("nminibatches is given, expected collect_steps_per_iteration with it.")
    if steps % num_minibatches:
        raise ValueError(f"nminibatches is {num_minibatches}, expected a divisor of {steps}, the steps collected.")
    return steps // num_minibatches


def fit_minibatch(settings: Settings, is_given: bool) -> Settings:
    """Makes sure that the first iteration fills a minibatch."""
    steps = min(settings.total_environment_steps, settings.steps_per_iteration or settings.total_environment_steps)
    most = steps - steps % settings.num_environments
    if most < 1:
        raise ValueError(
            f"total_environment_steps is {settings.total_environment_steps}, expected at least num_environments, "
            f"{settings.num_environments}."
        )
    if settings.minibatch_size <= most:
        return settings
    if is_given:
        raise ValueError(f"minibatch_size is {settings.minibatch_size}, expected at most {most}, the steps collected.")
    return dataclasses.replace(settings, minibatch_size=most)
