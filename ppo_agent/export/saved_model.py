"""Writes policies as SavedModels: for services that have TensorFlow alone, and in TF-Agents' own format.

`export_policy` saves a `tf.Module` of plain functions on tensors. Loading it needs neither TF-Agents nor TensorFlow
Probability nor Keras, because no function takes or returns a type of theirs, and only variables are tracked.

    policy = tf.saved_model.load(directory)
    action = policy.action(observation)                                  # [B, ...] for observations [B, ...]
    action = policy.sample(observation, seed)                            # drawn; seed int32 [2]
    parameters = policy.distribution(observation)                        # {"logits": [B, n]}, or such a dict a leaf
    log_prob = policy.log_prob(observation, action)                      # float32 [B]
    value = policy.value(observation)                                    # float32 [B]

    state = policy.initial_state(batch_size)                             # policies with memory
    state = policy.reset_state(state, is_first)                          # where an episode starts, is_first bool [B]
    action, state = policy.action(observation, state)                    # likewise all others, the state comes last
    value, value_state = policy.value(observation, value_state)          # from initial_value_state, reset_value_state

Nests stay nests in these methods. In the signatures of the same names (`serving_default` is `action`) they are flat:
`observation`, `action`, `distribution_logits`, `policy_state` and so on if they are single tensors, else
`observation_KEY`, with one more `_KEY` for every level and the index where the nest is a tuple or list. The resets have
no signatures. `metadata.json` in the folder tells the specs of all of it. `sample`, `distribution` and `log_prob` are
there if the policy tells its distribution, and `value` if it is a `PPOPolicy`. Of an observation whose entries the
actor network does not see all (`observation_keys`), the policy asks for those that it sees, and has no `value`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.policies import policy_saver, tf_policy

from ppo_agent.common.types import Nest
from ppo_agent.export import actor_keys, files, metadata, naming
from ppo_agent.export.distribution_kinds import Kind
from ppo_agent.export.policy_functions import PolicyFunctions, reset_state


def export_policy(
    policy: tf_policy.TFPolicy,
    directory: str | os.PathLike[str],
    *,
    environment: str | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> None:
    """Saves a policy so that it loads and acts with TensorFlow alone; see the module's description.

    The exported actions are exactly the policy's: a greedy policy's modes (`agent.policy`), a collect policy's samples,
    clipped to the spec only if the policy clips. If `tf.random.set_seed` was called, a sampling policy draws the same
    numbers each time that it is loaded. The observation normaliser and all variables are inside, with the values of
    this moment; the batch size is free.

    Args:
        policy: what to save.
        directory: where; an earlier SavedModel there is replaced in one step, never left half written.
        environment: id of the environment that it was trained in, for metadata.json.
        evaluation: how well it does there, of what JSON knows, for metadata.json.

    Raises:
        TypeError: if `policy` is no TFPolicy.
        ValueError: if `directory` is a file, or holds something else than a SavedModel.
        OSError: if it cannot be written.
    """
    _check_policy(policy)
    target = files.check_folder(directory)
    policy = actor_keys.narrowed(policy)
    module, signatures, kinds = _make_module(policy)
    document = metadata.describe(policy, signatures, kinds, environment, evaluation)

    def write(path: str) -> None:
        tf.saved_model.save(module, path, signatures=signatures)
        (Path(path) / metadata.FILE).write_text(document, encoding="utf-8")

    files.write_folder(target, write)


def export_policy_saver(policy: tf_policy.TFPolicy, directory: str | os.PathLike[str]) -> None:
    """Saves a policy as TF-Agents' `PolicySaver` does, for `tf_agents.policies.SavedModelPyTFEagerPolicy`.

    Args:
        policy: what to save.
        directory: where; an earlier SavedModel there is replaced in one step.

    Raises:
        ValueError: as `export_policy`.
    """
    _check_policy(policy)
    target = files.check_folder(directory)
    saver = policy_saver.PolicySaver(actor_keys.narrowed(policy))
    files.write_folder(target, saver.save)


class _Method(NamedTuple):
    """A function to save, with the specs of its arguments and the names of its results."""

    function: Callable[..., Any]
    arguments: dict[str, Nest]
    results: list[str]


def _make_module(policy: tf_policy.TFPolicy) -> tuple[tf.Module, dict[str, Any], list[Kind]]:
    """The object to save, with nothing but functions and the variables that they read; its signatures; the kinds."""
    module, signatures, functions = tf.Module(name="policy"), {}, PolicyFunctions(policy)
    variables: dict[int, tf.Variable] = {}
    for name, method in _methods(policy, functions):
        nested = naming.nested_function(method.function, method.arguments)
        try:
            traced = nested.get_concrete_function()
        except NotImplementedError:
            if name == "action":
                raise
            continue  # TF-Agents' random policies, which do not tell their distribution.
        variables |= {id(variable.handle): variable for variable in traced.graph.variables}
        setattr(module, name, nested)
        signatures[name] = naming.flat_signature(nested, method.arguments, method.results)
    _add_resets(module, policy, functions)
    # A plain tf.Module does not know which variables the functions read.
    module.all_variables = list(variables.values())
    return module, {**signatures, "serving_default": signatures["action"]}, functions.kinds


def _methods(policy: tf_policy.TFPolicy, functions: PolicyFunctions) -> Iterator[tuple[str, _Method]]:
    """What is saved both as a method and as a signature, by name."""
    observation = {"observation": naming.batched("observation", policy.time_step_spec.observation)}
    state = _state(policy.policy_state_spec, "policy_state")
    yield "action", _Method(functions.action, {**observation, **state}, ["action", *state])
    if state:
        yield "initial_state", _Method(functions.initial_state, _BATCH_SIZE, ["policy_state"])
    if functions.has_distribution:
        seed = {"seed": tf.TensorSpec([2], tf.int32, "seed")}
        action = {"action": naming.batched("action", policy.action_spec)}
        drawn = _Method(functions.sample, {**observation, **seed, **state}, ["action", *state])
        yield "sample", drawn
        yield "distribution", _Method(functions.distribution, {**observation, **state}, ["distribution", *state])
        yield "log_prob", _Method(functions.log_prob, {**observation, **action, **state}, ["log_prob", *state])
    if functions.value_state_spec is not None:
        value_state = _state(functions.value_state_spec, "value_state")
        yield "value", _Method(functions.value, {**observation, **value_state}, ["value", *value_state])
        if value_state:
            yield "initial_value_state", _Method(functions.initial_value_state, _BATCH_SIZE, ["value_state"])


_BATCH_SIZE = {"batch_size": tf.TensorSpec([], tf.int32, "batch_size")}


def _state(spec: Nest, name: str) -> dict[str, Nest]:
    return {name: naming.batched(name, spec)} if tf.nest.flatten(spec) else {}


def _add_resets(module: tf.Module, policy: tf_policy.TFPolicy, functions: PolicyFunctions) -> None:
    """Adds `reset_state` and `reset_value_state` where there is a state."""
    is_first = {"is_first": tf.TensorSpec([None], tf.bool, "is_first")}
    states = (
        ("reset_state", policy.policy_state_spec, functions.initial_state),
        ("reset_value_state", functions.value_state_spec, functions.initial_value_state),
    )
    for name, spec, initial in states:
        if tf.nest.flatten(() if spec is None else spec):
            setattr(module, name, naming.nested_function(_reset(initial), {**_state(spec, "state"), **is_first}))


def _reset(initial: Callable[[tf.Tensor], Nest]) -> Callable[[Nest, tf.Tensor], Nest]:
    return lambda state, is_first: reset_state(initial(tf.shape(is_first)[0]), state, is_first)


def _check_policy(policy: tf_policy.TFPolicy) -> None:
    if not isinstance(policy, tf_policy.TFPolicy):
        raise TypeError(f"policy is a {type(policy).__name__}, expected a tf_agents TFPolicy.")
