"""From rollouts to rows that gradient steps are made of."""

import helpers
import numpy as np
import oracles
import pytest
import tensorflow as tf
from tf_agents.trajectories import Trajectory

from ppo_agent.learner import batches
from ppo_agent.maths import masking

FIRST, MID, LAST = helpers.FIRST, helpers.MID, helpers.LAST
GAE = {"use_gae": True, "lambda_value": 0.9, "normalize_rewards": False, "normalize_observations": False}


def rows_of(kinds):
    """A Trajectory [1, T] of (step type, next step type, discount)."""
    step_type, next_step_type, discount = np.array(kinds, np.float32).T[:, None]
    zeros = tf.zeros_like(discount)
    return Trajectory(
        tf.constant(step_type, tf.int32), zeros, zeros, (), tf.constant(next_step_type, tf.int32), zeros, discount
    )


PADDING = (FIRST, FIRST, 0.0)


@pytest.mark.parametrize(
    ("kinds", "ends"),
    [
        # Episodes that follow each other within a rollout.
        ([(FIRST, MID, 1), (MID, LAST, 0), (LAST, FIRST, 1), (FIRST, LAST, 1), (LAST, FIRST, 1), (FIRST, MID, 1)], []),
        # A bootstrap row in the middle, with a step type of each kind.
        ([(FIRST, MID, 1), (MID, FIRST, 1), (MID, MID, 1)], [1]),
        ([(MID, LAST, 1), (LAST, FIRST, 1), (LAST, FIRST, 1), (FIRST, MID, 1)], []),
        ([(LAST, FIRST, 1), (FIRST, FIRST, 1), (FIRST, MID, 1)], [1]),
        # An unfinished episode before another one and before padding.
        ([(MID, MID, 1), (MID, MID, 1), (FIRST, MID, 1)], [1]),
        ([(MID, MID, 1), (MID, MID, 1), PADDING, PADDING], [1, 2, 3]),
        # A time limit whose final observation is not there; a terminal end does not need it.
        ([(MID, MID, 1), (MID, LAST, 1), PADDING], [1, 2]),
        ([(MID, MID, 1), (MID, LAST, 0), PADDING], [2]),
        ([(MID, LAST, 1), (LAST, FIRST, 1), PADDING], [2]),
    ],
)
def test_rollout_ends(kinds, ends):
    np.testing.assert_array_equal(np.flatnonzero(batches.rollout_ends(rows_of(kinds))), ends)


def test_next_time_steps_are_what_actions_led_to(rng):
    agent = helpers.make_agent()
    rows = helpers.make_experience(agent, rng)
    following = batches.next_time_steps_of(rows)
    np.testing.assert_array_equal(following.step_type, rows.next_step_type[:, :-1])
    np.testing.assert_array_equal(following.reward, rows.reward[:, :-1])
    np.testing.assert_array_equal(following.discount, rows.discount[:, :-1])
    np.testing.assert_array_equal(following.observation, rows.observation[:, 1:])


def test_masks_of_rollouts_equal_the_loop(rng):
    rows = helpers.make_experience(helpers.make_agent(), rng, batch=6, length=20)
    expected = oracles.trained_rows(rows.step_type.numpy(), rows.next_step_type.numpy())
    np.testing.assert_array_equal(batches.bootstrap_free_mask(rows), expected)


