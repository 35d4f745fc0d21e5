"""Training state on disk."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tf_agents.agents import tf_agent

KEPT = 3


class TrainingCheckpoint:
    """Saves and restores an agent with its networks, optimiser, normalisers and counters, and plain numbers with it.

    A checkpoint is complete or absent; the last few are kept.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        agent: tf_agent.TFAgent,
        optimizer: Any,
        get_state: Callable[[], Any],
        set_state: Callable[[Any], None],
    ) -> None:
        """Names what is saved; nothing is read or written yet.

        Args:
            directory: where the checkpoints lie; made by the first one.
            agent: the agent.
            optimizer: its optimiser.
            get_state: returns everything else, of what JSON knows.
            set_state: takes it over again.
        """
        self._directory = Path(directory)
        self._checkpoint = tf.train.Checkpoint(agent=agent, optimizer=optimizer, state=_JsonState(get_state, set_state))
        self._manager: tf.train.CheckpointManager | None = None

    def save(self, environment_steps: int) -> None:
        """Writes a checkpoint, unless there is one of this number of environment steps."""
        if self._manager is None:
            self._manager = tf.train.CheckpointManager(self._checkpoint, str(self._directory), max_to_keep=KEPT)
        if self._manager.latest_checkpoint is None or steps_of(self._manager.latest_checkpoint) != environment_steps:
            self._manager.save(checkpoint_number=environment_steps)

    def restore(self) -> bool:
        """Takes over the newest checkpoint; returns whether there is one.

        Variables that do not exist yet, such as an optimiser's, get their values when they are created.
        """
        latest = tf.train.latest_checkpoint(str(self._directory))
        if latest is None:
            return False
        self._checkpoint.restore(latest)
        return True


def steps_of(path: str | os.PathLike[str]) -> int:
    """The number of environment steps in a checkpoint's name."""
    match = re.search(r"-(\d+)$", os.fspath(path))
    return int(match[1]) if match else 0


def saved_steps(directory: str | os.PathLike[str]) -> int:
    """Environment steps of the newest checkpoint in a folder, 0 without one."""
    latest = tf.train.latest_checkpoint(os.fspath(directory))
    return 0 if latest is None else steps_of(latest)


class _JsonState(tf.train.experimental.PythonState):
    """Plain numbers in a checkpoint."""

    def __init__(self, get_state: Callable[[], Any], set_state: Callable[[Any], None]) -> None:
        super().__init__()
        self._get_state, self._set_state = get_state, set_state

    def serialize(self) -> str:
        return json.dumps(self._get_state())

    def deserialize(self, string_value: str) -> None:
        self._set_state(json.loads(string_value))
