"""Signals."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from ppo_agent.training import interrupts
from ppo_agent.training.command_line import Interrupted
from ppo_agent.training.interrupts import InterruptGuard


@pytest.fixture
def obeys_hangup() -> Iterator[None]:
    """Tests that `nohup` started ignore a hangup, and so would the guard."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_interrupts_once(number: int, obeys_hangup: None) -> None:
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


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Statuses that the process would have ended with; grace is short."""
    statuses: list[int] = []
    monkeypatch.setattr(interrupts, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(os, "_exit", statuses.append)
    return statuses


def be_busy(guard: InterruptGuard) -> None:
    with guard.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.0)


def test_a_program_that_does_not_get_to_it_is_ended(exits: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    with InterruptGuard() as guard, pytest.raises(Interrupted):
        be_busy(guard)
    assert exits == [143]
    assert "still busy" in capsys.readouterr().err


def test_a_program_that_acts_in_time_is_left_alone(exits: list[int]) -> None:
    with InterruptGuard() as guard:
        with pytest.raises(Interrupted), guard.deferred():
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
    assert not exits
    assert "signals" not in [thread.name for thread in threading.enumerate()]


def test_a_patient_block_takes_the_time_that_it_takes(exits: list[int]) -> None:
    done = []

    def work(guard: InterruptGuard) -> None:
        with guard.deferred(patient=True):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
            done.append("work")

    with InterruptGuard() as guard, pytest.raises(Interrupted):
        work(guard)
    assert done == ["work"]
    assert not exits


def test_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with InterruptGuard():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_child_that_survives_holds_nothing_up() -> None:
    """It has a copy of every pipe; signals that it gets are its own affair."""
    with InterruptGuard():
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        time.sleep(0.1)
        start = time.monotonic()
    try:
        assert time.monotonic() - start < 1
    finally:
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
