"""Actions drawn with stateless random numbers, which XLA seeds like everyone else and which cost less in a graph."""

from __future__ import annotations

import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import common

from ppo_agent.common.limits import LARGEST_INT64
from ppo_agent.common.seeds import draw_seed
from ppo_agent.common.types import Nest


class SeedSequence:
    """A new seed for each rollout; all follow from TensorFlow's global seed at the time that this is made."""

    def __init__(self) -> None:
        with tf.init_scope():
            seed = draw_seed(LARGEST_INT64)
            self._seed = tf.Variable(seed, trainable=False, dtype=tf.int64, name="seed")
            self._count = tf.Variable(0, trainable=False, dtype=tf.int64, name="rollouts")

    def next(self) -> tf.Tensor:
        """Returns the next seed, int32 [2]."""
        key = tf.stack([self._seed.read_value(), self._count.assign_add(1)])
        return tf.random.stateless_uniform([2], key, minval=None, maxval=None, dtype=tf.int32)

    def get_state(self) -> dict[str, int]:
        """Returns where the sequence is, for `set_state` of another one."""
        return {"seed": int(self._seed), "count": int(self._count)}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues from where `get_state` was called."""
        self._seed.assign(state["seed"])
        self._count.assign(state["count"])


def seeded_action(
    policy: tf_policy.TFPolicy, time_step: ts.TimeStep, policy_state: Nest, seed: tf.Tensor
) -> policy_step.PolicyStep:
    """As `policy.action` [B, ...], with a stateless seed, int32 [2], which TF-Agents' policies do not take.

    A policy that does not draw its actions from its distributions the usual way is left to itself.
    """
    draw = type(policy)._action
    if draw is not tf_policy.TFPolicy._action and not getattr(draw, "draws_from_distributions", False):
        return policy.action(time_step, policy_state)
    step = policy.distribution(time_step, policy_state)
    distributions = tf.nest.flatten(step.action)
    actions = [d.sample(seed=seed + tf.constant([0, leaf])) for leaf, d in enumerate(distributions)]
    if policy.emit_log_probability:
        log_probs = [d.log_prob(action) for d, action in zip(distributions, actions, strict=True)]
        info = policy_step.set_log_probability(step.info, tf.nest.pack_sequence_as(step.action, log_probs))
        step = step._replace(info=info)
    if policy._clip:
        actions = [common.clip_to_spec(a, s) for a, s in zip(actions, tf.nest.flatten(policy.action_spec), strict=True)]
    return step._replace(action=tf.nest.pack_sequence_as(step.action, actions))
