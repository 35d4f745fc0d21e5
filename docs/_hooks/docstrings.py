"""Docstrings as the site shows them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))

import settings_table

PLACE = "{keywords}"


class Docstrings(griffe.Extension):
    """Replaces `{keywords}`, as `ppo_agent.config.document_keywords` does, and keeps `[...]` from being a link."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Shapes with any number of dimensions are no links."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("[...]", "\\[...\\]")

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Fills in the docstring of a constructor."""
        if func.docstring is None or PLACE not in func.docstring.value:
            return
        described = {name: text for name, (_, text) in settings_table.hyper_parameters().items()}
        described |= settings_table.other_keywords()
        names = [parameter.name for parameter in func.parameters if parameter.name in described]
        lines = [f"    {name}: {described[name]}." for name in names]
        func.docstring.value = func.docstring.value.replace(PLACE, "\n".join(["Args:", *lines]))
