"""What is written to tf.summary, under the names that TF-Agents uses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tf_agents.utils import eager_utils

from ppo_agent.common.scalar_summaries import write_scalars
from ppo_agent.common.types import Nest, Tensor
from ppo_agent.maths.losses import SurrogateMetrics

_LOSSES = (
    "policy_gradient_loss",
    "value_estimation_loss",
    "l2_regularization_loss",
    "entropy_regularization_loss",
    "kl_penalty_loss",
)
_DIAGNOSTICS = ("clip_fraction", "approx_kl", "explained_variance", "gradient_norm")


@contextlib.contextmanager
def recording(condition: Tensor) -> Iterator[None]:
    """Records summaries where a condition holds, under their own names: a loop would put `while/` in front of them."""
    with tf.summary.record_if(condition), tf.compat.v1.name_scope(None):
        yield


def write_train_metrics(metrics: Mapping[str, Tensor], step: Tensor) -> None:
    """Writes the scalars of one call of `train`, means over its gradient steps.

    Args:
        metrics: scalars by name, see `PPOAgent.train_metrics`.
        step: the train step to write them at.
    """
    scalars = {f"Losses/{name}": metrics[name] for name in (*_LOSSES, "entropy")}
    scalars["Losses/total_abs_loss"] = sum(abs(metrics[name]) for name in _LOSSES)
    scalars["LearningRate/learning_rate"] = metrics["learning_rate"]
    write_scalars(step, **scalars, **{f"Diagnostics/{name}": metrics[name] for name in _DIAGNOSTICS})


def write_histograms(step: Tensor, **values: Tensor) -> None:
    """Writes histograms under their names; TPUs have none."""
    if tf.config.list_logical_devices("TPU"):
        return
    for name, value in values.items():
        tf.summary.histogram(name, value, step)


def write_nest_histograms(step: Tensor, name: str, nest: Nest) -> None:
    """Writes a histogram per leaf, numbered when there are several."""
    leaves = tf.nest.flatten(nest)
    names = [name] if len(leaves) == 1 else [f"{name}_{i}" for i in range(len(leaves))]
    write_histograms(step, **dict(zip(names, leaves, strict=True)))


def write_values(
    step: Tensor, observations: Nest, values: Tensor, returns: Tensor, error: Tensor, loss: Tensor
) -> None:
    """Writes what the value loss is made of."""
    write_nest_histograms(step, "observations", observations)
    averages = {"value_pred_avg": tf.reduce_mean(values), "value_actual_avg": tf.reduce_mean(returns)}
    write_scalars(step, **averages, value_estimation_loss=loss)
    write_histograms(step, value_preds=values, value_estimation_error=error)


def write_rewards(step: Tensor, name: str, rewards: Tensor) -> None:
    """Writes a histogram and the mean of rewards, normalised or not."""
    write_histograms(step, **{name: rewards})
    write_scalars(step, **{f"{name}_mean": tf.reduce_mean(rewards)})


def write_surrogate(
    step: Tensor,
    parts: SurrogateMetrics,
    log_probs: Tensor,
    old_log_probs: Tensor,
    loss: Tensor,
    clip_fraction: Tensor | None,
) -> None:
    """Writes what the policy gradient loss is made of; `clip_fraction` is None without clipping."""
    if clip_fraction is not None:
        write_scalars(step, clip_fraction=clip_fraction)
    write_scalars(step, importance_ratio_mean=tf.reduce_mean(parts.importance_ratio))
    write_histograms(
        step,
        action_log_prob=log_probs,
        action_log_prob_sample=old_log_probs,
        importance_ratio=parts.importance_ratio,
        importance_ratio_clipped=parts.clipped_ratio,
        per_timestep_objective=parts.objective,
        per_timestep_objective_clipped=parts.clipped_objective,
        per_timestep_objective_min=tf.minimum(parts.objective, parts.clipped_objective),
        policy_gradient_loss=loss,
    )


def write_distributions(step: Tensor, distributions: Nest, entropy: Tensor | None) -> None:
    """Writes entropy, and mean and standard deviation of continuous actions."""
    if entropy is not None:
        write_scalars(step, policy_entropy_mean=tf.reduce_mean(entropy))
        write_histograms(step, policy_entropy=entropy)
    for i, distribution in enumerate(tf.nest.flatten(distributions)):
        suffix = f"_{i}" if i else ""
        if distribution.dtype.is_floating:
            _write_moments(step, suffix, distribution)


def _write_moments(step: Tensor, suffix: str, distribution: Any) -> None:
    for name, moment in (("mean", distribution.mean), ("stddev", distribution.stddev)):
        try:
            value = moment()
        except NotImplementedError:  # A squashed normal, for one, has no closed form.
            continue
        write_histograms(step, **{f"actions_distribution_{name}{suffix}": value})


def write_gradients_and_variables(step: Tensor, gradients_and_variables: Sequence[tuple[Tensor, tf.Variable]]) -> None:
    """Writes a histogram and the norm of every gradient and every variable."""
    eager_utils.add_gradients_summaries(gradients_and_variables, step)
    eager_utils.add_variables_summaries(gradients_and_variables, step)


def write_variables(step: Tensor, variables: Sequence[tf.Variable]) -> None:
    """Writes a histogram of every variable."""
    write_histograms(step, **{f"Variables/{v.name.replace(':', '_')}": v for v in variables})
