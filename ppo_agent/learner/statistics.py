"""Which observations and rewards of an experience running statistics are made of."""

from __future__ import annotations

import tensorflow as tf
from tf_agents.trajectories import Trajectory

from ppo_agent import summaries
from ppo_agent.common import replicas
from ppo_agent.common.types import Nest, Tensor
from ppo_agent.maths import masking
from ppo_agent.maths import returns as return_ops
from ppo_agent.normalizers import StreamingNormalizer


def observations(trajectory: Trajectory) -> Nest:
    """All observations of an experience [B, T, ...] but those of padding, [N, ...]."""
    present = masking.observation_mask(trajectory.step_type, trajectory.next_step_type)
    return tf.nest.map_structure(lambda tensor: tf.boolean_mask(tensor, present), trajectory.observation)


def rewards(trajectory: Trajectory) -> tf.Tensor:
    """The finite rewards of transitions, [N]."""
    return tf.boolean_mask(trajectory.reward, _is_rewarded(trajectory))


def returns_so_far(trajectory: Trajectory, discount: float, running: tf.Variable | None) -> tf.Tensor:
    """Discounted returns so far at each of the transitions whose reward is finite, [N].

    Args:
        trajectory: experience [B, T, ...].
        discount: gamma.
        running: the returns of the rows of all replicas at the end of the last experience, B of each; brought up to
            date. None, or a variable for another number of rows, begins at 0.
    """
    number = replicas.count()
    if running is not None and running.shape[0] != number * trajectory.step_type.shape[0]:
        running = None
    before = tf.zeros_like(trajectory.reward[:, 0])
    if running is not None:
        before = tf.reshape(running.read_value(), [number, -1])[replicas.index()]
    valid = _is_rewarded(trajectory)
    returns = return_ops.running_returns(trajectory.reward, discount, trajectory.is_first(), valid, before)
    if running is not None:
        running.assign(tf.reshape(replicas.gathered(returns[:, -1]), [-1]))
    return tf.boolean_mask(returns, valid)


def _is_rewarded(trajectory: Trajectory) -> tf.Tensor:
    transitions = masking.transition_mask(trajectory.step_type, trajectory.next_step_type)
    return transitions & masking.finite_rows(trajectory.reward)


def normalized_rewards(
    rewards: Tensor,
    normalizer: StreamingNormalizer | None,
    clipping: float,
    step: tf.Variable,
    *,
    debug_summaries: bool,
) -> tf.Tensor:
    """Rewards divided by their running standard deviation, as they are without a normaliser.

    Args:
        rewards: float32 [B, T].
        normalizer: has the statistics.
        clipping: bound of the result; 0 for none.
        step: the train step that summaries are written at.
        debug_summaries: whether to write them.
    """
    if debug_summaries:
        summaries.write_rewards(step, "rewards", rewards)
    if normalizer is None:
        return rewards
    normalized = normalizer.normalize(rewards, clip_value=clipping, center_mean=False)
    if debug_summaries:
        summaries.write_rewards(step, "rewards_normalized", normalized)
    return normalized
