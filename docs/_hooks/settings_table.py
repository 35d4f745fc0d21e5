"""Hyper-parameters and settings as their sources describe them, read without importing anything."""

from __future__ import annotations

import ast
import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "ppo_agent" / "config.py"
SETTINGS = ROOT / "ppo_agent" / "training" / "settings.py"
COLUMNS = ROOT / "ppo_agent" / "training" / "metrics_table.py"


def hyper_parameters() -> dict[str, tuple[Any, str]]:
    """Default and help of every field of `PPOConfig`, by name."""
    known = constants(CONFIG)
    fields = _fields(CONFIG, "PPOConfig")
    return {name: (_value(call.args[0], known), _value(call.args[1], known)) for name, call in fields}


def other_keywords() -> dict[str, str]:
    """Help of the agents' other keywords, by name."""
    return constants(CONFIG)["OTHER_KEYWORDS"]


def settings() -> dict[str, tuple[Any, str]]:
    """Default and help of every field of `Settings`, by name."""
    inherited, known = hyper_parameters(), constants(SETTINGS)
    found = {}
    for name, call in _fields(SETTINGS, "Settings"):
        first, *others = [_value(argument, known) for argument in call.args]
        keywords = {}
        for keyword in call.keywords:
            with contextlib.suppress(NameError):  # Choices that a module computes; the text describes them.
                keywords[keyword.arg] = _value(keyword.value, known)
        if call.func.id == "_of_agent":  # The agent's name; then another default, another text, or both.
            default, text = inherited[first]
            default, text, *_ = [*others, *(default, text)[len(others) :]]
            text = keywords.get("text", text)
        else:
            default, (text, *_) = first, others
        if "choices" in keywords:
            text = f"{text}; one of {', '.join(keywords['choices'])}"
        found[name] = (default, text)
    return found


def of_settings() -> str:
    """A table of `ppo-train`'s settings."""
    rows = [f"| `--{name}` | `{_shown(default)}` | {_cell(text)} |" for name, (default, text) in settings().items()]
    return "\n".join(["| flag | default | meaning |", "|---|---|---|", *rows])


def of_columns() -> str:
    """The columns of metrics.csv, in their order."""
    return ", ".join(f"`{name}`" for name in constants(COLUMNS)["COLUMNS"])


def _fields(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """Names and values of a dataclass's fields."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.value


@functools.cache
def constants(path: Path) -> dict[str, Any]:
    """What a module's assignments say that need nothing but each other, and other such modules of the package."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ppo_agent."):
            file = ROOT / (node.module or "").replace(".", "/")
            imported = constants(file.with_suffix(".py")) if file.with_suffix(".py").exists() else {}
            found |= {
                alias.asname or alias.name: imported[alias.name] for alias in node.names if alias.name in imported
            }
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            with contextlib.suppress(Exception):  # It needs something else.
                found[ast.unparse(target)] = _value(node.value, found)
    return found


def _value(node: ast.expr, known: Mapping[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<documentation>", "eval"), dict(known))  # noqa: S307


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or "''"
    return str(default)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
