"""Proximal policy optimisation for TensorFlow and TF-Agents.

The agent is here, the networks are in `ppo_agent.networks`, collection is in `ppo_agent.drivers`. Import ppo_agent
before tensorflow: it sees to it that TensorFlow uses the Keras that TF-Agents needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ppo_agent import _stack, gin_names

_stack.prepare()

_stack.find_mapped_packages()

gin_names.watch_imports()

if TYPE_CHECKING:
    from ppo_agent.agent import PPOAgent
    from ppo_agent.learner.nonfinite import NonFiniteUpdateError
    from ppo_agent.learner.report import PPOLossInfo
    from ppo_agent.policy import PPOPolicy
    from ppo_agent.ppo_learner import PPOLearner
    from ppo_agent.trainer import Trainer
    from ppo_agent.variants import PPOClipAgent, PPOKLPenaltyAgent

__version__ = "1.0.0"

__all__ = [
    "NonFiniteUpdateError",
    "PPOAgent",
    "PPOClipAgent",
    "PPOKLPenaltyAgent",
    "PPOLearner",
    "PPOLossInfo",
    "PPOPolicy",
    "Trainer",
    "__version__",
]

# Loaded on first use, so that `import ppo_agent.networks` does not pay for the agent.
_MODULE_OF = {
    "NonFiniteUpdateError": "ppo_agent.learner.nonfinite",
    "PPOAgent": "ppo_agent.agent",
    "PPOClipAgent": "ppo_agent.variants",
    "PPOKLPenaltyAgent": "ppo_agent.variants",
    "PPOLearner": "ppo_agent.ppo_learner",
    "PPOLossInfo": "ppo_agent.learner.report",
    "PPOPolicy": "ppo_agent.policy",
    "Trainer": "ppo_agent.trainer",
}

# Each stands in for the module of this name in `tf_agents.agents.ppo`, as this package does for its `ppo_agent`.
_STAND_INS = ("ppo_clip_agent", "ppo_kl_penalty_agent", "ppo_policy", "ppo_utils")


def __getattr__(name: str) -> Any:
    """Imports a public name on first use."""
    if name in _STAND_INS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # The agent first: the rooms of the others are inside of what it imports.
    importlib.import_module("ppo_agent.agent")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns all names, those not loaded yet included."""
    return sorted({*globals(), *__all__, *_STAND_INS})
