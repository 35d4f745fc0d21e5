"""Writes policies as SavedModels: for services that have TensorFlow alone, and in TF-Agents' own format.

`export_policy` saves a `tf.Module` of plain functions on tensors. Loading it needs neither TF-Agents nor TensorFlow
Probability nor Keras, because no function takes or returns a type of theirs, and only variables are tracked.

    policy = tf.saved_model.load(directory)
    action = policy.action(observation)                                  # [B, ...] for observations [B, ...]

    state = policy.initial_state(batch_size)                             # recurrent policies
    state = policy.reset_state(state, is_first)                          # where an episode starts, is_first bool [B]
    action, state = policy.action(observation, state)

Nests stay nests in these methods. In the signatures `serving_default` and `action` they are flat: `observation`,
`action` and `policy_state` if they are single tensors, else `observation_KEY`, with one more `_KEY` for every level and
the index where the nest is a tuple or list. Recurrent policies have the signature `initial_state` too, from
`batch_size` (int32 scalar) to the policy state.
"""

from __future__ import annotations

import os
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tf_agents.policies import policy_saver, tf_policy
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import nest_utils

from ppo_agent.common.atomic_files import UNFINISHED


def export_policy(policy: tf_policy.TFPolicy, directory: str | os.PathLike[str]) -> None:
    """Saves a policy so that it loads and acts with TensorFlow alone; see the module's description.

    The exported actions are exactly the policy's: a greedy policy's modes (`agent.policy`), a collect policy's samples,
    clipped to the spec only if the policy clips. If `tf.random.set_seed` was called, a sampling policy draws the same
    numbers each time that it is loaded. The observation normaliser and all variables are inside, with the values of
    this moment; the batch size is free.

    Args:
        policy: what to save.
        directory: where; an earlier SavedModel there is replaced in one step, never left half written.

    Raises:
        TypeError: if `policy` is no TFPolicy.
        ValueError: if `directory` is a file, or holds something else than a SavedModel.
        OSError: if it cannot be written.
    """
    target = _check_arguments(policy, directory)
    module, signatures = _make_module(policy)
    _write_atomically(target, lambda path: tf.saved_model.save(module, path, signatures=signatures))


def export_policy_saver(policy: tf_policy.TFPolicy, directory: str | os.PathLike[str]) -> None:
    """Saves a policy as TF-Agents' `PolicySaver` does, for `tf_agents.policies.SavedModelPyTFEagerPolicy`.

    Args:
        policy: what to save.
        directory: where; an earlier SavedModel there is replaced in one step.

    Raises:
        As `export_policy`.
    """
    target = _check_arguments(policy, directory)
    saver = policy_saver.PolicySaver(policy)
    _write_atomically(target, saver.save)


def _make_module(policy: tf_policy.TFPolicy) -> tuple[tf.Module, dict[str, Any]]:
    """The object to save, with nothing but functions and the variables that they read, and its signatures."""
    module = tf.Module(name="policy")
    observation_spec = _batched(policy.time_step_spec.observation, "observation")
    state_spec = _batched(policy.policy_state_spec, "policy_state")
    recurrent = bool(tf.nest.flatten(state_spec))

    def action(observation: Any, policy_state: Any = ()) -> Any:
        step = policy.action(_time_step(policy.time_step_spec, observation), policy_state)
        return (step.action, step.state) if recurrent else step.action

    module.action = _function(action, input_signature=[observation_spec, state_spec][: 1 + recurrent])
    signatures = {"action": _action_signature(module.action, observation_spec, state_spec)}
    if recurrent:
        _add_state_functions(module, signatures, policy, state_spec)
    # A plain tf.Module does not know which variables the functions read.
    module.all_variables = list(module.action.get_concrete_function().graph.variables)
    return module, {**signatures, "serving_default": signatures["action"]}


def _add_state_functions(
    module: tf.Module, signatures: dict[str, Any], policy: tf_policy.TFPolicy, state_spec: Any
) -> None:
    """Adds `initial_state` and `reset_state` for a recurrent policy."""

    def initial_state(batch_size: tf.Tensor) -> Any:
        return policy.get_initial_state(batch_size)

    def reset_state(policy_state: Any, is_first: tf.Tensor) -> Any:
        initial = policy.get_initial_state(tf.shape(is_first)[0])
        return nest_utils.where(is_first, initial, policy_state)

    size_spec = tf.TensorSpec([], tf.int32, "batch_size")
    module.initial_state = _function(initial_state, input_signature=[size_spec])
    module.reset_state = _function(
        reset_state, input_signature=[state_spec, tf.TensorSpec([None], tf.bool, "is_first")]
    )
    signatures["initial_state"] = _function(
        lambda batch_size: _flat("policy_state", module.initial_state(batch_size)), input_signature=[size_spec]
    )


