"""Settings from gin files and bindings, as TF-Agents' programs take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gin

from ppo_agent.training.settings import check_names

# Whose bindings are settings.
_OWNERS = ("Trainer", "PPOAgent", "PPOClipAgent", "PPOKLPenaltyAgent", "ppo_train")


def read(files: Sequence[str], bindings: Sequence[str]) -> dict[str, Any]:
    """The settings that gin files and bindings give, by name; a later one beats an earlier one.

    Bindings to `Trainer`, `PPOAgent` and its variants, such as `PPOAgent.num_epochs = 4`, are settings of the same
    names. Others are left to gin, for what their own modules have registered.

    Raises:
        ValueError: a file cannot be read, or a binding is no setting.
    """
    settings: dict[str, Any] = {}
    others: list[str] = []
    try:
        texts = [_read(path) for path in files]
        for statement in _statements("\n".join([*texts, *bindings])):
            _sort(statement, settings, others)
        gin.parse_config("\n".join(others))
    except (SyntaxError, NameError, ImportError) as error:
        raise ValueError(f"gin_binding: {error}") from error
    check_names(settings)
    return settings


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"gin_file is {path!r}, which cannot be read: {error.strerror}.") from error


def _statements(text: str) -> list[Any]:
    return list(gin.config_parser.ConfigParser(text, gin.config.ParserDelegate()))


def _sort(statement: Any, settings: dict[str, Any], others: list[str]) -> None:
    """Puts a statement where it belongs."""
    parser = gin.config_parser
    if isinstance(statement, parser.IncludeStatement):
        for included in _statements(_read(statement.filename)):
            _sort(included, settings, others)
    elif isinstance(statement, parser.ImportStatement):
        # What TF-Agents' module registers are the classes whose bindings are settings here.
        if not statement.module.startswith("tf_agents.agents.ppo"):
            others.append(f"import {statement.module}")
    elif statement.selector.rpartition(".")[2] in _OWNERS and not statement.scope:
        settings[statement.arg_name] = statement.value
    else:
        scope = f"{statement.scope}/" if statement.scope else ""
        others.append(f"{scope}{statement.selector}.{statement.arg_name} = {statement.value!r}")
