"""The loop over the gradient steps of all epochs, inside one compiled function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from ppo_agent.common.types import Tensor

# Takes the gradient step of a number; returns its report, float32 [num_scalars], and whether it was sound.
Step = Callable[[Tensor], tuple[tf.Tensor, tf.Tensor]]


class EpochsResult(NamedTuple):
    """What the gradient steps of a call reported.

    Attributes:
        last: report of the last step that was not skipped, float32 [num_scalars]; NaN if all were.
        means: means over the steps that were not skipped.
        taken: number of steps, skipped ones included.
        skipped: number of steps that were skipped because their loss or gradient was not finite.
        skipped_in_a_row: how many of them were the last ones, those of earlier calls included.
    """

    last: tf.Tensor
    means: tf.Tensor
    taken: Tensor
    skipped: Tensor
    skipped_in_a_row: Tensor

    def followed_by(self, later: EpochsResult) -> EpochsResult:
        """What these steps and later ones reported together."""
        before, behind = (tf.cast(part.taken - part.skipped, tf.float32) for part in (self, later))
        total = tf.math.multiply_no_nan(self.means, before) + tf.math.multiply_no_nan(later.means, behind)
        return EpochsResult(
            tf.where(behind > 0, later.last, self.last),
            total / (before + behind),
            self.taken + later.taken,
            self.skipped + later.skipped,
            later.skipped_in_a_row,
        )


# Takes the gradient steps of an epoch, with its targets, after so many steps in a row that were skipped.
Epoch = Callable[[Tensor, Any, Tensor], EpochsResult]


class _Tally(NamedTuple):
    """The reports so far, from which `EpochsResult` is made."""

    taken: Tensor
    last: tf.Tensor
    total: tf.Tensor
    skipped: Tensor
    in_a_row: Tensor

    def after(self, report: tf.Tensor, is_sound: tf.Tensor) -> _Tally:
        return _Tally(
            self.taken + 1,
            tf.where(is_sound, report, self.last),
            self.total + tf.where(is_sound, report, tf.zeros_like(report)),
            self.skipped + tf.cast(~is_sound, tf.int32),
            tf.where(is_sound, 0, self.in_a_row + 1),
        )

    def as_result(self) -> EpochsResult:
        """Of no steps: totals of 0 in place of means of nothing."""
        return EpochsResult(self.last, self.total, self.taken, self.skipped, self.in_a_row)

    def result(self) -> EpochsResult:
        # 0 / 0 where all were skipped: no constant that is NaN, at which `tf.debugging.enable_check_numerics` stops.
        num_sound = tf.cast(self.taken - self.skipped, tf.float32)
        last = self.last * num_sound / num_sound
        return EpochsResult(last, self.total / num_sound, self.taken, self.skipped, self.in_a_row)


def run_epochs(
    step: Step,
    num_steps: Tensor,
    num_scalars: int,
    continues: Callable[[tf.Tensor], tf.Tensor] = lambda _: tf.constant(True),
    skipped_before: Tensor = 0,
    most_skipped: int = 0,
) -> EpochsResult:
    """Takes gradient steps in a loop whose size in the graph does not depend on their number.

    Args:
        step: takes one gradient step; a step that is not sound counts as skipped.
        num_steps: how many at most, an int32 scalar of at least 1; the graph of the number 1 has no loop, which would
            take as long as a step of small networks.
        num_scalars: how many scalars a step reports.
        continues: tells from the report of a step (zeros before the first one) whether another one follows.
        skipped_before: how many steps in a row were skipped before.
        most_skipped: no further step follows so many skipped ones in a row; 0 for any number.

    Returns:
        What the steps reported.
    """
    follows = _follows(continues, most_skipped)

    def more(*variables: tf.Tensor) -> tf.Tensor:
        tally = _Tally(*variables)
        return (tally.taken < num_steps) & follows(tally.last, tally.in_a_row)

    def body(*variables: tf.Tensor) -> list[Tensor]:
        tally = _Tally(*variables)
        return list(tally.after(*step(tally.taken)))

    # A call that comes after the limit was reached takes a step all the same.
    before = tf.cast(skipped_before, tf.int32)
    before = tf.minimum(before, most_skipped - 1) if most_skipped else before
    nothing = _no_steps(num_scalars, before)
    if isinstance(num_steps, int) and num_steps == 1:
        return nothing.after(*step(nothing.taken)).result()
    return _Tally(*tf.while_loop(more, body, list(nothing))).result()


def near(continues: Callable[[tf.Tensor], tf.Tensor], most_skipped: int) -> Callable[[EpochsResult], tf.Tensor]:
    """Tells from what the steps so far reported whether another epoch follows, as `run_epochs` does for steps."""
    follows = _follows(continues, most_skipped)
    return lambda result: follows(result.last, result.skipped_in_a_row)


def _follows(
    continues: Callable[[tf.Tensor], tf.Tensor], most_skipped: int
) -> Callable[[tf.Tensor, Tensor], tf.Tensor]:
    """Tells whether another step follows, from the last report and how many steps in a row were skipped."""

    def follows(last: tf.Tensor, skipped_in_a_row: Tensor) -> tf.Tensor:
        is_near = continues(last)
        return is_near & (skipped_in_a_row < most_skipped) if most_skipped else is_near

    return follows


def run_with_targets(
    epoch: Epoch,
    targets: Any,
    retargeted: Callable[[], Any],
    num_epochs: int,
    num_scalars: int,
    skipped_before: Tensor,
    continues: Callable[[EpochsResult], tf.Tensor],
) -> EpochsResult:
    """Takes the gradient steps of epochs of which each has targets of its own.

    Args:
        epoch: takes the steps of one.
        targets: those of the first epoch, tensors.
        retargeted: makes those of each further epoch, of the same shapes.
        num_epochs: how many at most, at least 1.
        num_scalars: how many scalars a step reports.
        skipped_before: how many steps in a row were skipped before.
        continues: tells from what all steps so far reported whether another epoch follows.

    Returns:
        What the steps reported.
    """

    def more(index: Tensor, _: Any, so_far: EpochsResult) -> tf.Tensor:
        return (index == 0) | ((index < num_epochs) & continues(so_far))

    def body(index: Tensor, targets: Any, so_far: EpochsResult) -> tuple[Tensor, Any, EpochsResult]:
        targets = tf.cond(index > 0, retargeted, lambda: targets)
        return index + 1, targets, so_far.followed_by(epoch(index, targets, so_far.skipped_in_a_row))

    nothing = _no_steps(num_scalars, tf.cast(skipped_before, tf.int32)).as_result()
    return tf.while_loop(more, body, (tf.constant(0), targets, nothing))[2]


def run_unrolled_with_targets(
    epoch: Callable[[Tensor, Any, Tensor, Tensor], EpochsResult],
    targets: Any,
    retargeted: Callable[[], Any],
    num_epochs: int,
    num_scalars: int,
    skipped_before: Tensor,
    continues: Callable[[EpochsResult], tf.Tensor],
) -> EpochsResult:
    """`run_with_targets` for replicas, which must not be in a loop of their own when they meet.

    An epoch that does not follow takes no steps: its last argument tells how many epochs to take, 1 or 0.
    """
    result = _no_steps(num_scalars, tf.cast(skipped_before, tf.int32)).as_result()
    for index in range(num_epochs):
        follows = tf.cast(continues(result), tf.int32) if index else tf.constant(1)
        targets = retargeted() if index else targets
        result = result.followed_by(epoch(tf.constant(index), targets, result.skipped_in_a_row, follows))
    return result


def _no_steps(num_scalars: int, skipped_before: Tensor) -> _Tally:
    return _Tally(tf.constant(0), tf.zeros([num_scalars]), tf.zeros([num_scalars]), tf.constant(0), skipped_before)
