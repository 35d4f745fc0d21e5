"""Policies that ask for no more of an observation than their actor network sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tf_agents.policies import greedy_policy, tf_policy
from tf_agents.trajectories import TimeStep, policy_step

from ppo_agent.common import action_masks
from ppo_agent.common.types import Nest
from ppo_agent.policy import GreedyPPOPolicy, PPOPolicy


def narrowed(policy: tf_policy.TFPolicy) -> tf_policy.TFPolicy:
    """A policy whose observations have the keys of its actor network only; itself if that sees all of them."""
    if type(policy) in (greedy_policy.GreedyPolicy, GreedyPPOPolicy):
        inner = narrowed(policy.wrapped_policy)
        return policy if inner is policy.wrapped_policy else greedy_policy.GreedyPolicy(inner)
    keys = actor_keys(policy)
    return policy if keys is None else ActorKeysPolicy(policy, keys)


def actor_keys(policy: tf_policy.TFPolicy) -> tuple[str, ...] | None:
    """The keys of the observation that a policy's actor network sees; None if it sees all of it."""
    inner = getattr(policy, "wrapped_policy", policy)
    network = getattr(inner, "_actor_network", None) if isinstance(inner, PPOPolicy) else None
    if network is None or getattr(network, "splitter", None) is not None:
        return None
    return getattr(network, "observation_keys", None)


def select(observation: Nest, keys: Sequence[str]) -> Nest:
    """The entries of an observation with some keys, beside the action mask if there is one."""
    if action_masks.has_mask(observation):
        seen, mask = action_masks.split(observation)
        return {action_masks.OBSERVATION: select(seen, keys), action_masks.ACTION_MASK: mask}
    return {key: value for key, value in observation.items() if key in keys}


def completed(observation: Nest, spec: Nest, outer: Any) -> Nest:
    """An observation with zeros, or the smallest values, for entries of the spec that it lacks."""
    if action_masks.has_mask(spec):
        seen = completed(observation[action_masks.OBSERVATION], spec[action_masks.OBSERVATION], outer)
        return {**observation, action_masks.OBSERVATION: seen}

    def missing(leaf: tf.TypeSpec) -> tf.Tensor:
        lowest = tf.broadcast_to(tf.constant(getattr(leaf, "minimum", 0), leaf.dtype), leaf.shape)
        value = tf.zeros_like(lowest) if leaf.dtype.is_floating else lowest
        return tf.broadcast_to(value, tf.concat([outer, leaf.shape], axis=0))

    return {
        key: observation[key] if key in observation else tf.nest.map_structure(missing, leaf)
        for key, leaf in spec.items()
    }


class ActorKeysPolicy(tf_policy.TFPolicy):
    """A `PPOPolicy` that is given the observation's entries which its actor network sees."""

    def __init__(self, policy: PPOPolicy, keys: Sequence[str]) -> None:
        """Takes the policy and the keys."""
        spec = policy.time_step_spec
        super().__init__(
            spec._replace(observation=select(spec.observation, keys)),
            policy.action_spec,
            policy.policy_state_spec,
            policy.info_spec,
            clip=policy._clip,
            automatic_state_reset=False,
        )
        self._policy = policy

    def _variables(self) -> list[tf.Variable]:
        return list(self._policy.variables())

    def _distribution(self, time_step: TimeStep, policy_state: Nest) -> policy_step.PolicyStep:
        spec = self._policy.time_step_spec.observation
        outer = tf.shape(time_step.step_type)
        observation = completed(time_step.observation, spec, outer)
        return self._policy.distribution(time_step._replace(observation=observation), policy_state)
