"""Processes that end when the one that started them ends, whatever ended it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl.
_INTERVAL_S = 0.5


def end_with_parent(parent: int, started_in_main_thread: bool) -> None:
    """Ends this process when its parent ends, in the middle of a step too.

    A thread asks for the parent every half second. It cannot run while a simulator written in C holds Python's lock;
    Linux kills the process in that case too, but it takes the end of the thread that started the process for the end
    of the parent, so that it is asked to only where that was the main thread.
    """
    if sys.platform == "linux" and started_in_main_thread:
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    threading.Thread(target=_watch, args=(parent,), name="parent watch", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_INTERVAL_S)
    os._exit(1)
