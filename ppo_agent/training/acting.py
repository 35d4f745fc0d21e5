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

from ppo_agent import network_checks
from ppo_agent.agent import PPOAgent
from ppo_agent.common import action_masks, host_calls
from ppo_agent.common.action_masks import MaskLayout
from ppo_agent.common.own_functions import own_function
from ppo_agent.common.types import Array, Nest
from ppo_agent.drivers.array_policies.array_policy import ArrayPolicy
from ppo_agent.export import actor_keys
from ppo_agent.training import given_arrays
from ppo_agent.training.action_encoding import ActionEncoding


class Actor:
    """Acts as an agent's policy does now, on one observation or a batch, with the environment's actions.

    Attributes:
        policies: The agent's, by whether it takes the most likely actions.
    """

    def __init__(self, agent: PPOAgent, encoding: ActionEncoding) -> None:
        self._agent, self._encoding = agent, encoding
        policy = agent.collect_policy
        self.policies: dict[bool, tf_policy.TFPolicy] = {True: greedy_policy.GreedyPolicy(policy), False: policy}
        self._on_arrays: dict[bool, Any] = {}
        batch = host_calls.with_outer_dims(host_calls.plain(agent.time_step_spec), None)
        self._value = own_function(self._value_of, input_signature=[batch])
        self._spec = host_calls.plain(agent.time_step_spec.observation)
        self._splitter, self._masks = network_checks.splitter_of(agent.actor_net), MaskLayout(agent.action_spec)

    def predict(
        self, observation: Nest, state: Nest = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Nest, Nest]:
        """See `Trainer.predict`."""
        if deterministic not in (True, False):
            raise ValueError(f"deterministic is {deterministic!r}, expected True or False.")
        starts = state is None if episode_start is None else episode_start
        time_step, is_single = self._time_step(self._completed(observation), starts)
        self._check_choice(time_step.observation)
        size, spec = len(time_step.step_type), host_calls.plain(self._agent.collect_policy.policy_state_spec)
        kept = None if state is None else _state(state, spec, size, is_single=is_single)
        policy = self._on_arrays.get(deterministic)
        if policy is None:
            policy = self._on_arrays[deterministic] = ArrayPolicy(self.policies[deterministic])
        policy.refresh()
        state = policy.initial_state(size) if kept is None else kept
        action, _, state = policy.act(time_step, state)
        action = self._encoding.encode(action)
        if is_single:
            action, state = tf.nest.map_structure(lambda x: x[0], (action, state))
        return action, state if tf.nest.flatten(state) else None

    def action_probability(self, observation: Nest, actions: Nest = None, logp: bool = False) -> Nest:
        """See `Trainer.action_probability`."""
        time_step, is_single = self._time_step(self._completed(observation))
        self._check_choice(time_step.observation)
        distributions = self._distribution_of(host_calls.to_tensors(time_step))
        if actions is None:
            found = tf.nest.map_structure(_describe, distributions)
        else:
            found = self._log_prob(distributions, actions, len(time_step.step_type), is_single=is_single)
            found = found if logp else np.exp(found)
        return tf.nest.map_structure(lambda x: x[0], found) if is_single else found

    def _check_choice(self, observation: Nest) -> None:
        """Raises ValueError for masks [B, ...] that leave an action nothing to choose."""
        _, mask = action_masks.split(observation, self._splitter)
        if mask is not None and len(rows := self._masks.rows_without_choice(np.asarray(mask))):
            row = f" in row {rows[0]}" if len(mask) > 1 else ""
            raise ValueError(
                f"the action mask of observation allows no action at all{row}, expected one for every component."
            )

    def value(self, observation: Nest) -> Array:
        """See `Trainer.value`."""
        time_step, is_single = self._time_step(observation)
        values = self._value(host_calls.to_tensors(time_step)).numpy()
        return values[0] if is_single else values

    def _log_prob(self, distributions: Nest, actions: Nest, size: int, *, is_single: bool) -> Array:
        spec = host_calls.plain(self._agent.action_spec)
        leaves = given_arrays.leaves_of("actions", actions, spec)
        total = np.zeros(size)
        for distribution, leaf, code in zip(tf.nest.flatten(distributions), leaves, self._encoding.leaves, strict=True):
            array = given_arrays.fitted(leaf._replace(array=code.decode(leaf.array)), offset=code.offset)
            shape = tuple(leaf.spec.shape)
            if array.shape not in ((shape, (1, *shape)) if is_single else (shape, (size, *shape))):
                expected = f"{shape}" if is_single else f"{shape} or {(size, *shape)}"
                raise ValueError(f"{leaf.name} has shape {array.shape}, expected {expected}.")
            log_prob = distribution.log_prob(np.broadcast_to(array, [size, *shape])).numpy()
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

    def _time_step(self, observation: Nest, episode_start: Any = True) -> tuple[ts.TimeStep, bool]:
        """A batch of time steps, and whether the observation was a single one."""
        leaves = given_arrays.leaves_of("observation", observation, self._spec)
        arrays = [given_arrays.fitted(leaf) for leaf in leaves]
        is_single = arrays[0].ndim == leaves[0].spec.shape.rank
        size = 1 if is_single or not arrays[0].ndim else len(arrays[0])
        for index, (array, leaf) in enumerate(zip(arrays, leaves, strict=True)):
            shape = tuple(leaf.spec.shape)
            if array.shape != (shape if is_single else (size, *shape)):
                expected = f"{shape}, or a batch of them" if index == 0 else str(shape if is_single else (size, *shape))
                raise ValueError(f"{leaf.name} has shape {array.shape}, expected {expected}.")
        if is_single:
            arrays = [array[np.newaxis] for array in arrays]
        starts = np.broadcast_to(_episode_starts(episode_start, size), [size])
        step_type = np.where(starts, StepType.FIRST, StepType.MID).astype(np.int32)
        ones = np.ones(size, np.float32)
        rewards = tf.nest.map_structure(
            lambda r: np.zeros([size, *r.shape], np.float32), self._agent.time_step_spec.reward
        )
        return ts.TimeStep(step_type, rewards, ones, tf.nest.pack_sequence_as(self._spec, arrays)), is_single