def _action_signature(action: Callable[..., Any], observation_spec: Any, state_spec: Any) -> Any:
    """The function `action` with flat, named inputs and outputs."""
    specs = {**_flat("observation", observation_spec), **_flat("policy_state", state_spec)}

    def signature(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        leaves = iter([inputs[name] for name in specs])
        arguments = [
            tf.nest.pack_sequence_as(spec, [next(leaves) for _ in tf.nest.flatten(spec)])
            for spec in (observation_spec, state_spec)
            if tf.nest.flatten(spec)
        ]
        result = action(*arguments)
        if len(arguments) == 1:
            return _flat("action", result)
        return {**_flat("action", result[0]), **_flat("policy_state", result[1])}

    return _function(signature).get_concrete_function(
        **{name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in specs.items()}
    )


def _function(function: Callable[..., Any], input_signature: Any = None) -> Any:
    # Without AutoGraph, which would spend seconds on translating TF-Agents' code.
    return tf.function(function, input_signature=input_signature, autograph=False)


def _time_step(spec: ts.TimeStep, observation: Any) -> ts.TimeStep:
    """A time step in the middle of an episode; policies do not look at its reward and discount."""
    first = tf.nest.flatten(observation)[0]
    first_spec = tf.nest.flatten(spec.observation)[0]
    batch_size = tf.shape(first)[: first.shape.rank - first_spec.shape.rank]

    def fill(leaf: tf.TypeSpec, value: Any) -> tf.Tensor:
        return tf.fill(tf.concat([batch_size, leaf.shape], axis=0), tf.cast(value, leaf.dtype))

    return ts.TimeStep(
        step_type=fill(spec.step_type, ts.StepType.MID),
        reward=tf.nest.map_structure(lambda leaf: fill(leaf, 0), spec.reward),
        discount=fill(spec.discount, 1),
        observation=observation,
    )


def _batched(spec: Any, name: str) -> Any:
    """Plain specs with a free batch dimension in front, named by their place in the nest."""
    names = iter(_flat(name, spec))
    return tf.nest.map_structure(lambda leaf: tf.TensorSpec([None, *leaf.shape], leaf.dtype, next(names)), spec)


def _flat(name: str, nest: Any) -> dict[str, Any]:
    """The leaves of a nest, in tf.nest's order, by their path: `name`, or `name_KEY_...` in a nest."""
    paths = nest_utils.flatten_with_joined_paths(nest)
    # Keyword arguments of a signature must be identifiers.
    named = {re.sub(r"\W", "_", f"{name}_{path}" if path else name): leaf for path, leaf in paths}
    if len(named) < len(paths):
        raise ValueError(f"policy: the paths in its {name} nest are not unique with _ between the keys.")
    return named


def _check_arguments(policy: tf_policy.TFPolicy, directory: str | os.PathLike[str]) -> pathlib.Path:
    if not isinstance(policy, tf_policy.TFPolicy):
        raise TypeError(f"policy: expected a tf_agents TFPolicy, but found {type(policy).__name__}.")
    target = pathlib.Path(directory).absolute()
    existing = next(path for path in (target, *target.parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"directory: {existing} is a file, expected a directory or a path that does not exist.")
    if target.is_dir() and any(target.iterdir()) and not (target / "saved_model.pb").exists():
        raise ValueError(f"directory: {target} holds files that are no SavedModel, expected an empty directory.")
    return target


def _write_atomically(target: pathlib.Path, write: Callable[[str], Any]) -> None:
    """Writes beside the target and renames, so that a reader sees the old SavedModel or the new one, but no half."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{UNFINISHED}{target.name}-", dir=target.parent) as scratch:
        new, old = pathlib.Path(scratch, "new"), pathlib.Path(scratch, "old")
        write(str(new))
        if target.exists():
            target.rename(old)
        new.rename(target)
