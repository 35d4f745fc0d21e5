"""Networks and observation normaliser of an agent as arrays by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ppo_agent.agent import PPOAgent
from ppo_agent.checkpoint import CheckpointError, CheckpointStore
from ppo_agent.checkpoint.variables import named_variables, unsound
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
    arrays, variables = _arrays_of(source), _variables(agent)
    names = sorted({*variables, *arrays}, key=str)
    values = {name: _fitted_or_why(name, variables.get(name), arrays.get(name)) for name in names}
    skipped = {str(name): reason for name, reason in values.items() if isinstance(reason, str)}
    loaded = [name for name, value in values.items() if not isinstance(value, str)]
    if (exact_match and skipped) or not loaded:
        reasons = "; ".join(f"{name} {reason}" for name, reason in list(skipped.items())[:10])
        hint = " (exact_match=False takes what fits)" if loaded else ""
        raise ValueError(f"parameters do not fit: {reasons}{hint}.")
    for name in loaded:
        variables[name].assign(values[name])
    return LoadedParameters(loaded, skipped)


def _variables(agent: PPOAgent) -> dict[str, tf.Variable]:
    names = named_variables(agent, leave_out=[agent._optimizer] if agent._optimizer is not None else [])
    return {name: variable for name, variable in names.items() if name.startswith((*_NETWORKS, *_NORMALIZERS))}


def _arrays_of(source: Any) -> Mapping[Any, Any]:
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"source is {type(source).__name__}, expected arrays by name, or the folder of a run.")
    return _read(Path(source))


def _fitted_or_why(name: Any, variable: tf.Variable | None, value: Any) -> Array | str:
    """What is to be assigned to a variable, or why nothing is."""
    if variable is None:
        return "is not in this agent"
    if value is None:
        return "is not in what is loaded"
    try:
        array = np.asarray(value)
    except ValueError:
        return f"is a {type(value).__name__} that makes no array"
    return _misfit(array, variable) or _sound_or_why(name, array, np.dtype(variable.dtype.as_numpy_dtype))


def _misfit(array: Array, variable: tf.Variable) -> str | None:
    if array.dtype.kind not in "biuf":
        return f"has dtype {array.dtype}, expected numbers"
    expected = tuple(variable.shape)
    return None if array.shape == expected else f"has shape {array.shape}, expected {expected}"


def _sound_or_why(name: str, array: Array, dtype: np.dtype) -> Array | str:
    with np.errstate(over="ignore", invalid="ignore"):
        fitted = array.astype(dtype)
    if dtype.kind in "biu" and not np.array_equal(fitted, array):
        return f"has other values than {dtype} holds"
    problem = unsound(name, fitted)
    return fitted if problem is None else f"holds {problem}"


def _read(path: Path) -> dict[str, Array]:
    """The variables in the folder of a run, of a saved trainer, or of checkpoints."""
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    loaded = CheckpointStore(folder, tell=warn).newest_sound()
    if loaded is None:
        raise CheckpointError(f"{path} holds no checkpoint, expected the folder of a run or of a saved trainer.")
    arrays = {name.removeprefix("agent/"): array for name, array in loaded.arrays.items()}
    return {name: array for name, array in arrays.items() if name.startswith((*_NETWORKS, *_NORMALIZERS))}
