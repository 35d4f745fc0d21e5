"""Room in this process for what XLA compiles.

A compiled update is about 400 mappings of memory, which XLA never lets go of. Linux allows a process some 65,000 of
them, and at the next one TensorFlow ends with a segmentation fault: so would a search in one process over some 150
sizes of networks.
"""

from __future__ import annotations

from pathlib import Path

FULL = "this process has no room for another compiled program, see vm.max_map_count"

_LIMIT = Path("/proc/sys/vm/max_map_count")
_MAPPINGS = Path("/proc/self/maps")
_LARGEST_SHARE = 0.9


def is_left() -> bool:
    """Whether the process can hold another program; True where nobody knows, as on systems other than Linux."""
    try:
        limit = int(_LIMIT.read_text())
        with _MAPPINGS.open("rb") as mappings:
            taken = sum(1 for _ in mappings)
    except (OSError, ValueError):
        return True
    return taken <= _LARGEST_SHARE * limit
