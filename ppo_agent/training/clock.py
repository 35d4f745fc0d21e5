"""Time since the process started, imports of the interpreter included."""

from __future__ import annotations

import os
import time
from pathlib import Path

_IMPORTED = time.perf_counter()


def _age_at_import() -> float:
    """Seconds between the start of the process and the import of this module; 0 where the system does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


_AGE_AT_IMPORT = _age_at_import()


def seconds_since_process_start() -> float:
    """Wall time in seconds since the process started; since this module was imported where that is not known."""
    return _AGE_AT_IMPORT + time.perf_counter() - _IMPORTED
