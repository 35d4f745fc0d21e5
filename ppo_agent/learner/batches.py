"""From an experience of rollouts to rows that gradient steps can be made of."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf
from tf_agents.trajectories import StepType, TimeStep, Trajectory

from ppo_agent.common.types import Nest, Tensor
from ppo_agent.maths import distributions, masking
from ppo_agent.maths.distributions import ParameterCodec


class TrainingBatch(NamedTuple):
    """Rows for gradient steps, all tensors [B, T, ...].

    Attributes:
        time_steps: what the policy saw.
        actions: what it did.
        action_log_probs: log-probability of that when it was collected.
        distribution_parameters: of the distributions it was drawn from.
        returns: targets of the value function.
        advantages: not normalised.
        old_values: value predictions before the update.
        weights: importance weights given by the user.
        mask: bool, True for the rows that count.
        policy_state: states of recurrent networks before the first of the T steps, [B, 1, ...]; () if they are zeros.
    """

    time_steps: TimeStep
    actions: Nest
    action_log_probs: Tensor
    distribution_parameters: Nest
    returns: Tensor
    advantages: Tensor
    old_values: Tensor
    weights: Tensor
    mask: Tensor
    policy_state: Nest = ()

    @property
    def first_state(self) -> Nest:
        """States of recurrent networks before the first step, [B, ...]; () if they are zeros."""
        return tf.nest.map_structure(lambda state: state[:, 0], self.policy_state)


def time_steps_of(trajectory: Trajectory) -> TimeStep:
    """The time steps that the policy acted on, [B, T, ...]."""
    return TimeStep(trajectory.step_type, trajectory.reward, trajectory.discount, trajectory.observation)


def next_time_steps_of(trajectory: Trajectory) -> TimeStep:
    """What each of the first T - 1 actions led to, [B, T - 1, ...].

    Where the row behind an action ends a rollout within the sequence (see `rollout_ends`), the step type is LAST and
    the discount stays: the future is the value of that row's observation, and nothing further on has a part in it.
    """
    return TimeStep(
        step_type=tf.where(rollout_ends(trajectory)[:, 1:], StepType.LAST, trajectory.next_step_type[:, :-1]),
        reward=trajectory.reward[:, :-1],
        discount=trajectory.discount[:, :-1],
        observation=tf.nest.map_structure(lambda t: t[:, 1:], trajectory.observation),
    )


def rollout_ends(trajectory: Trajectory) -> tf.Tensor:
    """Rows within a sequence that, like the last time index, only serve to bootstrap from: their future is not there.

    These are rows that no action led out of (bootstrap rows), rows of an unfinished episode that the first step of
    another follows, and rows that padding follows where the observation behind would be needed.

    Args:
        trajectory: raw experience [B, T, ...].

    Returns:
        bool [B, T], the last time index not among them unless it is a bootstrap row.
    """
    step_type, next_step_type = trajectory.step_type, trajectory.next_step_type
    no_action = (step_type != StepType.LAST) & (next_step_type == StepType.FIRST)
    first_follows = tf.pad((step_type == StepType.FIRST)[:, 1:], [[0, 0], [0, 1]])
    padding_follows = first_follows & tf.pad(no_action[:, 1:], [[0, 0], [0, 1]])
    unfinished = (next_step_type == StepType.MID) | ((next_step_type == StepType.LAST) & padding_follows)
    return no_action | (unfinished & first_follows & (trajectory.discount > 0))


def bootstrap_free_mask(trajectory: Trajectory) -> tf.Tensor:
    """Valid rows of a raw experience: every transition but those at the last time index and at other ends of rollouts.

    Their observation has no successor to tell what the action led to; only its value is used.

    Args:
        trajectory: raw experience [B, T, ...].

    Returns:
        bool [B, T].
    """
    transitions = masking.transition_mask(trajectory.step_type, trajectory.next_step_type)
    before_last = tf.range(tf.shape(transitions)[1]) < tf.shape(transitions)[1] - 1
    return transitions & before_last & ~rollout_ends(trajectory)


def precomputed_mask(trajectory: Trajectory) -> tf.Tensor:
    """Valid rows of an experience that `preprocess_sequence` has filled, possibly cut into single rows since.

    There the last time index is known by a return and an advantage that are both 0, as in TF-Agents.

    Args:
        trajectory: experience [B, T, ...] with `return` and `advantage` in its policy info.

    Returns:
        bool [B, T].
    """
    info = trajectory.policy_info
    unknown = (info["return"] == 0) & (info["advantage"] == 0)
    return masking.transition_mask(trajectory.step_type, trajectory.next_step_type) & ~unknown


def make_batch(trajectory: Trajectory, mask: Tensor, weights: Tensor | None, codec: ParameterCodec) -> TrainingBatch:
    """Gathers what gradient steps need, with nothing left of the rows that do not count.

    Args:
        trajectory: experience [B, T, ...] with `dist_params`, `return`, `advantage` and `value_prediction`.
        mask: bool [B, T], True for the rows that count.
        weights: importance weights, see `broadcast_weights`.
        codec: rebuilds the distributions that the actions were drawn from.

    Returns:
        The batch [B, T, ...]; with stored states, they are [B, T, ...] too until `cut_into_sequences`.
    """
    info, step_type = trajectory.policy_info, trajectory.step_type
    batch = TrainingBatch(
        time_steps=time_steps_of(trajectory),
        actions=trajectory.action,
        action_log_probs=(),  # Of what is left.
        distribution_parameters=info["dist_params"],
        returns=info["return"],
        advantages=info["advantage"],
        old_values=info["value_prediction"],
        weights=broadcast_weights(weights, step_type),
        mask=(),
        policy_state=info.get("policy_state", ()),
    )
    batch = masking.replace_invalid_rows(batch, mask)
    old_distributions = codec.to_distributions(batch.distribution_parameters)
    return batch._replace(
        # Recurrent networks restart where the step types say so.
        time_steps=batch.time_steps._replace(step_type=step_type),
        action_log_probs=distributions.log_probability(old_distributions, batch.actions, outer_rank=2),
        mask=mask,
    )


def broadcast_weights(weights: Tensor | None, like: Tensor) -> tf.Tensor:
    """Brings importance weights to the shape of the rows.

    Args:
        weights: None, a scalar, [B] or [B, T].
        like: a tensor [B, T].

    Returns:
        float32 [B, T].

    Raises:
        ValueError: weights that are no numbers, or of another shape.
    """
    ones, weights = tf.ones_like(like, tf.float32), as_weights(weights, like)
    if weights is None:
        return ones
    return ones * (weights[:, tf.newaxis] if weights.shape.rank == 1 else weights)


def as_weights(weights: Tensor | None, like: Tensor) -> tf.Tensor | None:
    """Checks importance weights.

    Args:
        weights: None, a scalar, [B] or [B, T].
        like: a tensor [B, T].

    Returns:
        float32 of the same shape; None for None.

    Raises:
        ValueError: weights that are no numbers, or of another shape.
    """
    if weights is None:
        return None
    try:
        weights = tf.convert_to_tensor(weights, tf.float32)
    except (ValueError, TypeError) as error:
        kind = weights.dtype.name if tf.is_tensor(weights) else type(weights).__name__
        raise ValueError(f"weights is of type {kind}, expected numbers that make a float32 tensor.") from error
    expected = [tf.TensorShape([]), like.shape[:1], like.shape]
    if not any(weights.shape.rank == e.rank and weights.shape.is_compatible_with(e) for e in expected):
        raise ValueError(f"weights has the shape {weights.shape}, expected a scalar, {expected[1]} or {expected[2]}.")
    return weights


def prepared(minibatch: TrainingBatch) -> TrainingBatch:
    """A minibatch as its loss takes it: advantages are normalised, and weights make up for rows that do not count."""
    return minibatch._replace(
        advantages=masking.normalize_advantages(minibatch.advantages, minibatch.mask),
        weights=minibatch.weights * masking.balanced_weights(minibatch.mask),
    )


def without_last_step(
    trajectory: Trajectory, mask: Tensor, weights: Tensor | None
) -> tuple[Trajectory, tf.Tensor, tf.Tensor]:
    """An experience [B, T, ...], its mask and weights without what only served to bootstrap from, [B, T - 1, ...]."""
    weights = broadcast_weights(weights, trajectory.step_type)
    return tf.nest.map_structure(lambda tensor: tensor[:, :-1], (trajectory, mask, weights))


def flatten_time(batch: TrainingBatch) -> TrainingBatch:
    """Turns B rows of T steps into B * T rows of a single step, [B * T, 1, ...]."""
    return tf.nest.map_structure(lambda tensor: tf.reshape(tensor, [-1, 1, *tensor.shape[2:]]), batch)


def valid_steps(batch: TrainingBatch) -> TrainingBatch:
    """The steps that count, as rows of a single step [N, 1, ...]; the first one where none does, so that N is not 0."""
    mask = tf.reshape(batch.mask, [-1])
    is_first = tf.range(tf.size(mask)) == 0
    rows = tf.where(mask | (is_first & ~tf.reduce_any(mask)))[:, 0]
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), flatten_time(batch))


def pad_rows(batch: TrainingBatch, axis: int, size: Tensor) -> TrainingBatch:
    """Appends rows that do not count, so that a compiled update sees few different shapes.

    They are copies of the last row: zeros would be no valid parameters of a distribution.

    Args:
        batch: tensors [B, T, ...].
        axis: 0 to append sequences, 1 to append time steps.
        size: size of that axis afterwards, at least what it is now.

    Returns:
        The longer batch, with a mask that is False in what was added.
    """
    present = tf.shape(batch.mask)[axis]
    rows = tf.minimum(tf.range(size), present - 1)
    # States belong to the first steps alone.
    longer = tf.nest.map_structure(
        lambda tensor: tf.gather(tensor, rows, axis=axis), batch if axis == 0 else batch._replace(policy_state=())
    )
    counts = tf.expand_dims(tf.range(size) < present, 1 - axis)
    return longer._replace(mask=longer.mask & counts, policy_state=(longer if axis == 0 else batch).policy_state)


def cut_into_sequences(batch: TrainingBatch, length: int | None) -> TrainingBatch:
    """Cuts rows of T steps into sequences for recurrent networks, each with the states that it starts from.

    Args:
        batch: [B, T, ...], `policy_state` too.
        length: L, steps of a sequence; None takes a whole row as one.

    Returns:
        [B * ceil(T / L), L, ...], `policy_state` [B * ceil(T / L), 1, ...]. A last sequence that is shorter is filled
        up with steps that do not count.
    """
    if length is None:
        return batch._replace(policy_state=tf.nest.map_structure(lambda state: state[:, :1], batch.policy_state))
    count = -(-tf.shape(batch.mask)[1] // length)
    states = batch.policy_state
    padded = pad_rows(batch._replace(policy_state=()), axis=1, size=count * length)

    firsts = tf.nest.map_structure(lambda state: tf.reshape(state[:, ::length], [-1, 1, *state.shape[2:]]), states)
    sequences = tf.nest.map_structure(lambda tensor: tf.reshape(tensor, [-1, length, *tensor.shape[2:]]), padded)
    return sequences._replace(policy_state=firsts)
