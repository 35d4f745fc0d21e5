"""How the fields of `Settings` are described."""

from __future__ import annotations

import dataclasses
from typing import Any

from ppo_agent.config import PPOConfig


def setting(default: Any, text: str, *, may_change: bool = False, none: bool = False, **limits: Any) -> Any:
    """A field.

    Args:
        default: its value; the kind follows from it.
        text: what it means, part of a sentence.
        may_change: whether a resumed run may have another value.
        none: whether None is a value; the kind is int then, unless the default says otherwise.
        **limits: `lower_bound` and `upper_bound` of a number, or `choices` of a text.
    """
    kind = int if default is None else type(default)
    metadata = {"help": text, "kind": kind, "limits": limits, "may_be_none": none, "may_change": may_change}
    return dataclasses.field(default=default, metadata=metadata)


def of_agent(name: str, default: Any = dataclasses.MISSING, text: str = "", *, may_change: bool = False) -> Any:
    """A field that is a hyper-parameter of the agent and described there; `default` and `text` replace its own."""
    field = PPOConfig.__dataclass_fields__[name]
    metadata = {**field.metadata, "help": text or field.metadata["help"], "may_change": may_change}
    if default is dataclasses.MISSING:
        default = field.default
    if default is not None and metadata["kind"] is not bool:
        metadata["may_be_none"] = False
    return dataclasses.field(default=default, metadata=metadata)