def _episode_starts(given: Any, size: int) -> Array:
    """Where episodes begin, bool, () or [size].

    Raises:
        ValueError: it is something else.
    """
    starts = given_arrays.leaves_of("episode_start", given, tf.TensorSpec([], tf.bool))[0]
    if starts.array.shape not in ((), (size,)):
        raise ValueError(f"episode_start has shape {starts.array.shape}, expected () or {(size,)}.")
    return given_arrays.fitted(starts)


def _state(given: Nest, spec: Nest, size: int, *, is_single: bool) -> Nest:
    """A policy state [size, ...] from one that a user kept.

    Raises:
        ValueError: it is none of this policy, or of another batch.
    """
    if not tf.nest.flatten(spec):
        if tf.nest.flatten(given):
            raise ValueError("state is given, expected None: the policy has no memory.")
        return ()
    arrays = []
    for leaf in given_arrays.leaves_of("state", given, spec):
        shape = tuple(leaf.spec.shape) if is_single else (size, *leaf.spec.shape)
        if leaf.array.shape != shape or leaf.array.dtype.kind not in "biuf":
            raise ValueError(
                f"{leaf.name} has shape {leaf.array.shape} and dtype {leaf.array.dtype}, expected {shape} and "
                f"{leaf.spec.dtype.name}, as the last predict returned it."
            )
        array = leaf.array.astype(leaf.spec.dtype.as_numpy_dtype, copy=False)
        arrays.append(array[np.newaxis] if is_single else array)
    return tf.nest.pack_sequence_as(spec, arrays)


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
