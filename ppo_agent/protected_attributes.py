"""The protected attributes of TF-Agents' `PPOAgent`, for subclasses that read them.

Every hyper-parameter is a read-only property of the agent under the name it has there, which is that of the keyword
with an underscore in front: `_discount_factor`, `_gradient_clipping` (0.0 for none), ...; `lambda_value` is `_lambda`.
Beside these there are `_action_distribution_spec`, `_collected_as_transition` and `_grad_norm`, the mean over the last
call of `train`, before clipping.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from tf_agents.agents import data_converter

from ppo_agent.config import PPOConfig
from ppo_agent.learner import report

_Class = TypeVar("_Class", bound=type)
_OTHER_NAMES = {"lambda_value": "_lambda"}


def add_protected_attributes(cls: _Class) -> _Class:
    """Decorator of an agent with `_config`, `_codec` and `_report` that adds the properties to it."""
    for field in dataclasses.fields(PPOConfig):
        setattr(cls, _OTHER_NAMES.get(field.name, f"_{field.name}"), _hyper_parameter(field.name))
    target: Any = cls
    target._action_distribution_spec = property(lambda agent: agent._codec.spec)
    target._collected_as_transition = property(_collected_as_transition)
    target._grad_norm = _ReportedGradientNorm()
    return cls


class _ReportedGradientNorm:
    """Unlike a property, it gives way to what a subclass's own `_train` assigns, as both of TF-Agents' clients do."""

    def __get__(self, agent: Any, _: type | None = None) -> Any:
        return self if agent is None else report.entry(agent._report, "gradient_norm")


def _hyper_parameter(name: str) -> property:
    def read(agent: Any) -> Any:
        return getattr(agent._config, name)

    def refuse(agent: Any, value: Any) -> None:
        raise AttributeError(
            f"{type(agent).__name__}._{name} is set to {value!r}, expected it as the keyword {name} of the constructor."
        )

    return property(read, refuse, doc=f"The keyword `{name}` of the constructor.")


def _collected_as_transition(agent: Any) -> data_converter.AsTransition:
    return data_converter.AsTransition(agent.collect_data_context, squeeze_time_dim=False)