def test_a_bootstrap_row_between_two_rollouts_changes_nothing(rng):
    """Two rollouts with a bootstrap row each, in one sequence and in two."""
    agent = helpers.make_agent(**GAE)
    first, second = (helpers.make_experience(agent, rng, batch=3, length=8, end=0.2) for _ in range(2))
    first, second = (ending_in_a_bootstrap_row(rows) for rows in (first, second))
    joined = tf.nest.map_structure(lambda a, b: tf.concat([a, b], axis=1), first, second)
    apart = tf.nest.map_structure(lambda a, b: tf.concat([a, b], axis=0), first, second)
    for actual, expected in zip(tf.nest.flatten(agent.loss(joined)), tf.nest.flatten(agent.loss(apart)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def ending_in_a_bootstrap_row(rows):
    rows = helpers.numpy_experience(rows)
    for b in range(len(rows.reward)):
        if rows.next_step_type[b, -2] == LAST:
            rows.next_step_type[b, -2], rows.discount[b, -2], rows.step_type[b, -1] = MID, 1.0, MID
    rows.next_step_type[:, -1], rows.reward[:, -1], rows.discount[:, -1] = FIRST, 0.0, 1.0
    return tf.nest.map_structure(tf.constant, rows)


@pytest.mark.parametrize("where", ["in_train", "in_preprocess_sequence"])
def test_preprocess_sequence(rng, where):
    agent = helpers.make_agent(**GAE, compute_value_and_advantage_in_train=where == "in_train")
    rows = helpers.make_experience(agent, rng)
    processed = agent.preprocess_sequence(rows)
    if where == "in_train":
        for actual, expected in zip(tf.nest.flatten(processed), tf.nest.flatten(rows), strict=True):
            np.testing.assert_array_equal(actual, expected)
        return
    arrays = helpers.numpy_experience(rows)
    values = arrays.policy_info["value_prediction"]
    steps = (x[:, :-1] for x in (arrays.reward, arrays.discount, arrays.next_step_type))
    returns, advantages, _ = oracles.returns_and_advantages(*steps, values, 0.99, 0.9)
    for name, expected in (("return", returns), ("advantage", advantages)):
        actual = processed.policy_info[name].numpy()
        np.testing.assert_allclose(actual[:, :-1], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(actual[:, -1], 0)
    np.testing.assert_array_equal(processed.policy_info["value_prediction"], values)
    one = agent.preprocess_sequence(tf.nest.map_structure(lambda x: x[0], rows))
    for single, batched in zip(tf.nest.flatten(one), tf.nest.flatten(processed), strict=True):
        np.testing.assert_allclose(single, batched[0], rtol=1e-6)


def test_precomputed_rows_count_wherever_they_stand(rng):
    """Cut into single steps and shuffled, as TF-Agents' PPOLearner does, they train the same."""
    keywords = {**GAE, "compute_value_and_advantage_in_train": False, "num_epochs": 2}
    agents = [helpers.make_agent(**keywords) for _ in range(2)]
    helpers.copy_weights(*agents)
    rows = agents[0].preprocess_sequence(helpers.make_experience(agents[0], rng, padding=2))
    mask = batches.precomputed_mask(rows).numpy()
    # The last step before the padding is not known, as at the end of a sequence.
    expected = oracles.transitions(rows.step_type.numpy(), rows.next_step_type.numpy())
    ends = batches.rollout_ends(rows).numpy()
    np.testing.assert_array_equal(mask, expected & ~ends)
    order = rng.permutation(mask.size)
    singles = tf.nest.map_structure(lambda x: tf.gather(tf.reshape(x, [-1, 1, *x.shape[2:]]), order), rows)
    losses = [agent.train(data).loss for agent, data in zip(agents, (rows, singles), strict=True)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    helpers.assert_same_state(*(helpers.state_of(agent) for agent in agents[:2]), rtol=1e-4, atol=1e-5)


def make_batch(rng, **kwargs):
    agent = helpers.make_agent("legacy", helpers.NESTED)
    rows = agent._preprocess(helpers.make_experience(agent, rng, **kwargs))
    mask = batches.bootstrap_free_mask(rows)
    return rows, mask.numpy(), batches.make_batch(rows, mask, None, agent._codec)


def test_make_batch_keeps_what_counts_and_nothing_else(rng):
    rows, mask, batch = make_batch(rng)
    for actual, original in [
        (batch.time_steps.observation, rows.observation),
        (batch.time_steps.reward, rows.reward),
        (batch.returns, rows.policy_info["return"]),
        (batch.advantages, rows.policy_info["advantage"]),
        (batch.old_values, rows.policy_info["value_prediction"]),
        (batch.actions["move"], rows.action["move"]),
    ]:
        np.testing.assert_array_equal(actual.numpy()[mask], original.numpy()[mask])
        valid = original.numpy()[mask]
        np.testing.assert_array_equal(actual.numpy()[~mask], valid[np.arange(np.sum(~mask)) % len(valid)])
    np.testing.assert_array_equal(batch.time_steps.step_type, rows.step_type)
    old = helpers.numpy_distribution(rows.policy_info["dist_params"])
    log_probs = old.log_prob([x.numpy() for x in tf.nest.flatten(rows.action)])
    np.testing.assert_allclose(batch.action_log_probs.numpy()[mask], log_probs[mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", [None, 2.0, [1.0, 2.0], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
def test_broadcast_weights(weights):
    actual = batches.broadcast_weights(weights, tf.zeros([2, 3]))
    array = np.float32(1.0 if weights is None else weights)
    expected = np.broadcast_to(array[:, None] if array.ndim == 1 else array, (2, 3))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 1), (1, 3), (2, 3, 1)])
def test_weights_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"weights has the shape .*, expected a scalar, \(2,\) or \(2, 3\)"):
        batches.broadcast_weights(tf.ones(shape), tf.zeros([2, 3]))


def test_flatten_time_and_pad_rows(rng):
    _, _, batch = make_batch(rng, batch=2, length=3)
    flat = batches.flatten_time(batch)
    padded = batches.pad_rows(flat, axis=0, size=10)
    longer = batches.pad_rows(batch, axis=1, size=5)
    for original, one, other, long in zip(*map(tf.nest.flatten, (batch, flat, padded, longer)), strict=True):
        np.testing.assert_array_equal(one, tf.reshape(original, [6, 1, *original.shape[2:]]))
        np.testing.assert_array_equal(other[:6], one)
        np.testing.assert_array_equal(long[:, :3], original)
        assert (other.shape[0], long.shape[1]) == (10, 5)
    assert not padded.mask.numpy()[6:].any()
    assert not longer.mask.numpy()[:, 3:].any()


def test_finite_rows():
    nest = {"a": np.ones((2, 2, 3), np.float32), "b": np.ones((2, 2), np.int32), "c": np.ones((2, 2), np.float32)}
    nest["a"][0, 1, 2], nest["c"][1, 0] = np.nan, np.inf
    np.testing.assert_array_equal(
        masking.finite_rows(tf.nest.map_structure(tf.constant, nest)), [[True, False], [False, True]]
    )


@pytest.mark.parametrize(
    ("weights", "kind"),
    [("heavy", "str"), ({"a": 1.0}, "dict"), ([1.0, "a"], "list"), (tf.ones([2], tf.float64), "float64")],
)
def test_weights_that_are_no_numbers(weights, kind):
    with pytest.raises(ValueError, match=f"weights is of type {kind}, expected numbers"):
        batches.broadcast_weights(weights, tf.zeros([2, 3]))


def test_a_full_batch_leaves_out_the_step_that_only_bootstraps(rng):
    """In a full batch it would be computed and masked in every gradient step."""
    agent = helpers.make_agent(num_epochs=1)
    experience = helpers.make_experience(agent, rng)
    num_sequences, length = experience.step_type.shape
    weights = rng.uniform(size=(num_sequences, length)).astype(np.float32)
    batch = agent._update.make_batch(experience, weights)
    assert batch.mask.shape == [num_sequences, length - 1]
    whole = batches.bootstrap_free_mask(experience)
    assert not np.any(whole[:, -1])
    np.testing.assert_array_equal(batch.mask, whole[:, :-1])
    np.testing.assert_array_equal(batch.weights.numpy()[batch.mask], weights[:, :-1][batch.mask])


def test_a_prepared_minibatch_has_balanced_weights_and_normalized_advantages(rng):
    agent = helpers.make_agent(num_epochs=1)
    batch = agent._update.make_batch(helpers.make_experience(agent, rng), None)
    prepared, mask = batches.prepared(batch), batch.mask.numpy()
    advantages = batch.advantages.numpy()[mask]
    expected = (advantages - advantages.mean()) / np.sqrt(advantages.var() + 1e-8)
    np.testing.assert_allclose(prepared.advantages.numpy()[mask], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(prepared.weights, mask * mask.size / mask.sum(), rtol=1e-6)
