"""Checks of the numbers that `train` is given: step types, discrete actions, and whether any step counts.

Eager arrays are looked at by NumPy, which takes a few microseconds each; in a graph, assertions do the same.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import StepType, Trajectory
from tf_agents.utils import nest_utils

from ppo_agent.common.types import Array, Nest
from ppo_agent.learner import batches
from ppo_agent.maths import masking

# Numbers in a row that NumPy reduces quickly.
_LONG_ROW = 1024
_STEP_TYPES = ("step_type", "next_step_type")
_EXPECTED_STEP_TYPE = "expected 0 (FIRST), 1 (MID) or 2 (LAST)"
_NO_STEP = (
    "experience has no step to learn from, expected at least one whose weight is not 0 and that is neither a boundary "
    "row (step type LAST), nor padding (next step type FIRST), nor the last of a rollout."
)


def checked(trajectory: Trajectory, weights: tf.Tensor | None, action_spec: Nest, is_raw: bool) -> Trajectory:
    """Returns the trajectory if its numbers can be trained on.

    Args:
        trajectory: tensors [B, T, ...] that fit their spec.
        weights: importance weights, float32 scalar, [B] or [B, T]; None for ones.
        action_spec: nest of BoundedTensorSpecs.
        is_raw: whether it has no returns and advantages yet, so that its last time index is only a bootstrap row.

    Returns:
        The same trajectory; in a graph, one that is there after the assertions.

    Raises:
        ValueError: a step type outside 0 to 2, a discrete action outside its range in a step that counts, or no step
            that counts; in a graph InvalidArgumentError when it runs.
    """
    # A replica whose share has no such step is no error: the others have.
    needs_step = tf.distribute.get_strategy().num_replicas_in_sync == 1
    if not tf.executing_eagerly():
        return _asserted(trajectory, weights, action_spec, is_raw, needs_step)
    _check_step_types(trajectory)
    _check_actions(trajectory, action_spec, is_raw)
    if needs_step and not _has_step(trajectory, weights, is_raw):
        raise ValueError(_NO_STEP)
    return trajectory


def _check_step_types(trajectory: Trajectory) -> None:
    for name in _STEP_TYPES:
        types = getattr(trajectory, name).numpy()
        # As unsigned numbers, negative ones are large.
        if types.size and types.view(np.uint32).max() > StepType.LAST:
            found = types[(types < StepType.FIRST) | (types > StepType.LAST)][0]
            raise ValueError(f"experience.{name} is {found} in a step, {_EXPECTED_STEP_TYPE}.")


def _check_actions(trajectory: Trajectory, action_spec: Nest, is_raw: bool) -> None:
    for i, spec, leaf in _discrete_leaves(trajectory, action_spec):
        if _is_inside(leaf, spec):
            continue
        values = leaf.numpy()
        mask = _mask(trajectory, is_raw).numpy()
        outside = (values < spec.minimum) | (values > spec.maximum)
        wrong = np.argwhere(outside & mask.reshape(mask.shape + (1,) * spec.shape.rank))
        if len(wrong):
            component = tuple(wrong[0][2:].tolist())
            where = f" in component {list(component)}" if component else ""
            low, high = (np.broadcast_to(bound, spec.shape)[component] for bound in (spec.minimum, spec.maximum))
            raise ValueError(
                f"{_path(action_spec, i)} is {values[tuple(wrong[0])]}{where}, "
                f"expected a whole number from {low} to {high}."
            )


def _discrete_leaves(trajectory: Trajectory, action_spec: Nest) -> list[tuple[int, tf.TensorSpec, tf.Tensor]]:
    """Number, spec and tensor of each leaf of the actions that holds whole numbers."""
    leaves = zip(tf.nest.flatten(action_spec), tf.nest.flatten(trajectory.action), strict=True)
    return [(i, spec, leaf) for i, (spec, leaf) in enumerate(leaves) if spec.dtype.is_integer]


def _is_inside(leaf: tf.Tensor, spec: tf.TensorSpec) -> bool:
    """Whether all of a leaf [B, T, ...] lies within its bounds."""
    values, low, high = leaf.numpy(), spec.minimum, spec.maximum
    if not values.size:
        return True
    if low.min() == low.max() and high.min() == high.max():
        return bool(values.min() >= low.min() and values.max() <= high.min())
    components = values.reshape(-1, spec.shape.num_elements())
    least, most = (_extremes(components, reduce).reshape(spec.shape) for reduce in (np.minimum, np.maximum))
    return bool((least >= low).all() and (most <= high).all())


def _extremes(components: Array, reduce: np.ufunc) -> Array:
    """Minima or maxima [n] of an array [N, n] with N > 0: rows of few numbers NumPy reduces ten times as slowly."""
    size = components.shape[1]
    joined = max(1, _LONG_ROW // size)
    whole = len(components) // joined * joined
    if not whole:
        return reduce.reduce(components)
    rows = reduce.reduce(components[:whole].reshape(-1, joined * size)).reshape(joined, size)
    return reduce.reduce(np.concatenate([rows, components[whole:]]))


def _path(action_spec: Nest, i: int) -> str:
    return f"experience.{nest_utils.flatten_with_joined_paths({'action': action_spec})[i][0]}"


def _has_step(trajectory: Trajectory, weights: tf.Tensor | None, is_raw: bool) -> bool:
    step, following = trajectory.step_type.numpy(), trajectory.next_step_type.numpy()
    certain = (step != StepType.LAST) & (following != StepType.FIRST)
    if is_raw:
        # No end of a rollout lies where the next row is no first step: nearly always there is such one.
        certain = certain[:, :-1] & (step[:, 1:] != StepType.FIRST)
    if weights is not None:
        certain = certain & (_as_columns(weights.numpy())[..., : certain.shape[1]] != 0)
    return bool(certain.any()) or bool(_counts(trajectory, weights, is_raw).numpy().any())


def _as_columns(weights: Array) -> Array:
    """Weights that are a scalar, [B] or [B, T] so that they can be multiplied with [B, T]."""
    return weights[:, np.newaxis] if weights.ndim == 1 else np.atleast_2d(weights)


def _counts(trajectory: Trajectory, weights: tf.Tensor | None, is_raw: bool) -> tf.Tensor:
    """Steps that a loss is made of, bool [B, T]."""
    return _mask(trajectory, is_raw) & (batches.broadcast_weights(weights, trajectory.step_type) != 0)


def _mask(trajectory: Trajectory, is_raw: bool) -> tf.Tensor:
    # Steps whose return and advantage are both 0 are left out where they are precomputed, but may be all that there is.
    if is_raw:
        return batches.bootstrap_free_mask(trajectory)
    return masking.transition_mask(trajectory.step_type, trajectory.next_step_type)


def _asserted(
    trajectory: Trajectory, weights: tf.Tensor | None, action_spec: Nest, is_raw: bool, needs_step: bool
) -> Trajectory:
    checks = []
    for name in _STEP_TYPES:
        types = getattr(trajectory, name)
        sound = tf.reduce_all((types >= StepType.FIRST) & (types <= StepType.LAST))
        checks.append(tf.debugging.Assert(sound, [f"experience.{name} is out of range, {_EXPECTED_STEP_TYPE}."]))
    for i, spec, leaf in _discrete_leaves(trajectory, action_spec):
        outside = tf.reduce_any((leaf < spec.minimum) | (leaf > spec.maximum), list(range(2, 2 + spec.shape.rank)))
        low, high = spec.minimum.tolist(), spec.maximum.tolist()
        message = f"{_path(action_spec, i)} is out of range, expected whole numbers from {low} to {high}."
        checks.append(tf.debugging.Assert(~tf.reduce_any(outside & _mask(trajectory, is_raw)), [message]))
    if needs_step:
        checks.append(tf.debugging.Assert(tf.reduce_any(_counts(trajectory, weights, is_raw)), [_NO_STEP]))
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.nest.map_structure(tf.identity, trajectory)
