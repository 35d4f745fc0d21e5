"""The imports that nobody who uses TF-Agents can avoid, and nothing else."""

from __future__ import annotations

import os
from importlib import util

if util.find_spec("tf_keras"):
    os.environ["TF_USE_LEGACY_KERAS"] = "1"

import tensorflow  # noqa: F401, ICN001
import tf_agents  # noqa: F401

from benchmarks import measure


def main() -> None:
    """Reports the time since the start of the process."""
    arguments = measure.parse()
    result = {
        "startup_s": measure.seconds_since_start(),
        "peak_memory_mb": measure.peak_memory_mb(),
        "other_cores": 0.0,
    }
    measure.emit(result, arguments, "tensorflow", "tf-agents")


if __name__ == "__main__":
    main()
