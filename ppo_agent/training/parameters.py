"""Networks and observation normaliser of an agent as arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ppo_agent.agent import PPOAgent
from ppo_agent.checkpoint import CheckpointError, CheckpointStore
from ppo_agent.checkpoint.variables import named_variables
from ppo_agent.common.types import Array
from ppo_agent.training.command_line import warn

_NETWORKS = ("_actor_net/", "_value_net/")
_NORMALIZERS = ("_observation_normalizer/", "_reward_normalizer/", "_value_scale/")


class LoadedParameters(NamedTuple):
    """What `load_parameters` has done.

    Attributes:
        loaded: names of the variables that were taken over.
        skipped: why, by the names of those that were not.
    """

    loaded: list[str]
    skipped: dict[str, str]


def get_parameters(agent: PPOAgent) -> dict[str, Array]:
    """The variables of networks and normalisers by name, copies."""
    return {name: variable.numpy().copy() for name, variable in _variables(agent).items()}


def load_parameters(agent: PPOAgent, source: Any, *, exact_match: bool = True) -> LoadedParameters:
    """Takes over variables by name, see `Trainer.load_parameters`."""
    arrays = source if isinstance(source, Mapping) else _read(Path(source))
    variables = _variables(agent)
    found = {name: _misfit(variables.get(name), arrays.get(name)) for name in sorted({*variables, *arrays})}
    skipped = {name: reason for name, reason in found.items() if reason is not None}
    loaded = [name for name, reason in found.items() if reason is None]
    if (exact_match and skipped) or not loaded:
        reasons = "; ".join(f"{name} {reason}" for name, reason in list(skipped.items())[:10])
        hint = " (exact_match=False takes what fits)" if loaded else ""
        raise ValueError(f"parameters do not fit: {reasons}{hint}.")
    for name in loaded:
        variables[name].assign(np.asarray(arrays[name]))
    return LoadedParameters(loaded, skipped)


def _variables(agent: PPOAgent) -> dict[str, tf.Variable]:
    names = named_variables(agent, leave_out=[agent._optimizer] if agent._optimizer is not None else [])
    return {name: variable for name, variable in names.items() if name.startswith((*_NETWORKS, *_NORMALIZERS))}


def _misfit(variable: tf.Variable | None, array: Any) -> str | None:
    if variable is None:
        return "is not in this agent"
    if array is None:
        return "is not in what is loaded"
    array = np.asarray(array)
    if array.shape != tuple(variable.shape):
        return f"has shape {array.shape}, expected {tuple(variable.shape)}"
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        return "holds something else than finite numbers"
    return None


def _read(path: Path) -> dict[str, Array]:
    """The variables in the folder of a run, of a saved trainer, or of checkpoints."""
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    loaded = CheckpointStore(folder, tell=warn).newest_sound()
    if loaded is None:
        raise CheckpointError(f"{path} holds no checkpoint, expected the folder of a run or of a saved trainer.")
    arrays = {name.removeprefix("agent/"): array for name, array in loaded.arrays.items()}
    return {name: array for name, array in arrays.items() if name.startswith((*_NETWORKS, *_NORMALIZERS))}
