"""Signals that end a run in order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ppo_agent.training.command_line import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptGuard:
    """While entered, SIGINT and SIGTERM raise `Interrupted`, but never in the middle of what `deferred` covers.

    Only the first signal does: a second one has its usual effect, so that an impatient user can always leave.
    """

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}
        self._pending: int | None = None
        self._depth = 0

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Holds a signal back until the block is done."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._depth == 0 and self._pending is not None:
            number, self._pending = self._pending, None
            raise Interrupted(number)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._restore()
        if self._depth == 0:
            raise Interrupted(number)
        self._pending = number

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
