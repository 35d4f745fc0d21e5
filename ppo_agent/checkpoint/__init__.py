"""Training state on disk: complete or absent, checked before it is believed, and nothing in it is ever executed.

A checkpoint is a folder `checkpoint-NUMBER-STEP` with three files: `manifest.json` tells what it holds and the SHA-256
of everything, `variables.npz` holds the arrays (NumPy's format, without pickles), `state.json` all other state. Other
files in it are not read.
"""

from __future__ import annotations

from ppo_agent.checkpoint.store import CheckpointError, CheckpointStore
from ppo_agent.checkpoint.training import CheckpointMismatchError, TrainingCheckpoint

__all__ = ["CheckpointError", "CheckpointMismatchError", "CheckpointStore", "TrainingCheckpoint"]
