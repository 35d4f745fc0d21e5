"""The hyper-parameters of PPO, checked all at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ppo_agent.maths.schedules import Scheduled

REWARD_STATISTICS = ("reward", "return")


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """What `PPOAgent`'s numbers and switches are, after checking; the names are those of its keywords.

    Zero means "off" for every clipping, coefficient, penalty and limit; None is taken as zero.

    Raises:
        ValueError: at least one value is out of range; the message names all of them.
    """

    importance_ratio_clipping: Scheduled = 0.0
    lambda_value: float = 0.95
    discount_factor: float = 0.99
    entropy_regularization: Scheduled = 0.0
    policy_l2_reg: float = 0.0
    value_function_l2_reg: float = 0.0
    shared_vars_l2_reg: float = 0.0
    value_pred_loss_coef: float = 0.5
    num_epochs: int = 25
    use_gae: bool = False
    use_td_lambda_return: bool = False
    normalize_rewards: bool = True
    reward_norm_clipping: float = 10.0
    normalize_observations: bool = True
    log_prob_clipping: float = 0.0
    kl_cutoff_factor: float = 2.0
    kl_cutoff_coef: float = 1000.0
    initial_adaptive_kl_beta: float = 1.0
    adaptive_kl_target: float = 0.01
    adaptive_kl_tolerance: float = 0.3
    gradient_clipping: float = 0.0
    value_clipping: float = 0.0
    check_numerics: bool = False
    compute_value_and_advantage_in_train: bool = True
    aggregate_losses_across_replicas: bool = True
    minibatch_size: int | None = None
    jit_compile: bool | None = None
    store_policy_state: bool = False
    sequence_length: int | None = None
    target_kl: float = 0.0
    normalize_rewards_by: str = "reward"
    max_skipped_steps: int = 10

    def __post_init__(self) -> None:
        """Reads None as "off" and checks every value."""
        for name in ("kl_cutoff_factor", "gradient_clipping", "value_clipping", "target_kl", "max_skipped_steps"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, 0.0)
        problems = [*self._problems(), *self._switch_problems()]
        if problems:
            raise ValueError("; ".join(problems) + ".")
        for name in ("num_epochs", "max_skipped_steps"):
            object.__setattr__(self, name, int(getattr(self, name)))
        for name in ("minibatch_size", "sequence_length"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def uses_l2(self) -> bool:
        """Whether any weight decay is on."""
        return self.policy_l2_reg > 0 or self.value_function_l2_reg > 0 or self.shared_vars_l2_reg > 0

    @property
    def uses_kl_penalty(self) -> bool:
        """Whether the loss has a KL term."""
        return self.initial_adaptive_kl_beta > 0 or self.kl_cutoff_factor > 0

    def _switch_problems(self) -> Iterator[str]:
        for name in _SWITCHES:
            value = getattr(self, name)
            # Texts such as "False" are true.
            if not isinstance(value, (bool, np.bool_, int)) or value not in (0, 1):
                yield f"{name} is {value!r}, expected True or False"
        if self.jit_compile is not None and not isinstance(self.jit_compile, (bool, np.bool_)):
            yield f"jit_compile is {self.jit_compile!r}, expected None, True or False"

    def _problems(self) -> Iterator[str]:
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if not (name in _SCHEDULED and callable(value)) and not 0 <= number(value) < math.inf:
                yield f"{name} is {getattr(self, name)!r}, expected a finite number of at least 0"
        for name in ("lambda_value", "discount_factor"):
            if not 0 <= number(getattr(self, name)) <= 1:
                yield f"{name} is {getattr(self, name)!r}, expected a number between 0 and 1"
        if self.sequence_length is not None and not self.store_policy_state:
            yield (
                f"sequence_length is {self.sequence_length!r}, expected None without store_policy_state: a sequence "
                "that starts within an episode needs the state of the networks there"
            )
        if self.normalize_rewards_by not in REWARD_STATISTICS:
            yield f"normalize_rewards_by is {self.normalize_rewards_by!r}, expected {' or '.join(REWARD_STATISTICS)}"
        for name in ("num_epochs", "minibatch_size", "sequence_length"):
            value = getattr(self, name)
            may_be_none = name != "num_epochs"
            if not (value is None and may_be_none) and not (number(value) >= 1 and number(value) % 1 == 0):
                yield f"{name} is {value!r}, expected an integer of at least 1"
        if not (number(self.max_skipped_steps) >= 0 and number(self.max_skipped_steps) % 1 == 0):
            yield f"max_skipped_steps is {self.max_skipped_steps!r}, expected an integer of at least 0"


def number(value: Any) -> float:
    """The value, NaN for anything that is no number, texts and arrays of several included."""
    try:
        return float(value) if hasattr(value, "__float__") else math.nan
    except (TypeError, ValueError):
        return math.nan


_SWITCHES = (
    "use_gae",
    "use_td_lambda_return",
    "normalize_rewards",
    "normalize_observations",
    "check_numerics",
    "compute_value_and_advantage_in_train",
    "aggregate_losses_across_replicas",
    "store_policy_state",
)
_NOT_NEGATIVE = (
    "importance_ratio_clipping",
    "entropy_regularization",
    "policy_l2_reg",
    "value_function_l2_reg",
    "shared_vars_l2_reg",
    "value_pred_loss_coef",
    "reward_norm_clipping",
    "log_prob_clipping",
    "kl_cutoff_factor",
    "kl_cutoff_coef",
    "initial_adaptive_kl_beta",
    "adaptive_kl_target",
    "adaptive_kl_tolerance",
    "gradient_clipping",
    "value_clipping",
    "target_kl",
)
_SCHEDULED = ("importance_ratio_clipping", "entropy_regularization")
