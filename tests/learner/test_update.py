"""Minibatches, gradient steps and the loop over them."""

import helpers
import numpy as np
import oracles
import pytest
import tensorflow as tf
from tf_agents.agents.tf_agent import LossInfo

from ppo_agent.learner import epochs, gradients, minibatches
from ppo_agent.learner.batches import TrainingBatch
from ppo_agent.learner.report import StepResult

PLAIN = {"importance_ratio_clipping": 0.2, "use_gae": True, "normalize_rewards": False, "normalize_observations": False}


# The plan.


def dealt(plan, num_epochs):
    """Row numbers of every minibatch, by epoch."""
    total = int(plan.count) * num_epochs
    rows = tf.range(200)[:, tf.newaxis]
    batch = TrainingBatch(*[rows] * 8, mask=tf.ones_like(rows, tf.bool))
    chosen = [minibatches.select_minibatch(batch, plan, tf.constant(i)) for i in range(total)]
    assert all(m.mask.shape == [plan.size, 1] for m in chosen)
    numbers = [m.returns.numpy()[m.mask.numpy()].tolist() for m in chosen]
    return [numbers[i : i + int(plan.count)] for i in range(0, total, int(plan.count))]


@pytest.mark.parametrize(("num_rows", "size"), [(12, 4), (13, 4), (5, 5), (7, 3), (1, 4), (9, 8), (3, 1)])
def test_every_valid_row_is_used_once_per_epoch(rng, num_rows, size):
    mask = np.zeros(20, bool)
    mask[rng.permutation(20)[:num_rows]] = True
    epochs = dealt(minibatches.make_minibatches(mask, size, 3, [1, 2]), 3)
    for epoch in epochs:
        assert sorted(row for minibatch in epoch for row in minibatch) == np.flatnonzero(mask).tolist()
        lengths = [len(minibatch) for minibatch in epoch]
        assert max(lengths) <= size
        assert max(lengths) - min(lengths) <= 1
        assert len(lengths) == -(-num_rows // size)


@pytest.mark.parametrize(
    ("num_rows", "sizes"), [(66, [66]), (67, [34, 33]), (130, [65, 65]), (131, [44, 44, 43]), (64, [64]), (63, [63])]
)
def test_few_rows_left_over_make_no_minibatch_of_their_own(num_rows, sizes):
    (epoch,) = dealt(minibatches.make_minibatches(tf.range(200) < num_rows, 64, 1, [1, 2]), 1)
    assert [len(minibatch) for minibatch in epoch] == sizes
    assert sorted(row for minibatch in epoch for row in minibatch) == list(range(num_rows))


def test_every_epoch_has_an_order_of_its_own_that_the_seed_tells():
    mask = tf.ones([20], tf.bool)
    first, again, other = (
        dealt(minibatches.make_minibatches(mask, 6, 4, seed), 4) for seed in ([1, 2], [1, 2], [1, 3])
    )
    assert first == again
    assert first != other
    orders = [tuple(row for minibatch in epoch for row in minibatch) for epoch in first]
    assert len(set(orders)) == 4


def test_rows_are_spread_over_all_places():
    """No row keeps to a minibatch: over many epochs each is in the first one as often as another."""
    orders = minibatches.shuffled_rows(tf.range(6), 3000, [3, 4]).numpy()
    counts = np.stack([(orders == row).mean(0) for row in range(6)])
    np.testing.assert_allclose(counts, np.full((6, 6), 1 / 6), atol=0.04)


def test_order_does_not_depend_on_padding():
    mask = np.arange(20) % 3 > 0
    padded = np.concatenate([mask, np.zeros(15, bool)])
    assert dealt(minibatches.make_minibatches(mask, 4, 2, [5, 6]), 2) == dealt(
        minibatches.make_minibatches(padded, 4, 2, [5, 6]), 2
    )


def test_no_valid_row_still_makes_a_step():
    plan = minibatches.make_minibatches(np.zeros(5, bool), 2, 3, [1, 2])
    assert plan.order.shape[0] * plan.count == 3
    assert dealt(plan, 3) == [[[]], [[]], [[]]]


def test_without_a_size_the_batch_stays_as_it_is():
    plan = minibatches.whole_batch(7)
    batch = object()
    assert minibatches.select_minibatch(batch, plan, tf.constant(3)) is batch
    assert plan.order.shape[0] * plan.count == 7


# Gradient steps.


@pytest.mark.parametrize("bound", [0.0, 0.5, 1000.0])
def test_gradient_step_clips_by_the_global_norm(rng, bound):
    variables = [tf.Variable(rng.normal(size=shape).astype(np.float32)) for shape in ((2, 3), (4,))]
    start = [v.numpy() for v in variables]

    def loss():
        value = tf.add_n([tf.reduce_sum(v**2) for v in variables])
        return StepResult(LossInfo(value, ()), {"other": value})

    result, applied, is_sound = gradients.gradient_step(loss, variables, tf.keras.optimizers.SGD(0.1), bound)
    assert is_sound
    expected, norm = oracles.clipped_by_global_norm([2 * x for x in start], bound)
    np.testing.assert_allclose(result.metrics["gradient_norm"], norm, rtol=1e-5)
    assert result.metrics["other"] == result.loss_info.loss
    for x, variable, gradient, (used, _) in zip(start, variables, expected, applied, strict=True):
        np.testing.assert_allclose(used, gradient, rtol=1e-5)
        np.testing.assert_allclose(variable, x - 0.1 * gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("size", [1e10, 3e18, 1e19, 1e30, 1e37])
def test_gradients_whose_squares_are_infinite_are_clipped_too(rng, size, jit):
    factors = [(size * rng.normal(size=shape)).astype(np.float32) for shape in ((2, 3), (4,))]
    variables = [tf.Variable(tf.zeros(factor.shape)) for factor in factors]

    def loss():
        value = tf.add_n([tf.reduce_sum(v * factor) for v, factor in zip(variables, factors, strict=True)])
        return StepResult(LossInfo(value, ()), {})

    @tf.function(jit_compile=jit)
    def step():
        result, applied, is_sound = gradients.gradient_step(loss, variables, None, 0.5)
        return result.metrics["gradient_norm"], [gradient for gradient, _ in applied], is_sound

    norm, clipped, is_sound = step()
    expected, exact = oracles.clipped_by_global_norm([factor.astype(np.float64) for factor in factors], 0.5)
    assert is_sound
    np.testing.assert_allclose(norm, exact, rtol=1e-5)
    for found, right in zip(clipped, expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5)


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_not_sound(hole):
    variable = tf.Variable([1.0, 2.0])
    loss = lambda: StepResult(LossInfo(tf.reduce_sum(tf.stop_gradient([hole, 1e30]) * variable), ()), {})  # noqa: E731
    assert not gradients.gradient_step(loss, [variable], None, 0.5)[2]


# Soundness of the steps, skipped ones before, most skipped in a row; expected: steps taken, skipped, in a row.
SKIPS = [
    ("11111", 3, 0, (5, 0, 0)),
    ("10110", 0, 0, (5, 2, 1)),
    ("00111", 2, 0, (5, 2, 0)),
    ("10000", 0, 3, (4, 3, 3)),
    ("01000", 2, 3, (1, 1, 3)),
    ("10101", 0, 1, (2, 1, 1)),
    ("00000", 0, 0, (5, 5, 5)),
    ("01111", 7, 3, (1, 1, 3)),
]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(("sound", "before", "most", "expected"), SKIPS)
def test_run_epochs_reports_the_last_step_and_the_mean_and_counts_the_skipped(sound, before, most, expected, jit):
    flags = tf.constant([flag == "1" for flag in sound])

    def step(index):
        number = tf.where(flags[index], tf.cast(index, tf.float32), float("nan"))
        return tf.stack([number, 2.0]), flags[index]

    def run():
        return epochs.run_epochs(step, tf.constant(5), 2, skipped_before=before, most_skipped=most)

    result = tf.function(run, jit_compile=jit)()
    good = [index for index in range(expected[0]) if sound[index] == "1"]
    np.testing.assert_allclose(result.last, [good[-1], 2] if good else [np.nan] * 2)
    np.testing.assert_allclose(result.means, [np.mean(good), 2] if good else [np.nan] * 2)
    assert (result.taken, result.skipped, result.skipped_in_a_row) == expected


# Minibatches in `train`.


def observed_minibatches(monkeypatch, agent, experience):
    """The observations of every minibatch of a call of `train`, which must run eagerly."""
    select, seen = minibatches.select_minibatch, []

    def spy(*arguments):
        minibatch = select(*arguments)
        seen.append((minibatch.time_steps.observation.numpy(), minibatch.mask.numpy()))
        return minibatch

    monkeypatch.setattr(minibatches, "select_minibatch", spy)
    agent.train(experience)
    monkeypatch.undo()
    return seen


def test_train_uses_every_valid_step_once_per_epoch(rng, monkeypatch):
    agent = helpers.make_agent(**PLAIN, minibatch_size=8, num_epochs=3)
    experience = helpers.make_experience(agent, rng)
    seen = observed_minibatches(monkeypatch, agent, experience)
    valid = oracles.trained_rows(experience.step_type.numpy(), experience.next_step_type.numpy())
    steps_per_epoch = -(-valid.sum() // 8)
    assert len(seen) == 3 * steps_per_epoch
    assert agent.train_step_counter == len(seen)
    expected = np.sort(experience.observation.numpy()[valid][:, 0])
    orders = []
    for epoch in range(3):
        used_minibatches = seen[epoch * steps_per_epoch : (epoch + 1) * steps_per_epoch]
        used = np.concatenate([observations[mask][:, 0] for observations, mask in used_minibatches])
        np.testing.assert_array_equal(np.sort(used), expected)
        orders.append(used)
    assert not np.array_equal(orders[0], orders[1])


def test_orders_differ_between_calls_and_follow_the_seed(rng, monkeypatch):
    def orders():
        tf.random.set_seed(3)
        agent = helpers.make_agent(**PLAIN, minibatch_size=8, num_epochs=1)
        return [observed_minibatches(monkeypatch, agent, experience)[0][0] for _ in range(2)]

    experience = helpers.make_experience(helpers.make_agent(**PLAIN), rng)
    first, again = orders(), orders()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


def test_advantages_are_normalized_within_each_minibatch(rng, monkeypatch):
    agent = helpers.make_agent(**PLAIN, minibatch_size=8, num_epochs=1)
    evaluate, seen = type(agent).get_loss, []

    def spy(self, *arguments, **keywords):
        seen.append((arguments[4].numpy(), arguments[6].numpy()))
        return evaluate(self, *arguments, **keywords)

    monkeypatch.setattr(type(agent), "get_loss", spy)
    agent.train(helpers.make_experience(agent, rng))
    assert len(seen) > 3
    for advantages, weights in seen:
        used = advantages[weights > 0]
        np.testing.assert_allclose([used.mean(), used.std()], [0, 1], atol=1e-4)


def test_minibatches_of_recurrent_networks_are_whole_sequences(rng, monkeypatch):
    agent = helpers.make_agent("rnn", **PLAIN, minibatch_size=2, num_epochs=2)
    experience = helpers.make_experience(agent, rng, batch=5, length=6)
    seen = observed_minibatches(monkeypatch, agent, experience)
    assert len(seen) == 2 * 3
    valid = oracles.trained_rows(experience.step_type.numpy(), experience.next_step_type.numpy())
    for epoch in (seen[:3], seen[3:]):
        used = []
        for observations, mask in epoch:
            assert observations.shape in {(1, 6, 3), (2, 6, 3)}
            for sequence, sequence_mask in zip(observations, mask, strict=True):
                if sequence_mask.any():
                    matches = [
                        b
                        for b in range(5)
                        if np.array_equal(valid[b], sequence_mask)
                        and np.array_equal(experience.observation[b].numpy()[valid[b]], sequence[sequence_mask])
                    ]
                    used += matches
        assert sorted(used) == list(range(5))
