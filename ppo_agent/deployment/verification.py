"""Compares an export with the SavedModel that it was made of, in episodes of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import StepType

from ppo_agent.common.types import Array, Nest
from ppo_agent.drivers import GymnasiumEnvironment
from ppo_agent.export import naming
from ppo_agent.export.runners import Runner, SavedModelRunner
from ppo_agent.training import evaluation, named_environments

# Logits of what a mask forbids are no measure of the others.
_FORBIDDEN = 1e8
_RANDOM_BATCH = 50


class Differences:
    """The largest differences of outputs so far."""

    def __init__(self) -> None:
        self.num_rows = 0
        self._absolute: dict[str, float] = {}
        self._scale: dict[str, float] = {}
        self._differing: dict[str, int] = {}

    def update(self, found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        """Takes in outputs [B, ...] by name."""
        for name, value in expected.items():
            a, b = (np.asarray(x, np.float64) for x in (found[name], value))
            finite = np.abs(b) < _FORBIDDEN
            self._keep(self._absolute, name, np.abs(a - b)[finite])
            self._keep(self._scale, name, np.abs(b)[finite])
            if value.dtype.kind in "iu":
                rows = (found[name] != value).reshape(len(value), -1).any(axis=1)
                self._differing[name] = self._differing.get(name, 0) + int(rows.sum())
        self.num_rows += len(next(iter(expected.values())))

    def _keep(self, kept: dict[str, float], name: str, values: Array) -> None:
        kept[name] = max(kept.get(name, 0.0), float(values.max(initial=0.0)))

    def summary(self) -> dict[str, dict[str, float]]:
        """By output the largest differences, and of integers the share of rows that differ.

        `max_relative` is relative to the largest magnitude of the output, or to 1.
        """
        found = {}
        for name, absolute in self._absolute.items():
            relative = absolute / max(1.0, self._scale[name])
            found[name] = {"max_absolute": absolute, "max_relative": relative}
            if name in self._differing:
                found[name]["differing_rows"] = self._differing[name] / self.num_rows
        return found


class NamedAct:
    """Acts in an environment with a runner of named arrays; an `evaluation.Act`."""

    def __init__(self, run: Runner, initial_state: dict[str, Array], env: GymnasiumEnvironment) -> None:
        self._run, self._initial, self._state = run, initial_state, initial_state
        self._action_spec = env.action_spec()
        self._names = list(naming.flat("action", self._action_spec))

    def inputs(self, time_step: Any) -> dict[str, Array]:
        """What the policy is asked: the observation, and the state, new where an episode starts."""
        is_first = time_step.step_type == StepType.FIRST
        for name, value in self._state.items():
            rows = is_first.reshape(-1, *[1] * (value.ndim - 1))
            self._state = {**self._state, name: np.where(rows, self._initial[name], value)}
        return {**naming.flat("observation", time_step.observation), **self._state}

    def take(self, outputs: Mapping[str, Array]) -> Nest:
        """The action; keeps the state."""
        self._state = {name: outputs[name] for name in self._state}
        return tf.nest.pack_sequence_as(self._action_spec, [outputs[name] for name in self._names])

    def __call__(self, time_step: Any) -> Nest:
        """The action for a time step of arrays."""
        return self.take(self._run(self.inputs(time_step)))


def in_environment(
    reference: SavedModelRunner, run: Runner, env_name: str, seed: int, num_observations: int, num_episodes: int
) -> dict[str, Any]:
    """Compares on observations of episodes in which the reference acts, and lets both act for themselves.

    Returns what export.json tells.
    """
    size = evaluation.num_environments(num_episodes)
    differences = Differences()
    with named_environments.make_environment(env_name, num_environments=size, seed=seed) as env:
        act = NamedAct(reference, reference.initial_state(size), env)
        time_step = env.reset_numpy()
        while differences.num_rows < num_observations:
            inputs = act.inputs(time_step)
            expected = reference(inputs)
            differences.update(run(inputs), expected)
            time_step = env.step_numpy(act.take(expected))
    found = {"observations": "episodes", "num_observations": differences.num_rows, "differences": differences.summary()}
    for prefix, runner in (("", run), ("saved_model_", reference)):
        with named_environments.make_environment(env_name, num_environments=size, seed=seed) as env:
            returns = evaluation.evaluate(env, NamedAct(runner, reference.initial_state(size), env), num_episodes)
        found |= {f"{prefix}eval_return_mean": returns.mean, f"{prefix}eval_return_std": returns.std}
    return {**found, "num_eval_episodes": num_episodes}


def on_random_inputs(reference: SavedModelRunner, run: Runner, seed: int, num_observations: int) -> dict[str, Any]:
    """Compares on random numbers, where no environment is known; masks allow everything."""
    rng, differences = np.random.default_rng(seed), Differences()
    while differences.num_rows < num_observations:
        inputs = {name: _random(rng, spec) for name, spec in reference.inputs.items()}
        differences.update(run(inputs), reference(inputs))
    return {"observations": "random", "num_observations": differences.num_rows, "differences": differences.summary()}


def _random(rng: np.random.Generator, spec: tf.TensorSpec) -> Array:
    shape, dtype = [_RANDOM_BATCH, *spec.shape[1:]], spec.dtype.as_numpy_dtype
    if spec.dtype == tf.bool:
        return np.ones(shape, dtype)
    if spec.dtype.is_integer:
        return rng.integers(0, 256 if spec.dtype == tf.uint8 else 2, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)
