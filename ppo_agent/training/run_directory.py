"""The folder that a run writes into."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppo_agent.training.command_line import FlagError

_MARKS = ("settings.json", "metrics.csv", "result.json", "checkpoints")


class RunDirectory:
    """Paths of a run's files, and the checks that come before anything is written."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Names the folder; nothing is made yet."""
        self.path = Path(path)
        self.settings = self.path / "settings.json"
        self.result = self.path / "result.json"
        self.metrics = self.path / "metrics.csv"
        self.learning_curve = self.path / "learning_curve.png"
        self.checkpoints = self.path / "checkpoints"
        self.train_events, self.eval_events = self.path / "train", self.path / "eval"
        self.policy, self.policy_saver = self.path / "policy", self.path / "policy_saver"

    @property
    def holds_run(self) -> bool:
        """Whether a run has written into it."""
        return any((self.path / mark).exists() for mark in _MARKS)

    def check(self, resume: bool) -> None:
        """Checks that a run can be started here, or resumed.

        Raises:
            FlagError: it cannot be written, holds a run although a new one is to start, or holds none to resume.
        """
        if not _is_writable(self.path):
            raise FlagError(f"root_dir is {str(self.path)!r}, expected a folder that can be written.")
        if self.holds_run and not resume:
            raise FlagError(
                f"root_dir is {str(self.path)!r}, which already holds a run: expected --resume or another one."
            )
        if resume and not self.settings.exists():
            raise FlagError(f"root_dir is {str(self.path)!r}, expected the folder of a run, because resume is given.")

    def create(self) -> None:
        """Makes the folder and those for events.

        Raises:
            FlagError: the system does not let it.
        """
        try:
            for folder in (self.train_events, self.eval_events):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlagError(
                f"root_dir is {str(self.path)!r}, expected a folder that can be written: {error.strerror}."
            ) from error


def default_root_dir(env_name: str) -> Path:
    """`runs/ENV/TIME`, a folder that does not exist yet."""
    name = re.sub(r"[^\w./-]", "_", env_name).strip("./")
    path = first = Path("runs", *(part for part in name.split("/") if part != ".."), time.strftime("%Y%m%d-%H%M%S"))
    number = 1
    while path.exists():
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    return path


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file, complete or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def _is_writable(path: Path) -> bool:
    """Whether the folder exists and can be written, or can be made."""
    for folder in (path, *path.absolute().parents):
        if folder.exists():
            return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    return False
