"""What is written to tf.summary, under the names that TF-Agents uses."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ppo_agent.common import summary_groups
from ppo_agent.common.scalar_summaries import write_scalars
from ppo_agent.common.types import Nest, Tensor
from ppo_agent.maths.losses import SurrogateMetrics

_LOSSES = (
    "policy_gradient_loss", "value_estimation_loss", "l2_regularization_loss", "entropy_regularization_loss",
    "kl_penalty_loss",
)  # fmt: skip
_DIAGNOSTICS = ("clip_fraction", "approx_kl", "explained_variance", "gradient_norm")


@contextlib.contextmanager
def recording(condition: Tensor, step: Tensor) -> Iterator[None]:
    """Records summaries where a condition holds and the caller's own, in one group at the end.

    They keep their own names: a loop would put `while/` in front of them.

    Args:
        condition: a bool scalar.
        step: the train step to write them at.
    """
    condition &= tf.summary.should_record_summaries()
    with tf.summary.record_if(condition), tf.compat.v1.name_scope(None), summary_groups.group(step):
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


def write_histograms(step: Tensor, **values: summary_groups.Value) -> None:
    """Writes histograms under their names; TPUs have none."""
    if not tf.config.list_logical_devices("TPU"):
        summary_groups.write(step, values, are_histograms=True)


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
    write_scalars(
        step,
        value_pred_avg=lambda: tf.reduce_mean(values),
        value_actual_avg=lambda: tf.reduce_mean(returns),
        value_estimation_loss=loss,
    )
    write_histograms(step, value_preds=values, value_estimation_error=error)


def write_rewards(step: Tensor, name: str, rewards: Tensor) -> None:
    """Writes a histogram and the mean of rewards, normalised or not."""
    write_histograms(step, **{name: rewards})
    write_scalars(step, **{f"{name}_mean": lambda: tf.reduce_mean(rewards)})


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
    write_scalars(step, importance_ratio_mean=lambda: tf.reduce_mean(parts.importance_ratio))
    write_histograms(
        step,
        action_log_prob=log_probs,
        action_log_prob_sample=old_log_probs,
        importance_ratio=parts.importance_ratio,
        importance_ratio_clipped=parts.clipped_ratio,
        per_timestep_objective=parts.objective,
        per_timestep_objective_clipped=parts.clipped_objective,
        per_timestep_objective_min=lambda: tf.minimum(parts.objective, parts.clipped_objective),
        policy_gradient_loss=loss,
    )


def write_distributions(step: Tensor, distributions: Nest, entropy: Tensor | None) -> None:
    """Writes entropy, None if it is unknown, and mean and standard deviation of continuous actions."""
    if entropy is not None:
        write_scalars(step, policy_entropy_mean=lambda: tf.reduce_mean(entropy))
        write_histograms(step, policy_entropy=entropy)
    for i, distribution in enumerate(tf.nest.flatten(distributions)):
        suffix = f"_{i}" if i else ""
        if distribution.dtype.is_floating:
            _write_moments(step, suffix, distribution)


def _write_moments(step: Tensor, suffix: str, distribution: Any) -> None:
    for name in ("mean", "stddev"):
        moment = functools.partial(_moment_or_none, distribution, name)
        write_histograms(step, **{f"actions_distribution_{name}{suffix}": moment})


def _moment_or_none(distribution: Any, name: str) -> Tensor | None:
    try:
        return getattr(distribution, name)()
    except NotImplementedError:  # A squashed normal, for one, has no closed form.
        return None


def write_gradients_and_variables(step: Tensor, gradients_and_variables: Sequence[tuple[Tensor, tf.Variable]]) -> None:
    """Writes a histogram and the norm of every gradient and every variable."""
    names = [variable.name.replace(":", "_") for _, variable in gradients_and_variables]
    gradients, variables = zip(*gradients_and_variables, strict=True)
    with tf.name_scope("summarize_grads"):
        _write_with_norms(step, {f"{n}_gradient": g for n, g in zip(names, gradients, strict=True) if g is not None})
    with tf.name_scope("summarize_vars"):
        _write_with_norms(step, {f"{n}_value": v for n, v in zip(names, variables, strict=True)})


def _write_with_norms(step: Tensor, tensors: Mapping[str, Any]) -> None:
    dense = {name: functools.partial(_without_gaps, tensor) for name, tensor in tensors.items()}
    write_histograms(step, **dense)
    write_scalars(step, **{f"{name}_norm": functools.partial(_norm, tensor) for name, tensor in tensors.items()})


def _without_gaps(tensor: Any) -> Tensor:
    """The rows that a sparse gradient has."""
    return tensor.values if isinstance(tensor, tf.IndexedSlices) else tensor


def _norm(tensor: Any) -> tf.Tensor:
    return tf.linalg.global_norm([_without_gaps(tensor)])


def write_variables(step: Tensor, variables: Sequence[tf.Variable]) -> None:
    """Writes a histogram of every variable."""
    write_histograms(step, **{f"Variables/{v.name.replace(':', '_')}": v for v in variables})
