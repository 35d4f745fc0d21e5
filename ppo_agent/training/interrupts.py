"""Signals that end a run in order."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ppo_agent.training.command_line import Interrupted, warn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# From the signal to the end of the process if the program is busy all the time, as in a long compilation.
GRACE_SECONDS = 7.0


class InterruptGuard:
    """While entered, SIGINT and SIGTERM raise `Interrupted`, but never in the middle of what `deferred` covers.

    Only the first signal does: a second one has its usual effect, so that an impatient user can always leave. If the
    program does not get to raising it in time, because what is deferred or a call of TensorFlow takes too long, a
    thread calls `on_overdue` and ends the process with the status that `Interrupted` would have led to.

    Attributes:
        on_overdue: called in another thread, while the program is still busy.
    """

    def __init__(self) -> None:
        self.on_overdue: Callable[[], None] = _do_nothing
        self._previous: dict[int, Any] = {}
        self._pending: int | None = None
        self._depth = 0
        self._watch: _Watch | None = None

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is threading.main_thread():
            self._watch = _Watch(self._give_up)
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

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
            self._interrupt(number)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._restore()
        if self._depth == 0:
            self._interrupt(number)
        self._pending = number

    def _interrupt(self, number: int) -> None:
        if self._watch is not None:
            self._watch.call_off()
        raise Interrupted(number)

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _give_up(self, number: int) -> None:
        try:
            warn(f"signal {number} came {GRACE_SECONDS:.0f} s ago, and the program is still busy: it ends now.")
            self.on_overdue()
        finally:
            os._exit(128 + number)


class _Watch:
    """A thread that sees signals come while the main thread cannot, and looks whether it has acted on them in time."""

    def __init__(self, give_up: Callable[[int], None]) -> None:
        self._give_up = give_up
        self._is_called_off = threading.Event()
        # Whoever holds it goes on: the main thread with its work, or the watch with the end of the process.
        self._lock = threading.Lock()
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._previous = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
        self._thread.start()

    def call_off(self) -> None:
        """The main thread has acted; does not return if the watch was faster."""
        with self._lock:
            self._is_called_off.set()

    def close(self) -> None:
        """Ends the thread."""
        self.call_off()
        signal.set_wakeup_fd(self._previous)
        self._sender.close()
        self._thread.join()
        self._receiver.close()

    def _run(self) -> None:
        while received := self._receiver.recv(1):
            if received[0] in _SIGNALS and not self._is_called_off.wait(GRACE_SECONDS):
                with self._lock:
                    if not self._is_called_off.is_set():
                        self._give_up(received[0])


def _do_nothing() -> None:
    pass
