"""One gradient step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ppo_agent.common import replicas
from ppo_agent.common.types import Tensor
from ppo_agent.learner import guards, report
from ppo_agent.learner.guards import Guard
from ppo_agent.learner.report import StepResult


def gradient_step(
    loss: Callable[[], StepResult],
    variables: Sequence[tf.Variable],
    optimizer: Any | None,
    gradient_clipping: float,
    guard: Guard = Guard.SKIP,
    state: Sequence[tf.Variable] = (),
) -> tuple[StepResult, list[tuple[Tensor, tf.Variable]], tf.Tensor]:
    """Moves the variables against the gradient of the loss; with several replicas, of the sum of their losses.

    Args:
        loss: evaluates the loss on a minibatch.
        variables: what to move.
        optimizer: a tf.keras, legacy tf.keras or tf.compat.v1 optimizer; None leaves it to the caller to apply the
            gradients.
        gradient_clipping: bound of the gradients' global norm; 0 for none.
        guard: what becomes of a step whose loss or gradient is not finite.
        state: what evaluating the loss may change; put back with `Guard.SKIP` if the step is not sound.

    Returns:
        What `loss` returned, with `gradient_norm` (before clipping) among the metrics; the gradients; and whether all
        was finite, a bool scalar.
    """
    undo = guards.Undo(state if guard is Guard.SKIP else [])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        result = loss()
    gradients = tape.gradient(result.loss_info.loss, variables)
    result, gradients = _of_all_replicas(result, gradients)
    norm = _global_norm(gradients, guard)
    if gradient_clipping > 0:
        gradients, _ = tf.clip_by_global_norm(gradients, gradient_clipping, use_norm=norm)
    # The norm is finite only if all of them are.
    is_sound = tf.math.is_finite(result.loss_info.loss) & tf.math.is_finite(norm)
    undo.where(~is_sound)
    gradients_and_variables = list(zip(gradients, variables, strict=True))
    if optimizer is not None:
        guards.apply(guard, is_sound, lambda: optimizer.apply_gradients(gradients_and_variables))
    return result._replace(metrics=result.metrics | {"gradient_norm": norm}), gradients_and_variables, is_sound


def _global_norm(gradients: list[Tensor], guard: Guard) -> tf.Tensor:
    """The root of the sum of squares; with `Guard.SKIP` also where the squares are beyond float32, as from 2e19 on."""
    norm = tf.linalg.global_norm(gradients)
    there = [gradient for gradient in gradients if gradient is not None]
    if guard is Guard.UNDO or not there:
        return norm

    def scaled() -> tf.Tensor:
        dense = [tf.convert_to_tensor(gradient) for gradient in there]
        largest = tf.reduce_max([tf.reduce_max(tf.abs(gradient)) for gradient in dense])
        return largest * tf.linalg.global_norm([gradient / largest for gradient in dense])

    return tf.cond(tf.math.is_inf(norm), scaled, lambda: norm)


def _of_all_replicas(result: StepResult, gradients: list[Tensor]) -> tuple[StepResult, list[Tensor]]:
    """The sums of losses and gradients over the replicas, in one message."""
    if replicas.count() == 1:
        return result, gradients
    there = [i for i, gradient in enumerate(gradients) if gradient is not None]
    dense = [tf.convert_to_tensor(gradients[i]) for i in there]
    result, dense = replicas.total((report.shares(result), dense))
    summed = dict(zip(there, dense, strict=True))
    return result, [summed.get(i) for i in range(len(gradients))]
