"""Mistakes that pass TF-Agents' own tests fail ours: each is made on purpose, and a test of this suite must see it."""

import numpy as np
import pytest
import tensorflow as tf
import test_agent
import test_corrections
import test_objective
from learner import test_update

from ppo_agent.agent import PPOAgent
from ppo_agent.learner import batches, gradients, minibatches
from ppo_agent.maths import adaptive_kl, distributions, losses, masking
from ppo_agent.maths import returns as return_ops
from ppo_agent.objective import Objective
from ppo_agent.update_methods import UpdateMethods


def maximum_in_the_surrogate(patch):
    original = losses.surrogate_loss

    def surrogate_loss(*arguments):
        _, parts = original(*arguments)
        return -tf.maximum(parts.objective, parts.clipped_objective), parts

    patch.setattr(losses, "surrogate_loss", surrogate_loss)


def reversed_kl(patch):
    original = distributions.kl_divergence
    patch.setattr(distributions, "kl_divergence", lambda old, new, outer_rank: original(new, old, outer_rank))


def value_clipping_with_minimum(patch):
    def value_loss(values, returns, old_values, clipping):
        clipped = old_values + tf.clip_by_value(values - old_values, -clipping, clipping)
        return tf.minimum((returns - values) ** 2, (returns - clipped) ** 2)

    patch.setattr(losses, "value_loss", value_loss)


def no_gradient_clipping(patch):
    original = gradients.gradient_step
    patch.setattr(
        gradients, "gradient_step", lambda loss, variables, optimizer, *_: original(loss, variables, optimizer, 0.0)
    )


def no_reset_at_the_end_of_an_episode(patch):
    patch.setattr(return_ops, "cut_at_episode_ends", lambda rewards, discounts, *_: (rewards, discounts))


def advantages_not_normalized(patch):
    patch.setattr(masking, "normalize_advantages", lambda advantages, *_, **__: advantages)


def normalizers_updated_before_training(patch):
    original, after = UpdateMethods.fill_targets, UpdateMethods.update_normalizers

    def fill_targets(self, trajectory):
        after(self, trajectory)
        return original(self, trajectory)

    patch.setattr(UpdateMethods, "fill_targets", fill_targets)
    patch.setattr(UpdateMethods, "update_normalizers", lambda *_: None)


def reward_normalizer_never_updated(patch):
    patch.setattr(PPOAgent, "update_reward_normalizer", lambda *_: None)


def value_predictions_of_zero(patch):
    original = Objective.predict_values
    patch.setattr(Objective, "predict_values", lambda *given, **more: tf.zeros_like(original(*given, **more)))


# More of the same kind.


def last_value_from_the_observation_before(patch):
    original = return_ops.generalized_advantages

    def generalized_advantages(rewards, discounts, values, lambda_):
        return original(rewards, discounts, tf.concat([values[:, :-1], values[:, -2:-1]], axis=1), lambda_)

    patch.setattr(return_ops, "generalized_advantages", generalized_advantages)


def time_limits_as_terminal(patch):
    original = return_ops.cut_at_episode_ends
    patch.setattr(return_ops, "cut_at_episode_ends", lambda rewards, *rest: (rewards, original(rewards, *rest)[1]))


def means_over_all_rows(patch):
    patch.setattr(masking, "balanced_weights", lambda mask: tf.cast(mask, tf.float32))


def last_step_trained_on(patch):
    def mask(trajectory):
        return masking.transition_mask(trajectory.step_type, trajectory.next_step_type)

    patch.setattr(batches, "bootstrap_free_mask", mask)
    patch.setattr(batches, "without_last_step", lambda *given: given)


def entropy_with_the_wrong_sign(patch):
    original = PPOAgent.entropy_regularization_loss
    patch.setattr(PPOAgent, "entropy_regularization_loss", lambda *arguments: -original(*arguments))


def beta_the_wrong_way_round(patch):
    original = adaptive_kl.update_factor
    patch.setattr(adaptive_kl, "update_factor", lambda *arguments: 1.0 / original(*arguments))


def the_same_order_in_every_epoch(patch):
    def shuffled_rows(rows, num_epochs, seed):
        return tf.tile(tf.random.experimental.stateless_shuffle(rows, seed)[tf.newaxis], [num_epochs, 1])

    patch.setattr(minibatches, "shuffled_rows", shuffled_rows)


def observed_loss(case):
    return lambda rng, _: test_objective.test_loss_equals_the_numpy_loss(rng, case)


SEEN_BY = [
    # The nine that TF-Agents' tests do not see.
    (maximum_in_the_surrogate, observed_loss("clipped")),
    (reversed_kl, observed_loss("kl")),
    (reversed_kl, lambda rng, _: test_agent.test_beta_is_adapted_once_after_all_epochs_by_the_distance_gone(rng)),
    (
        value_clipping_with_minimum,
        lambda rng, _: test_objective.test_value_clipping_bounds_the_change_of_predictions(rng),
    ),
    (no_gradient_clipping, lambda rng, _: test_agent.test_train_metrics_are_those_of_numpy(rng)),
    (no_reset_at_the_end_of_an_episode, observed_loss("gae")),
    (no_reset_at_the_end_of_an_episode, observed_loss("surrogate")),
    (advantages_not_normalized, observed_loss("clipped")),
    (normalizers_updated_before_training, lambda rng, _: test_agent.test_normalizers_are_updated_after_training(rng)),
    (reward_normalizer_never_updated, lambda rng, _: test_corrections.test_correction_03_normalizers(rng)),
    (value_predictions_of_zero, observed_loss("gae")),
    (value_predictions_of_zero, observed_loss("surrogate")),
    (last_value_from_the_observation_before, observed_loss("gae")),
    (time_limits_as_terminal, lambda rng, _: test_corrections.test_correction_02_in_training(rng, "PPOAgent")),
    (means_over_all_rows, observed_loss("surrogate")),
    (last_step_trained_on, observed_loss("surrogate")),
    (entropy_with_the_wrong_sign, observed_loss("entropy")),
    (
        beta_the_wrong_way_round,
        lambda rng, _: test_agent.test_beta_is_adapted_once_after_all_epochs_by_the_distance_gone(rng),
    ),
    (the_same_order_in_every_epoch, test_update.test_train_uses_every_valid_step_once_per_epoch),
]


@pytest.mark.parametrize(("mistake", "check"), SEEN_BY, ids=[mistake.__name__ for mistake, _ in SEEN_BY])
def test_is_seen(rng, mistake, check):
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as inner:
        mistake(patch)
        with pytest.raises(AssertionError), np.errstate(all="ignore"):
            check(rng, inner)
