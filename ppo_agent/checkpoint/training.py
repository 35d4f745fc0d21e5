"""An agent and what belongs to its training, saved and restored."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_agent.agent import PPOAgent
from ppo_agent.checkpoint import array_files, descriptions
from ppo_agent.checkpoint.store import CheckpointStore, Loaded
from ppo_agent.checkpoint.variables import Variables, named_variables, optimizer_variables, unsound

_REPORT = "agent/_report"
# What training continues from, and not what was last trained on, which may be anything.
_MUST_BE_SOUND = (
    "agent/_actor_net/", "agent/_value_net/", "agent/_observation_normalizer/", "agent/_reward_normalizer/",
    "agent/_value_scale/", "agent/_adaptive_kl_beta", "optimizer/",
)  # fmt: skip
# Entries that reports of `train` had in earlier versions.
_SHORTER_REPORTS = (17,)
_ARRAY = "__array__"
# What changes how an update is carried out, or when it is given up, and not what it computes.
_MAY_DIFFER = ("agent check_numerics", "agent jit_compile", "agent max_skipped_steps")
_MOST_TOLD = 10


class CheckpointMismatchError(ValueError):
    """A checkpoint does not fit the agent or what else is to be restored; nothing was changed."""


class UnusableStateError(CheckpointMismatchError):
    """A checkpoint holds values that nothing can continue from, such as weights that are NaN; nothing was changed."""


class TrainingCheckpoint:
    """Saves and restores an agent: networks, optimiser, normalisers, adaptive beta, counters, random state.

    Further parts are saved with it by name: environments in TensorFlow operations and everything else that has
    variables, and objects with `get_state` and `set_state`, such as drivers and `EpisodeStatistics`.

    Example:
        checkpoint = TrainingCheckpoint("checkpoints", agent=agent, driver=driver, statistics=statistics)
        first = (checkpoint.restore() or 0) + 1
        for iteration in range(first, 101):
            ...
            checkpoint.save(iteration)
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | CheckpointStore,
        *,
        agent: PPOAgent,
        kept: int = 3,
        hyper_parameters: Mapping[str, Any] | None = None,
        may_differ: Collection[str] = (),
        tell: Callable[[str], None] = warnings.warn,
        **parts: Any,
    ) -> None:
        """Names what is saved; nothing is read or written yet.

        Args:
            directory: where the checkpoints lie; made by the first one. One process at a time may write there. A
                `CheckpointStore` knows `kept` and `tell` already.
            agent: the agent.
            kept: how many of the last checkpoints are kept; the best by evaluation is kept too.
            hyper_parameters: of what JSON knows; written into the manifest beside the agent's own.
            may_differ: names of the agent's hyper-parameters that may be others than the checkpoint's.
            tell: takes a sentence for the user about damaged checkpoints.
            parts: what else is saved.

        Raises:
            TypeError: a part has neither variables nor `get_state` and `set_state`.
            ValueError: `kept` is less than 1.
        """
        for name, part in parts.items():
            if not _has_state(part) and not isinstance(part, tf.Module):
                raise TypeError(f"{name} is {part!r}, expected a tf.Module or an object with get_state and set_state.")
        self.store = directory if isinstance(directory, CheckpointStore) else CheckpointStore(directory, kept, tell)
        self._agent, self._parts = agent, parts
        self._hyper_parameters = dict(hyper_parameters or {})
        self._may_differ = {*_MAY_DIFFER, *(f"agent {name}" for name in may_differ)}
        self._specs = {
            "time_step": descriptions.describe_specs(agent.time_step_spec),
            "action": descriptions.describe_specs(agent.action_spec),
        }

    def save(self, step: int, evaluation: float | None = None) -> Path:
        """Writes a checkpoint, complete or not at all, and drops the oldest one if there are too many.

        Args:
            step: how far training has come, for its name.
            evaluation: the mean return of the policy, if it was evaluated: the best checkpoint is kept.

        Returns:
            Its folder.

        Raises:
            OSError: it cannot be written; those before stay as they are.
        """
        arrays, state = self.snapshot()
        return self.write(step, arrays, state, evaluation)

    def snapshot(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that is to be saved, as it is now: arrays by name, and what JSON knows."""
        arrays = {name: variable.numpy() for name, variable in self._variables().items()}
        state = {name: _take_out(part.get_state(), name, arrays) for name, part in self._stateful()}
        return arrays, state

    def write(self, step: int, arrays: Mapping[str, np.ndarray], state: Any, evaluation: float | None = None) -> Path:
        """Writes what `snapshot` returned, see `save`."""
        return self.store.write(
            step,
            arrays,
            state,
            evaluation=evaluation,
            specs=self._specs,
            hyper_parameters={**self._hyper_parameters, "agent": self._agent_parameters()},
        )

    def restore(self) -> int | None:
        """Takes over the newest sound checkpoint; its step, None if there are no checkpoints.

        Raises:
            CheckpointError: there are some and none is sound.
            CheckpointMismatchError: it does not fit; the message lists the differences, and nothing was changed.
        """
        loaded = self.store.newest_sound()
        if loaded is None:
            return None
        self.take_over(loaded)
        return loaded.manifest.step

    def take_over(self, loaded: Loaded, *, without: Collection[str] = ()) -> None:
        """Takes over a checkpoint.

        Args:
            loaded: the checkpoint.
            without: parts that it may hold and that are not restored now, see `take_over_parts`.

        Raises:
            CheckpointMismatchError: as `restore`.
        """
        running = loaded.arrays.get("agent/_running_return")
        self._agent.create_training_variables(None if running is None else len(running))
        variables = self._variables()
        loaded = loaded._replace(arrays=_of_this_version(loaded.arrays, variables))
        if found := list(self._misfits(loaded, variables, without)):
            rest = f"; and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
            raise CheckpointMismatchError(f"{loaded.path} does not fit: {'; '.join(found[:_MOST_TOLD])}{rest}.")
        for name in variables:
            if name.startswith(_MUST_BE_SOUND) and (problem := unsound(name, loaded.arrays[name])):
                raise UnusableStateError(f"{loaded.path} holds {name} with {problem}.")
        self._put(loaded, variables, dict(self._stateful()))

    def take_over_parts(self, loaded: Loaded, names: Collection[str]) -> None:
        """Takes over some parts of a checkpoint, those of them that it holds, and nothing of the agent.

        Raises:
            CheckpointMismatchError: they do not fit; nothing was changed.
        """
        variables = {name: v for name, v in self._variables().items() if name.partition("/")[0] in names}
        variables = {name: v for name, v in variables.items() if name in loaded.arrays}
        parts = {name: part for name, part in self._stateful() if name in names and name in loaded.state}
        self._put(loaded, variables, parts)

    def _put(self, loaded: Loaded, variables: Variables, parts: Mapping[str, Any]) -> None:
        """Gives variables and parts the values of a checkpoint, or leaves all as they are."""
        before = {name: part.get_state() for name, part in parts.items()}
        changed: list[str] = []
        try:
            for name, part in parts.items():
                changed.append(name)
                part.set_state(_put_in(loaded.state[name], loaded.arrays))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            for name in changed:
                parts[name].set_state(before[name])
            raise UnusableStateError(
                f"{loaded.path} holds a state of the part {changed[-1]} that does not fit: {type(error).__name__}: "
                f"{str(error).rstrip('.')}."
            ) from error
        # Names, shapes and dtypes were compared.
        for name, variable in variables.items():
            variable.assign(loaded.arrays[name])

    def _variables(self) -> Variables:
        """Everything that is saved as a variable, by name."""
        agent = self._agent
        agent.create_training_variables()
        optimizer = agent._optimizer
        own = named_variables(agent, leave_out=[optimizer])
        trained_ids = {id(variable) for variable in agent._trained_variables()}
        trained = {name: variable for name, variable in own.items() if id(variable) in trained_ids}
        groups = {"agent": own, "optimizer": optimizer_variables(optimizer, trained)}
        groups |= {name: named_variables(part) for name, part in self._parts.items() if not _has_state(part)}
        return {f"{group}/{name}": v for group, variables in groups.items() for name, v in variables.items()}

    def _stateful(self) -> Iterator[tuple[str, Any]]:
        return ((name, part) for name, part in self._parts.items() if _has_state(part))

    def _agent_parameters(self) -> dict[str, Any]:
        config = self._agent._config
        values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        return {**descriptions.describe_values(values), "optimizer": type(self._agent._optimizer).__name__}

    def _misfits(self, loaded: Loaded, variables: Variables, without: Collection[str]) -> Iterator[str]:
        manifest = loaded.manifest
        yield from descriptions.differences(self._specs, manifest.specs)
        saved, own = manifest.hyper_parameters.get("agent", {}), self._agent_parameters()
        saved = saved if isinstance(saved, Mapping) else {}
        for difference in descriptions.differences({"agent": own}, {"agent": saved}):
            if not any(difference.startswith(f"{name} is ") for name in self._may_differ):
                yield difference
        shapes = array_files.describe(loaded.arrays)
        left_out = tuple(f"{name}/" for name in without)
        expected = {n: shape for n, shape in shapes.items() if not n.startswith(("state:", *left_out))}
        live = {name: [v.dtype.as_numpy_dtype.__name__, list(v.shape)] for name, v in variables.items()}
        yield from descriptions.differences(live, expected)
        live_parts = {name for name, _ in self._stateful()}
        for name in sorted(set(loaded.state) - live_parts - set(without)):
            yield f"the checkpoint holds the part {name}, expected to be given one to restore it into"
        for name in sorted(live_parts - set(loaded.state)):
            yield f"the checkpoint does not hold the part {name}"


def _of_this_version(arrays: Mapping[str, np.ndarray], variables: Variables) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, with what older ones lack.

    These are float64 carries of normalisers' means, and the last entries of the report of `train`, which each call
    replaces.
    """
    carries = {name: np.zeros(v.shape) for name, v in variables.items() if "_normalizer/_avg_carry" in name}
    found = {**carries, **arrays}
    report, own = found.get(_REPORT), variables.get(_REPORT)
    if report is not None and own is not None and report.ndim == 1 and len(report) in _SHORTER_REPORTS:
        found[_REPORT] = np.pad(report, (0, own.shape[0] - len(report)))
    return found


def _has_state(part: Any) -> bool:
    return callable(getattr(part, "get_state", None)) and callable(getattr(part, "set_state", None))


def _take_out(state: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The state with its arrays moved into `arrays`."""
    if isinstance(state, np.ndarray):
        key = f"state:{name}"
        arrays[key] = state
        return {_ARRAY: key}
    if isinstance(state, dict):
        return {key: _take_out(value, f"{name}/{key}", arrays) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_take_out(value, f"{name}/{index}", arrays) for index, value in enumerate(state)]
    return state


def _put_in(state: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The inverse of `_take_out`, but for tuples, which become lists."""
    if isinstance(state, dict):
        if set(state) == {_ARRAY}:
            return arrays[state[_ARRAY]]
        return {key: _put_in(value, arrays) for key, value in state.items()}
    return [_put_in(value, arrays) for value in state] if isinstance(state, list) else state
