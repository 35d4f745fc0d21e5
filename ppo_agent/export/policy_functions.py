"""What a policy can be asked, as functions of tensors alone."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tf_agents.policies import greedy_policy, tf_policy
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import common, nest_utils

from ppo_agent.common.types import Nest
from ppo_agent.export import distribution_kinds
from ppo_agent.maths import distributions
from ppo_agent.policy import GreedyPPOPolicy, PPOPolicy, into_range


class PolicyFunctions:
    """Functions from observations [B, ...] in the middle of an episode.

    With a policy that has a state, each returns (result, next state), and takes the state as its last argument.

    Args:
        policy: a greedy one is asked for modes, another one for samples.

    Attributes:
        kinds: what each leaf of the action is drawn from, in tf.nest's order; known once `distribution` was traced.
    """

    def __init__(self, policy: tf_policy.TFPolicy) -> None:
        self._policy = policy
        self._is_greedy = type(policy) in (greedy_policy.GreedyPolicy, GreedyPPOPolicy)
        self._drawn = policy.wrapped_policy if self._is_greedy else policy
        self._has_state = bool(tf.nest.flatten(policy.policy_state_spec))
        self.kinds: list[distribution_kinds.Kind] = []

    def action(self, observation: Nest, policy_state: Nest = ()) -> Any:
        """The policy's own actions: the most likely ones of a greedy policy."""
        if not (self._is_greedy and self.has_distribution):
            step = self._policy.action(self._time_step(observation), policy_state)
            return self._with_state(step.action, step.state)
        step = self._distribution(observation, policy_state)
        modes = tf.nest.map_structure(lambda d: d.mode(), step.action)
        return self._with_state(self._clipped(modes), step.state)

    def sample(self, observation: Nest, seed: tf.Tensor, policy_state: Nest = ()) -> Any:
        """Actions drawn from the distribution; the same ones for the same seed.

        Args:
            observation: [B, ...].
            seed: int32 [2].
            policy_state: before the step.
        """
        step = self._distribution(observation, policy_state)
        leaves = tf.nest.flatten(step.action)
        drawn = [leaf.sample(seed=seed + tf.constant([0, i])) for i, leaf in enumerate(leaves)]
        return self._with_state(self._clipped(tf.nest.pack_sequence_as(step.action, drawn)), step.state)

    def distribution(self, observation: Nest, policy_state: Nest = ()) -> Any:
        """Nest like the action's of dicts of parameters [B, ...]; `kinds` tells what they are parameters of."""
        step = self._distribution(observation, policy_state)
        self.kinds = [distribution_kinds.kind_of(leaf) for leaf in tf.nest.flatten(step.action)]
        parameters = tf.nest.map_structure(distribution_kinds.parameters_of, step.action)
        return self._with_state(parameters, step.state)

    def log_prob(self, observation: Nest, action: Nest, policy_state: Nest = ()) -> Any:
        """Log-probability (density) of actions, float32 [B]."""
        step = self._distribution(observation, policy_state)
        return self._with_state(distributions.log_probability(step.action, action, 1), step.state)

    def value(self, observation: Nest, value_state: Nest = ()) -> Any:
        """Predicted returns, float32 [B]; with the state of the value network, which is not the policy's."""
        step = self._time_step(observation)
        value, state = self._drawn.apply_value_network(observation, step.step_type, value_state)
        return (value, state) if tf.nest.flatten(value_state) else value

    def initial_state(self, batch_size: tf.Tensor) -> Nest:
        """The policy state at the start of episodes; `batch_size` is int32 []."""
        return self._policy.get_initial_state(batch_size)

    def initial_value_state(self, batch_size: tf.Tensor) -> Nest:
        """The value network's state at the start of episodes."""
        return self._drawn.get_initial_value_state(batch_size)

    @property
    def has_distribution(self) -> bool:
        """Whether the policy tells what it draws from."""
        return type(self._drawn)._distribution is not tf_policy.TFPolicy._distribution

    @property
    def value_state_spec(self) -> Nest | None:
        """Specs of the value network's state; None for a policy that predicts no values."""
        return self._drawn.value_state_spec if isinstance(self._drawn, PPOPolicy) else None

    def _distribution(self, observation: Nest, policy_state: Nest) -> policy_step.PolicyStep:
        return self._drawn.distribution(self._time_step(observation), policy_state)

    def _clipped(self, actions: Nest) -> Nest:
        if not self._policy._clip:
            return actions
        return tf.nest.map_structure(_clipped_leaf, actions, self._policy.action_spec)

    def _with_state(self, result: Nest, state: Nest) -> Any:
        return (result, state) if self._has_state else result

    def _time_step(self, observation: Nest) -> ts.TimeStep:
        """A time step in the middle of an episode; policies do not look at its reward and discount."""
        spec = self._policy.time_step_spec
        batch_size = _batch_shape(observation, spec.observation)

        def fill(leaf: tf.TypeSpec, value: Any) -> tf.Tensor:
            return tf.fill(tf.concat([batch_size, leaf.shape], axis=0), tf.cast(value, leaf.dtype))

        return ts.TimeStep(
            step_type=fill(spec.step_type, ts.StepType.MID),
            reward=tf.nest.map_structure(lambda leaf: fill(leaf, 0), spec.reward),
            discount=fill(spec.discount, 1),
            observation=observation,
        )


def _clipped_leaf(action: tf.Tensor, spec: tf.TypeSpec) -> tf.Tensor:
    return into_range(action, spec) if spec.dtype.is_integer else common.clip_to_spec(action, spec)


def reset_state(initial: Nest, policy_state: Nest, is_first: tf.Tensor) -> Nest:
    """The state with the rows replaced where an episode starts; `is_first` is bool [B]."""
    return nest_utils.where(is_first, initial, policy_state)


def _batch_shape(observation: Nest, spec: Nest) -> tf.Tensor:
    first, first_spec = tf.nest.flatten(observation)[0], tf.nest.flatten(spec)[0]
    return tf.shape(first)[: first.shape.rank - first_spec.shape.rank]
