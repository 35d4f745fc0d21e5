"""What a gradient step and a call of `train` report: losses and metrics by name, in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.agents.tf_agent import LossInfo

from ppo_agent import summaries
from ppo_agent.common import replicas
from ppo_agent.common.types import Tensor

Metrics = dict[str, Tensor]


class PPOLossInfo(NamedTuple):
    """The terms of the loss of one gradient step; float32 scalars.

    Attributes:
        policy_gradient_loss: clipped surrogate.
        value_estimation_loss: squared error of the value predictions, times its coefficient.
        l2_regularization_loss: weight decay.
        entropy_regularization_loss: negative entropy, times its coefficient.
        kl_penalty_loss: adaptive KL penalty and KL cutoff.
        clip_fraction: share of the valid steps whose importance ratio was clipped.
    """

    policy_gradient_loss: Tensor
    value_estimation_loss: Tensor
    l2_regularization_loss: Tensor
    entropy_regularization_loss: Tensor
    kl_penalty_loss: Tensor
    clip_fraction: Tensor


class StepResult(NamedTuple):
    """What one gradient step reports, from before it changed the parameters.

    Attributes:
        loss_info: losses of the minibatch.
        metrics: further scalars by name.
    """

    loss_info: LossInfo
    metrics: Metrics


# What is reported of each gradient step.
STEP_METRICS = ("loss", *PPOLossInfo._fields, "entropy", "approx_kl", "gradient_norm")
# What is kept of a call of `train`: means of those over its steps, and more. The order is that of saved checkpoints.
ENTRIES = (
    *STEP_METRICS, "explained_variance", "learning_rate", "adaptive_kl_beta", "mean_kl_divergence", "skipped_steps",
    "skipped_in_a_row", "gradient_steps", "value_mean", "return_mean", "advantage_mean",
)  # fmt: skip
# This one is for the next call only.
TRAIN_METRICS = tuple(name for name in ENTRIES if name != "skipped_in_a_row")

# What an optimiser or an agent does not have. Not a constant NaN: `tf.debugging.enable_check_numerics` stops at one.
UNKNOWN = float(np.finfo(np.float32).max)


def shares(result: StepResult) -> StepResult:
    """What a replica has to add so that the sum over all of them is the step's result.

    The loss and its terms are shares already (see `replicas.share`); the rest is known to all.
    """
    number = replicas.count()
    loss, extra = result.loss_info
    extra = extra._replace(clip_fraction=extra.clip_fraction / number)
    return StepResult(LossInfo(loss, extra), {name: value / number for name, value in result.metrics.items()})


def of_step(result: StepResult) -> tf.Tensor:
    """The report of a gradient step, float32 [len(STEP_METRICS)]."""
    loss, extra = result.loss_info
    terms = {"loss": loss, **extra._asdict(), **result.metrics}
    return tf.stack([tf.cast(terms[name], tf.float32) for name in STEP_METRICS])


def of_train(step_means: Tensor, **others: Tensor | None) -> tf.Tensor:
    """The report of a call of `train`.

    Args:
        step_means: means of its steps' reports, float32 [len(STEP_METRICS)].
        others: all other `ENTRIES`, scalars; None for what is unknown.

    Returns:
        float32 [len(ENTRIES)].
    """
    values = [others[name] for name in ENTRIES[len(STEP_METRICS) :]]
    rest = [tf.cast(UNKNOWN if value is None else value, tf.float32) for value in values]
    return tf.concat([step_means, tf.stack(rest)], axis=0)


def entry(report: Tensor, name: str) -> tf.Tensor:
    """One of the `ENTRIES` of a report, or of the `STEP_METRICS` of a step's."""
    return report[ENTRIES.index(name)]


def loss_info(step_report: Tensor) -> LossInfo:
    """The losses in the report of a gradient step."""
    loss, *terms = tf.unstack(step_report[: len(PPOLossInfo._fields) + 1])
    return LossInfo(loss, PPOLossInfo(*terms))


def train_metrics(values: Sequence[float]) -> dict[str, float]:
    """The `TRAIN_METRICS` by name, of the values of a report; NaN for what is unknown.

    Raises:
        ValueError: there was no call of `train` yet.
    """
    named = dict(zip(ENTRIES, values, strict=True))
    if not any(values):
        raise ValueError("train_metrics is called before train, expected after its first call.")
    return {name: math.nan if named[name] == UNKNOWN else named[name] for name in TRAIN_METRICS}


def write_summaries(values: Tensor, train_step: Tensor) -> None:
    """Writes the metrics of a report to tf.summary."""
    scalars = values.numpy().tolist() if tf.executing_eagerly() else tf.unstack(values)
    named = train_metrics(scalars) if tf.executing_eagerly() else dict(zip(ENTRIES, scalars, strict=True))
    summaries.write_train_metrics(named, train_step)
