"""`ppo-train` with one of the corrections 1 to 4 of the README's table taken back: what is each of them worth?

    python -m benchmarks.ablation 1 --env_name=CartPole-v1 --collect_steps_per_iteration=32 ...

The package has no switch for this: its functions are replaced here, in this process only. Corrections 3 and 4 are
about rows between episodes, which only an experience of fixed size [B, T] shows, so that a run has to collect by steps.
"""

# ruff: noqa: I001 - ppo_agent comes before tensorflow: it chooses the Keras that TF-Agents needs.
from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest import mock


from ppo_agent import agent, train, update_methods
from ppo_agent.maths import masking, returns
from ppo_agent.learner import batches
import tensorflow as tf

Tensor = Any

_compute = agent.PPOAgent.compute_return_and_advantage
_update_normalizers = update_methods.UpdateMethods.update_normalizers
_make_batch = batches.make_batch
_normalize_advantages = masking.normalize_advantages


def _bootstrap_from_the_last_but_one(self: Any, next_time_steps: Any, value_preds: Tensor) -> Any:
    """Correction 1: the value of the final observation is replaced with the one before."""
    return _compute(self, next_time_steps, tf.concat([value_preds[:, :-1], value_preds[:, -2:-1]], axis=1))


def _end_without_value(rewards: Tensor, discounts: Tensor, values: Tensor, episode_end: Tensor) -> Any:
    """Correction 2: an episode that a time limit cut short has no future."""
    del values
    return rewards, tf.where(episode_end, tf.zeros_like(discounts), discounts)


def _normalize_over_all_rows(trajectory: Any, mask: Tensor, *arguments: Any) -> Any:
    """Correction 3, advantages: mean and variance over a whole batch with its boundary rows."""
    batch = _make_batch(trajectory, mask, *arguments)
    every = trajectory.policy_info["advantage"]
    known = tf.range(tf.shape(every)[1]) < tf.shape(every)[1] - 1
    mean, variance = masking.masked_moments(every, tf.broadcast_to(known, tf.shape(every)))
    return batch._replace(advantages=(batch.advantages - mean) * tf.math.rsqrt(variance + 1e-8))


def _normalize_over_valid_rows(trajectory: Any, mask: Tensor, *arguments: Any) -> Any:
    """As `_normalize_over_all_rows` without boundary rows, to compare it with."""
    batch = _make_batch(trajectory, mask, *arguments)
    return batch._replace(advantages=_normalize_advantages(batch.advantages, mask))


def _keep_advantages(values: Tensor, mask: Tensor, **_: Tensor) -> tf.Tensor:
    """They were normalised over the batch."""
    return tf.where(tf.cast(mask, tf.bool), values, tf.zeros_like(values))


def _take_in_all_rewards(self: Any, trajectory: Any) -> None:
    """Correction 3, rewards: the normaliser takes boundary rows in."""
    with mock.patch.object(masking, "transition_mask", lambda step_type, _: tf.ones_like(step_type, tf.bool)):
        _update_normalizers(self, trajectory)


def _deal_out_all_rows(trajectory: Any, mask: Tensor, *arguments: Any) -> Any:
    """Correction 4: boundary rows are dealt out with the others and add zeros to the means over a minibatch."""
    batch = _make_batch(trajectory, mask, *arguments)
    before_last = tf.range(tf.shape(mask)[1]) < tf.shape(mask)[1] - 1
    return batch._replace(
        weights=batch.weights * tf.cast(mask, tf.float32),
        advantages=tf.where(mask, batch.advantages, float("nan")),  # Tells `_normalize_where_known` which to leave out.
        mask=tf.broadcast_to(before_last, tf.shape(mask)),
    )


def _normalize_where_known(values: Tensor, mask: Tensor, **_: Tensor) -> tf.Tensor:
    """Advantages over valid rows alone, as correction 3 has it."""
    return _normalize_advantages(values, tf.cast(mask, tf.bool) & ~tf.math.is_nan(values))


Patches = tuple[tuple[Any, str, Callable[..., Any]], ...]
ABLATIONS: dict[str, Patches] = {
    "nothing": (),
    "1": ((agent.PPOAgent, "compute_return_and_advantage", _bootstrap_from_the_last_but_one),),
    "2": ((returns, "cut_at_episode_ends", _end_without_value),),
    "minibatch_statistics": (
        (batches, "make_batch", _normalize_over_valid_rows),
        (masking, "normalize_advantages", _keep_advantages),
    ),
    "3": (
        (batches, "make_batch", _normalize_over_all_rows),
        (masking, "normalize_advantages", _keep_advantages),
        (update_methods.UpdateMethods, "update_normalizers", _take_in_all_rewards),
    ),
    "4": (
        (batches, "make_batch", _deal_out_all_rows),
        (masking, "normalize_advantages", _normalize_where_known),
    ),
}


def main() -> int:
    """Runs `ppo-train` without what the first argument names."""
    name, *flags = sys.argv[1:]
    for target, attribute, replacement in ABLATIONS[name]:
        mock.patch.object(target, attribute, replacement).start()
    return train.main([f"ablation {name}", *flags])


if __name__ == "__main__":
    sys.exit(main())
