"""What a run was started with, as its folder tells."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tf_agents.trajectories import time_step as ts

from ppo_agent.checkpoint import spec_codes
from ppo_agent.checkpoint.manifest import DamagedError
from ppo_agent.checkpoint.store import Loaded
from ppo_agent.common import atomic_files
from ppo_agent.common.checks import brief
from ppo_agent.common.types import Nest
from ppo_agent.training.action_encoding import ActionEncoding
from ppo_agent.training.settings import FIELDS, Settings


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """What a run was started with.

    Attributes:
        env_name: the name of its environment; None for one that was no name.
        seed: of the run.
        settings: of the run.
        own_agent: whether the agent was given ready.
        observation_spec: nest of specs; None in folders of earlier versions.
        action_spec: nest of specs, likewise.
        action_encoding: how the agent's actions become the environment's; None in folders of earlier versions.
    """

    env_name: str | None
    seed: int
    settings: Settings
    own_agent: bool = False
    observation_spec: Nest = None
    action_spec: Nest = None
    action_encoding: ActionEncoding | None = None

    @property
    def time_step_spec(self) -> ts.TimeStep:
        """Of the environment."""
        return ts.time_step_spec(self.observation_spec)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        specs = {"observation": spec_codes.encode(self.observation_spec), "action": spec_codes.encode(self.action_spec)}
        return {
            "env_name": self.env_name,
            "seed": self.seed,
            "settings": dataclasses.asdict(self.settings),
            "own_agent": self.own_agent,
            "specs": specs,
            "action_encoding": None if self.action_encoding is None else self.action_encoding.to_json(),
        }

    @classmethod
    def from_json(cls, document: Any) -> SavedRun:
        """Reads what `to_json` returned, of this version or an earlier one.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(document, dict) or not isinstance(document.get("settings"), dict):
            raise ValueError(f"the run is {brief(document)}, expected env_name, seed and settings.")
        name, seed, values = document.get("env_name"), document.get("seed"), document["settings"]
        if (
            not (name is None or isinstance(name, str))
            or isinstance(seed, bool)
            or not isinstance(seed, int)
            or seed < 0
        ):
            raise ValueError(f"env_name is {brief(name)} and seed {brief(seed)}, expected a name and a seed.")
        if unknown := sorted(set(values) - set(FIELDS)):
            raise ValueError(f"settings has {unknown[0]!r}, expected names of this version.")
        specs = document.get("specs")
        decoded = (None, None)
        if specs is not None:
            if not isinstance(specs, dict):
                raise ValueError(f"specs is {brief(specs)}, expected observation and action.")
            decoded = (spec_codes.decode(specs.get("observation")), spec_codes.decode(specs.get("action")))
        encoding = document.get("action_encoding")
        if encoding is not None and decoded[1] is not None:
            encoding = ActionEncoding.from_json(decoded[1], encoding)
        return cls(name, seed, Settings(**values), document.get("own_agent") is True, *decoded, encoding)


def of_checkpoint(loaded: Loaded) -> SavedRun:
    """The run that a checkpoint belongs to.

    Raises:
        DamagedError: it does not tell.
    """
    try:
        return SavedRun.from_json(loaded.manifest.hyper_parameters.get("run"))
    except ValueError as error:
        raise DamagedError(f"its run cannot be read: {error}") from error


def of_folder(settings_file: Path) -> SavedRun:
    """The run that a settings.json describes.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        return SavedRun.from_json(atomic_files.read_json(settings_file))
    except (OSError, ValueError) as error:
        raise ValueError(f"{settings_file} cannot be read: {error}") from error
