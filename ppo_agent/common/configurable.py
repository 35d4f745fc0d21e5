"""Classes and functions that gin files configure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

_Target = TypeVar("_Target", bound=Callable[..., Any])


def configurable(module: str, name: str | None = None) -> Callable[[_Target], _Target]:
    """Decorator of a class or a function that gin configures.

    Where gin has values for it, it is called by gin; else it is as without the decorator: gin appends a line to every
    error.

    Args:
        module: what gin takes for its module. One of TF-Agents' with the same class in it makes both classes share
            their values.
        name: what gin takes for its name; None for its own. gin refuses a name that ends another one's dotted name,
            so what is named as another class of TF-Agents needs one of its own.
    """

    def decorate(target: _Target) -> _Target:
        import gin

        selector = f"{module}.{name or target.__name__}"
        owner: Any = target
        plain = owner.__init__ if isinstance(target, type) else target
        with gin.config.interactive_mode():  # TF-Agents may have registered its own.
            configured: Any = gin.configurable(name, module=module)(target)
        by_gin = owner.__init__ if isinstance(target, type) else configured

        @functools.wraps(plain)
        def call(*arguments: Any, **keywords: Any) -> Any:
            has_values = gin.get_bindings(selector, resolve_references=False)
            return (by_gin if has_values else plain)(*arguments, **keywords)

        if not isinstance(target, type):
            return call  # type: ignore[return-value]
        owner.__init__ = call
        return target

    return decorate
