"""A policy at work on NumPy arrays: actions, probabilities, values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.policies import greedy_policy, tf_policy
from tf_agents.trajectories import StepType
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import nest_utils

from ppo_agent.agent import PPOAgent
from ppo_agent.common import host_calls
from ppo_agent.common.types import Array, Nest
from ppo_agent.drivers.array_policies.array_policy import ArrayPolicy
from ppo_agent.export import actor_keys
from ppo_agent.training.action_encoding import ActionEncoding


class Actor:
    """Acts as an agent's policy does now, on one observation or a batch of them.

    Args:
        agent: whose policy.
        encoding: from the agent's actions to the environment's.
    """

    def __init__(self, agent: PPOAgent, encoding: ActionEncoding) -> None:
        self._agent, self._encoding = agent, encoding
        policy = agent.collect_policy
        self._policies: dict[bool, tf_policy.TFPolicy] = {True: greedy_policy.GreedyPolicy(policy), False: policy}
        self._on_arrays: dict[bool, Any] = {}
        self._value = tf.function(self._value_of, autograph=False, reduce_retracing=True)
        self._spec = host_calls.plain(agent.time_step_spec.observation)

    def predict(
        self, observation: Nest, state: Nest = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Nest, Nest]:
        """See `Trainer.predict`."""
        time_step, is_single = self._time_step(self._completed(observation), state, episode_start)
        policy = self._on_arrays.get(deterministic)
        if policy is None:
            policy = self._on_arrays[deterministic] = ArrayPolicy(self._policies[deterministic])
        policy.refresh()
        size = len(time_step.step_type)
        if state is None:
            state = policy.initial_state(size)
        elif is_single:
            state = tf.nest.map_structure(lambda x: np.asarray(x)[np.newaxis], state)
        action, _, state = policy.act(time_step, state)
        action = self._encoding.encode(action)
        if is_single:
            action, state = tf.nest.map_structure(lambda x: x[0], (action, state))
        return action, state if tf.nest.flatten(state) else None

    def action_probability(self, observation: Nest, actions: Nest = None, logp: bool = False) -> Nest:
        """See `Trainer.action_probability`."""
        time_step, is_single = self._time_step(self._completed(observation))
        distributions = self._distribution_of(host_calls.to_tensors(time_step))
        if actions is None:
            found = tf.nest.map_structure(_describe, distributions)
        else:
            found = self._log_prob(distributions, actions, len(time_step.step_type))
            found = found if logp else np.exp(found)
        return tf.nest.map_structure(lambda x: x[0], found) if is_single else found

    def value(self, observation: Nest) -> Array:
        """See `Trainer.value`."""
        time_step, is_single = self._time_step(observation)
        values = self._value(host_calls.to_tensors(time_step)).numpy()
        return values[0] if is_single else values

    def _log_prob(self, distributions: Nest, actions: Nest, size: int) -> Array:
        spec, actions = self._agent.action_spec, self._encoding.decode(actions)
        leaves = zip(tf.nest.flatten(distributions), tf.nest.flatten(actions), tf.nest.flatten(spec), strict=True)
        total = np.zeros(size)
        for distribution, action, leaf in leaves:
            batch = np.broadcast_to(np.asarray(action, leaf.dtype.as_numpy_dtype), [size, *leaf.shape])
            log_prob = distribution.log_prob(batch).numpy()
            total += log_prob.reshape(size, -1).sum(-1)
        return total

    def _distribution_of(self, time_step: ts.TimeStep) -> Nest:
        policy = self._agent.collect_policy
        return policy.distribution(time_step, policy.get_initial_state(tf.shape(time_step.step_type)[0])).action

    def _value_of(self, time_step: ts.TimeStep) -> tf.Tensor:
        policy = self._agent.collect_policy
        state = policy.get_initial_value_state(tf.shape(time_step.step_type)[0])
        return policy.apply_value_network(time_step.observation, time_step.step_type, state)[0]

    def _completed(self, observation: Nest) -> Nest:
        """An observation with zeros for what only the value network sees, where that is missing."""
        keys = actor_keys.actor_keys(self._agent.collect_policy)
        if keys is None or not isinstance(observation, Mapping):
            return observation
        spec = actor_keys.select(self._spec, keys)
        found = nest_utils.prune_extra_keys(spec, observation)
        leaf, leaf_spec = tf.nest.flatten(found)[0], tf.nest.flatten(spec)[0]
        outer = np.shape(leaf)[: np.ndim(leaf) - leaf_spec.shape.rank]
        return actor_keys.completed(observation, self._spec, tf.constant(outer, tf.int32))

    def _time_step(self, observation: Nest, state: Nest = None, episode_start: Any = None) -> tuple[ts.TimeStep, bool]:
        """A batch of time steps, and whether the observation was a single one."""
        spec = self._spec
        try:
            tf.nest.assert_same_structure(spec, observation, check_types=False)
        except (ValueError, TypeError):
            found = f"{type(observation).__name__} of {sorted(observation) if isinstance(observation, dict) else ''}"
            raise ValueError(f"observation is a {found.rstrip(' of')}, expected {_shapes(spec)}.") from None
        arrays = [_cast(x, leaf) for x, leaf in zip(tf.nest.flatten(observation), tf.nest.flatten(spec), strict=True)]
        first = tf.nest.flatten(spec)[0]
        is_single = arrays[0].ndim == first.shape.rank
        if is_single:
            arrays = [array[np.newaxis] for array in arrays]
        size = len(arrays[0]) if arrays[0].ndim else 0
        for array, leaf in zip(arrays, tf.nest.flatten(spec), strict=True):
            if array.shape != (size, *leaf.shape):
                shape = array.shape[1:] if is_single else array.shape
                raise ValueError(
                    f"observation {leaf.name or ''} has shape {tuple(shape)}, expected {tuple(leaf.shape)}, "
                    "or a batch of them."
                )
        starts = np.full(size, state is None) if episode_start is None else np.broadcast_to(episode_start, [size])
        step_type = np.where(starts, StepType.FIRST, StepType.MID).astype(np.int32)
        ones = np.ones(size, np.float32)
        rewards = tf.nest.map_structure(
            lambda r: np.zeros([size, *r.shape], np.float32), self._agent.time_step_spec.reward
        )
        return ts.TimeStep(step_type, rewards, ones, tf.nest.pack_sequence_as(spec, arrays)), is_single


def _cast(value: Any, leaf: Any) -> Array:
    array, dtype = np.asarray(value), leaf.dtype.as_numpy_dtype
    if array.dtype.kind not in "biuf":
        raise ValueError(f"observation {leaf.name or ''} has dtype {array.dtype}, expected {leaf.dtype.name}.")
    return array.astype(dtype, copy=False)


def _shapes(spec: Nest) -> Any:
    return tf.nest.map_structure(lambda leaf: tuple(leaf.shape), spec)


def _describe(distribution: Any) -> Nest:
    """Probabilities of a discrete distribution, (mean, standard deviation) of another."""
    if not distribution.dtype.is_floating:
        while isinstance(distribution, tfp.distributions.Independent):
            distribution = distribution.distribution
        return distribution.probs_parameter().numpy()
    try:
        return distribution.mean().numpy(), distribution.stddev().numpy()
    except NotImplementedError:
        # A squashed normal has no closed form. Who asks twice, or while training, disturbs nobody's random numbers.
        samples = distribution.sample(1000, seed=tf.constant([0, 0]))
        return distribution.mode().numpy(), np.std(samples.numpy(), axis=0)
