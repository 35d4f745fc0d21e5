"""Signals that end a run in order."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from ppo_agent.training.command_line import Interrupted, warn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# From the signal to the end of the process if the program is busy all the time, as in a long compilation.
GRACE_SECONDS = 7.0
# Ends the watching thread; no signal has this number.
_CLOSE = 0


class InterruptGuard:
    """While entered, signals raise `Interrupted`, but never in the middle of what `deferred` covers.

    Only the first signal does: a second one has its usual effect, so that an impatient user can always leave. SIGHUP
    is left alone where it is ignored, as under nohup. Outside of the main thread a guard does nothing.

    Args:
        signals: their numbers.
        watched: whether a thread ends the process, with the status that `Interrupted` would have led to, if the
            program does not act on a signal in time, because what is deferred or a call of TensorFlow takes too long.
    """

    def __init__(self, signals: Sequence[int] = SIGNALS, *, watched: bool = True) -> None:
        self._signals, self._is_watched = signals, watched
        self._previous: dict[int, Any] = {}
        self._depth = 0
        self._is_patient = False
        self._watch: _Watch | None = None
        self._outer: InterruptGuard | None = None
        self.pending: int | None = None

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is threading.main_thread():
            self._outer, _Active.guard = _Active.guard, self
            self._watch = _Watch() if self._is_watched else None
            for number in self._signals:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if _Active.guard is self:
            _Active.guard = self._outer
        self._restore()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    @contextlib.contextmanager
    def deferred(self, *, patient: bool = False) -> Iterator[None]:
        """Holds a signal back until the block is done; a `patient` one may take as long as it does."""
        self._depth += 1
        self._is_patient |= patient
        if self._is_patient and self.pending is not None:
            self._call_off()
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._is_patient = False
        if self._depth == 0 and self.pending is not None:
            number, self.pending = self.pending, None
            self._interrupt(number)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._restore()
        if self._depth == 0:
            self._interrupt(number)
        self.pending = number
        if self._is_patient:
            self._call_off()

    def _interrupt(self, number: int) -> None:
        self._call_off()
        raise Interrupted(number)

    def _call_off(self) -> None:
        if self._watch is not None:
            self._watch.call_off()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def leave_to_parent(self) -> None:
        """In a forked child: signals have their usual effect here, and do not concern the parent."""
        with contextlib.suppress(ValueError):  # Forked by another thread.
            self._restore()
            signal.set_wakeup_fd(-1)


class _Active:
    """The innermost guard that is entered."""

    guard: InterruptGuard | None = None


def active_guard() -> InterruptGuard | None:
    """The innermost guard that is entered, None for none."""
    return _Active.guard


def _after_fork() -> None:
    while (guard := _Active.guard) is not None:
        guard.leave_to_parent()
        _Active.guard = guard._outer


os.register_at_fork(after_in_child=_after_fork)


class _Watch:
    """A thread that sees signals come while the main thread cannot, and ends the process if it does not act in time."""

    def __init__(self) -> None:
        self._is_called_off = threading.Event()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
        self._thread.start()

    def call_off(self) -> None:
        """The main thread has acted."""
        self._is_called_off.set()

    def close(self) -> None:
        """Ends the thread; an end of the pipe in another process does not matter."""
        self.call_off()
        signal.set_wakeup_fd(self._previous)
        os.write(self._writer, bytes([_CLOSE]))
        self._thread.join()
        os.close(self._writer)
        os.close(self._reader)

    def _run(self) -> None:
        while (number := os.read(self._reader, 1)[0]) != _CLOSE:
            if number in SIGNALS and not self._is_called_off.wait(GRACE_SECONDS):
                warn(f"signal {number} came {GRACE_SECONDS:.0f} s ago, and the program is still busy: it ends now.")
                os._exit(128 + number)
