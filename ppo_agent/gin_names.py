"""gin: the classes of this package are configured under the names that TF-Agents has for them.

gin keeps values by a name such as `tf_agents.agents.ppo.ppo_agent.PPOAgent`, of which a gin file may write the end
(`PPOAgent`, `ppo_agent.PPOAgent`), and hands them to every class that goes by that name. So one setting holds for
whichever of the two classes a program makes. In order that a gin file finds the name, the classes are loaded as soon as
both gin and TF-Agents are; that takes some hundredths of a second more than TF-Agents takes anyway.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from importlib import abc, machinery, util
from types import ModuleType
from typing import Any

from ppo_agent import leftover_imports

# Where the classes are that have a name in gin files.
_MODULES = ("ppo_agent.agent", "ppo_agent.variants", "ppo_agent.policy")
_TF_AGENTS = "tf_agents.agents"
# Rooms that these modules need, and that can be imported before them.
_INNER = ("ppo_agent.learner", "ppo_agent.maths", "ppo_agent.common")


def watch_imports() -> None:
    """Loads the classes that have a name in gin files when both gin and TF-Agents are loaded."""
    sys.meta_path.insert(0, _Watch())
    _load_classes()


def _load_classes() -> None:
    """Loads them if that is due, and nothing that they need is being loaded right now."""
    is_due = _is_loaded("gin") and (_is_loaded(_TF_AGENTS) or "tf_agents" not in sys.modules)
    if is_due and not any(_is_being_loaded(name) for name in (*_MODULES, "tensorflow", *_inner_modules())):
        for name in _MODULES:
            importlib.import_module(name)
        _watch_leftovers()


def _inner_modules() -> list[str]:
    return [name for name in sys.modules if name.startswith(_INNER)]


@functools.cache
def _watch_leftovers() -> None:
    leftover_imports.watch()


def _is_loaded(name: str) -> bool:
    return name in sys.modules and not _is_being_loaded(name)


def _is_being_loaded(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


class _Watch(abc.MetaPathFinder):
    """Calls `_load_classes` behind the import of modules that it depends on."""

    _AWAITED = ("gin", _TF_AGENTS, "ppo_agent.agent")

    def __init__(self) -> None:
        self._looking_for: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> machinery.ModuleSpec | None:
        """Finds what the other finders find, with something to do behind it."""
        del path, target
        if name not in self._AWAITED or name in self._looking_for:
            return None
        self._looking_for.add(name)
        try:
            spec = util.find_spec(name)
        finally:
            self._looking_for.discard(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader)
        return spec


class _Then(abc.Loader):
    """A loader that does more when a module is there."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: machinery.ModuleSpec) -> ModuleType | None:
        """As the loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the loader; then sees whether classes are to be loaded."""
        self._loader.exec_module(module)
        spec: Any = module.__spec__
        if spec is not None:
            spec.loader = module.__loader__ = self._loader
            spec._initializing = False
        _load_classes()
