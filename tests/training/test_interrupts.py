"""Signals."""

import os
import signal

import pytest

from ppo_agent.training.command_line import Interrupted
from ppo_agent.training.interrupts import InterruptGuard


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_once(number: int) -> None:
    before = signal.getsignal(number)
    with InterruptGuard() as guard:
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), number)
        assert caught.value.signal_number == number
        assert signal.getsignal(number) == before  # The next one has its usual effect.
        with guard.deferred():
            pass
    assert signal.getsignal(number) == before


def test_a_deferred_signal_waits_for_the_end_of_the_block() -> None:
    done = []

    def work(guard: InterruptGuard) -> None:
        with guard.deferred():
            with guard.deferred():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("never")

    with InterruptGuard() as guard, pytest.raises(Interrupted):
        work(guard)
    assert done == ["inner", "outer"]


def test_handlers_are_put_back_without_a_signal() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with InterruptGuard():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
