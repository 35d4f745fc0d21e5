"""What a network holds besides trainable variables: guarded, put back, saved, and never told of rows that fill up."""

import helpers
import numpy as np
import oracles
import pytest
import tensorflow as tf

from ppo_agent import networks
from ppo_agent.checkpoint import TrainingCheckpoint
from ppo_agent.learner import batches, minibatches
from ppo_agent.learner.batches import TrainingBatch

PLAIN = {"normalize_rewards": False, "normalize_observations": False, "use_gae": True}


class Counter(tf.keras.layers.Layer):
    """Counts its training passes and keeps the last mean of its inputs."""

    def build(self, input_shape):
        self.count = self.add_weight(name="count", shape=[], dtype=tf.int64, initializer="zeros", trainable=False)
        self.mean = self.add_weight(name="mean", shape=[input_shape[-1]], initializer="zeros", trainable=False)

    def call(self, inputs, training=False):
        if training:
            self.count.assign_add(1)
            self.mean.assign(tf.reduce_mean(tf.reshape(inputs, [-1, inputs.shape[-1]]), axis=0))
        return inputs


def make_agent(**keywords):
    layers = [Counter(), tf.keras.layers.BatchNormalization(momentum=0.0)]
    encoder = tf.keras.Sequential([*layers, tf.keras.layers.Dense(4)])
    nets = (
        networks.ActorNetwork(helpers.OBSERVATION, helpers.CONTINUOUS, encoder=encoder),
        networks.ValueNetwork(helpers.OBSERVATION, fc_layers=(5,)),
    )
    return helpers.make_agent(nets=nets, **{**PLAIN, "num_epochs": 1, **keywords}), *layers


def single_steps(agent, rng, batch):
    return helpers.make_experience(agent, rng, batch=batch, length=2, end=0.0)


@pytest.mark.parametrize("hole", [np.nan, np.inf])
@pytest.mark.parametrize("ways", [{"eager": True}, {"eager": False}, {"eager": False, "jit_compile": True}])
def test_skipped_steps_leave_it_alone(rng, ways, hole):
    agent, counter, normalization = make_agent(minibatch_size=4, **ways)
    rows = single_steps(agent, rng, 8)
    agent.train(rows)
    assert counter.count == 2
    before = [v.numpy() for v in (counter.count, counter.mean, *normalization.variables)]
    bad = helpers.numpy_experience(rows)
    bad.observation[:, 0, 1] = hole
    agent.train(tf.nest.map_structure(tf.constant, bad))
    assert agent.train_metrics()["skipped_steps"] == 2
    after = [v.numpy() for v in (counter.count, counter.mean, *normalization.variables)]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(("batch", "size"), [(64, 64), (37, 64 - 32), (50, 33)])
def test_batch_statistics_are_those_of_the_valid_rows(rng, eager, batch, size):
    agent, counter, normalization = make_agent(minibatch_size=min(size, batch), eager=eager)
    rows = helpers.numpy_experience(single_steps(agent, rng, batch))
    rows.observation[0] = 50.0  # An outlier, in the place that rows which fill up were taken from.
    agent.train(tf.nest.map_structure(tf.constant, rows))
    if int(counter.count) == 1:
        expected = rows.observation[:, 0].mean(axis=0)
        np.testing.assert_allclose(counter.mean, expected, rtol=1e-4)
        np.testing.assert_allclose(normalization.moving_mean, expected, rtol=1e-4)
    else:  # What it saw last was some of the rows, each once.
        assert 0 < int(agent.train_step_counter) == int(counter.count)


@pytest.mark.parametrize("ways", [{"eager": True}, {"eager": False}, {"eager": False, "jit_compile": True}])
@pytest.mark.parametrize("raw", [True, False])
def test_statistics_of_a_full_batch_are_those_of_the_valid_rows(rng, ways, raw):
    """Boundary rows and the last time index are none, and the first valid row counts once."""
    keywords = {"compute_value_and_advantage_in_train": raw, **ways}
    agent, counter, normalization = make_agent(**keywords)
    rows = helpers.numpy_experience(helpers.make_experience(agent, rng, batch=5, length=40))
    mask = oracles.trained_rows(rows.step_type, rows.next_step_type).astype(bool)
    assert (rows.step_type == helpers.LAST).any()
    rows.observation[~mask] = 1e3
    rows.observation[np.nonzero(mask)[0][0], np.nonzero(mask)[1][0]] = 50.0
    seen = rows.observation[mask]
    if "jit_compile" in ways:  # XLA has no shapes that depend on the data: valid rows are repeated in turn.
        size = mask[:, :-1].size if raw else mask.size
        seen = np.resize(seen, (size, 3))
    experience = tf.nest.map_structure(tf.constant, rows)
    agent.train(experience if raw else agent.preprocess_sequence(experience))
    np.testing.assert_allclose(counter.mean, seen.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(normalization.moving_mean, seen.mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("kind", ["eager", "function"])
def test_leaving_rows_out_changes_no_loss(rng, kind):
    """With a network that keeps something, steps that do not count are left out rather than masked."""
    agent, _, _ = make_agent(eager=False, num_epochs=2)
    rows = helpers.make_experience(agent, rng, batch=5, length=40, padding=7)
    masked = agent._update.make_batch(rows, None)
    taken, _ = agent._update.deal_out(masked)
    assert taken.mask.shape[0] == np.count_nonzero(masked.mask)
    assert taken.mask.numpy().all()
    losses = [agent._update._methods.evaluate(batches.prepared(b), False).loss_info for b in (masked, taken)]
    for whole, left in zip(*map(tf.nest.flatten, losses), strict=True):
        np.testing.assert_allclose(left, whole, rtol=1e-5, atol=1e-6)
    train = agent.train if kind == "eager" else tf.function(agent.train)
    train(rows)
    assert agent.train_metrics()["gradient_steps"] == 2


@pytest.mark.parametrize(("rows", "size"), [(64, 64), (10, 64), (65, 64), (7, 3), (1, 5)])
def test_rows_that_fill_up_are_copies_of_the_others_in_turn(rows, size):
    numbers = tf.range(200)[:, tf.newaxis]
    batch = TrainingBatch(*[numbers] * 8, mask=tf.ones_like(numbers, tf.bool))
    for is_padded in (True, False):
        plan = minibatches.make_minibatches(tf.range(200) < rows, size, 1, [1, 2], is_padded=is_padded)
        seen = []
        for index in range(int(plan.order.shape[0] * plan.count)):
            minibatch = minibatches.select_minibatch(batch, plan, tf.constant(index))
            used = minibatch.returns.numpy()[minibatch.mask.numpy()]
            counts = np.unique(minibatch.returns, return_counts=True)
            np.testing.assert_array_equal(counts[0], np.sort(used))
            assert counts[1].max() - counts[1].min() <= is_padded
            seen += used.tolist()
        assert sorted(seen) == list(range(rows))


def test_it_is_saved(rng, tmp_path):
    agent, counter, _ = make_agent(minibatch_size=4)
    agent.train(single_steps(agent, rng, 8))
    TrainingCheckpoint(tmp_path, agent=agent).save(1)
    other, restored, _ = make_agent(minibatch_size=4)
    assert TrainingCheckpoint(tmp_path, agent=other).restore() == 1
    assert restored.count == counter.count == 2
    np.testing.assert_array_equal(restored.mean, counter.mean)
