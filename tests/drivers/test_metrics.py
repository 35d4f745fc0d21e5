import json
import math

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.metrics import tf_metrics
from tf_agents.trajectories import trajectory

from ppo_agent.drivers import EpisodeStatistics

FIRST, MID, LAST = 0, 1, 2


def random_rows(rng, batch_size, length, end_probability=0.2, bootstrap_every=None):
    """Returns a `Trajectory` [B, T] of episodes of random lengths; every few columns may be bootstrap rows."""
    step_type, next_step_type = (np.zeros([batch_size, length], np.int32) for _ in range(2))
    for b in range(batch_size):
        current = FIRST
        for t in range(length):
            step_type[b, t] = current
            if bootstrap_every and t % bootstrap_every == bootstrap_every - 1:
                next_step_type[b, t] = FIRST
                continue  # The same time step begins the next rollout.
            current = FIRST if current == LAST else LAST if rng.random() < end_probability else MID
            next_step_type[b, t] = current
    real = (step_type != LAST) & (next_step_type != FIRST)
    reward = np.where(real, rng.normal(size=real.shape), 0).astype(np.float32)
    return trajectory.Trajectory(step_type, (), (), (), next_step_type, reward, np.ones_like(reward))


def episodes_by_loop(rows):
    """Returns (return, length) of the finished episodes, in order of time, and the number of steps."""
    batch_size, length = rows.reward.shape
    totals, lengths, finished, steps = np.zeros(batch_size), np.zeros(batch_size, int), [], 0
    for t in range(length):
        for b in range(batch_size):
            if rows.step_type[b, t] == FIRST:
                totals[b] = lengths[b] = 0
            if rows.step_type[b, t] == LAST or rows.next_step_type[b, t] == FIRST:
                continue
            totals[b] += rows.reward[b, t]
            lengths[b] += 1
            steps += 1
            if rows.next_step_type[b, t] == LAST:
                finished.append((totals[b], lengths[b]))
    return finished, steps


def cut(rows, start, stop):
    return tf.nest.map_structure(lambda x: x[:, start:stop], rows)


def check(statistics, rows, window=100):
    finished, steps = episodes_by_loop(rows)
    returns, lengths = statistics.pop()
    np.testing.assert_allclose(returns, [episode[0] for episode in finished], rtol=1e-5, atol=1e-5)
    assert lengths == [episode[1] for episode in finished]
    assert statistics.num_episodes == len(finished) > 3
    assert statistics.num_environment_steps == steps
    np.testing.assert_allclose(statistics.mean_return(), np.mean([x[0] for x in finished[-window:]]), rtol=1e-4)
    np.testing.assert_allclose(statistics.mean_length(), np.mean([x[1] for x in finished[-window:]]))


@pytest.mark.parametrize("bootstrap_every", [None, 5])
def test_one_rollout(rng, bootstrap_every):
    rows = random_rows(rng, 3, 60, bootstrap_every=bootstrap_every)
    statistics = EpisodeStatistics()
    statistics.add_rollout(rows)
    check(statistics, rows)


def test_episodes_span_rollouts(rng):
    rows = random_rows(rng, 4, 90, end_probability=0.08)
    statistics = EpisodeStatistics(window=3)
    for start, stop in ((0, 1), (1, 40), (40, 43), (43, 90)):
        statistics.add_rollout(cut(rows, start, stop))
    check(statistics, rows, window=3)


def test_rows_one_by_one(rng):
    rows = random_rows(rng, 2, 40)
    statistics = EpisodeStatistics()
    for t in range(40):
        row = tf.nest.map_structure(lambda x, t=t: tf.constant(x[:, t]), rows)
        assert statistics(row) is row
    check(statistics, rows)


def test_rows_in_a_graph(rng):
    rows = random_rows(rng, 2, 40)
    statistics = EpisodeStatistics()
    call = tf.function(statistics)
    for t in range(40):
        call(tf.nest.map_structure(lambda x, t=t: tf.constant(x[:, t]), rows))
    check(statistics, rows)


def test_agrees_with_the_metrics_of_tf_agents(rng):
    rows = random_rows(rng, 3, 50)
    statistics = EpisodeStatistics(window=10)
    statistics.add_rollout(rows)
    metrics = [tf_metrics.AverageReturnMetric(batch_size=3), tf_metrics.AverageEpisodeLengthMetric(batch_size=3)]
    counts = [tf_metrics.NumberOfEpisodes(), tf_metrics.EnvironmentSteps()]
    for t in range(50):
        for metric in metrics + counts:
            metric(tf.nest.map_structure(lambda x, t=t: tf.constant(x[:, t]), rows))
    found = [statistics.mean_return(), statistics.mean_length(), statistics.num_episodes]
    np.testing.assert_allclose(found, [m.result() for m in [*metrics, counts[0]]], rtol=1e-5)
    assert statistics.num_environment_steps == counts[1].result()


def test_a_reset_gives_up_the_running_episode():
    statistics = EpisodeStatistics()
    step_type = np.array([[FIRST, MID, FIRST, MID]], np.int32)
    next_step_type = np.array([[MID, MID, MID, LAST]], np.int32)
    reward = np.array([[1, 2, 10, 20]], np.float32)
    statistics.add_rollout(trajectory.Trajectory(step_type, (), (), (), next_step_type, reward, reward))
    assert statistics.pop() == ([30.0], [2])


def test_a_vector_reward_is_summed(rng):
    rows = random_rows(rng, 2, 50)
    parts = np.stack([0.25 * rows.reward, 0.75 * rows.reward], axis=-1)
    statistics = EpisodeStatistics()
    statistics.add_rollout(rows._replace(reward=parts))
    check(statistics, rows)


def test_nothing_has_finished():
    statistics = EpisodeStatistics()
    assert math.isnan(statistics.mean_return())
    assert math.isnan(statistics.mean_length())
    assert statistics.pop() == ([], [])


def test_pop_gives_each_episode_once(rng):
    statistics = EpisodeStatistics()
    statistics.add_rollout(random_rows(rng, 2, 50))
    assert len(statistics.pop()[0]) == statistics.num_episodes
    assert statistics.pop() == ([], [])


def test_the_state_can_be_written_as_json_and_taken_over(rng):
    rows = random_rows(rng, 3, 80)
    whole, before, after = EpisodeStatistics(window=5), EpisodeStatistics(window=5), EpisodeStatistics(window=5)
    whole.add_rollout(rows)
    before.add_rollout(cut(rows, 0, 33))
    after.set_state(json.loads(json.dumps(before.get_state())))
    after.add_rollout(cut(rows, 33, 80))
    check(after, rows, window=5)
    np.testing.assert_allclose(after.mean_return(), whole.mean_return())


def test_reset_forgets(rng):
    rows = random_rows(rng, 2, 50)
    statistics = EpisodeStatistics()
    statistics.add_rollout(cut(rows, 0, 20))
    statistics.reset()
    statistics.add_rollout(rows)
    check(statistics, rows)


@pytest.mark.parametrize("window", [0, "a", 2.5])
def test_a_window_must_be_positive(window):
    with pytest.raises(ValueError, match=rf"window is {window!r}, expected a positive int\."):
        EpisodeStatistics(window=window)


def written(path):
    """The scalars of an events file by tag, as (step, value)."""
    scalars = {}
    for event in tf.compat.v1.train.summary_iterator(str(path)):
        for value in event.summary.value:
            scalars[value.tag] = (event.step, float(tf.make_ndarray(value.tensor)))
    return scalars


def test_tf_summaries_are_those_of_tf_agents_metrics(rng, tmp_path):
    """But for episodes that TF-Agents counts in the same way: whole ones."""
    rows = random_rows(rng, 3, 60)
    ours = EpisodeStatistics(window=7)
    ours.add_rollout(rows)
    theirs = [tf_metrics.AverageReturnMetric(batch_size=3, buffer_size=7), tf_metrics.NumberOfEpisodes()]
    theirs += [tf_metrics.AverageEpisodeLengthMetric(batch_size=3, buffer_size=7), tf_metrics.EnvironmentSteps()]
    for t in range(60):
        for metric in theirs:
            metric(tf.nest.map_structure(lambda x, t=t: tf.constant(x[:, t]), rows))
    found = []
    for name, metrics in (("ours", [ours]), ("theirs", theirs)):
        with tf.summary.create_file_writer(str(tmp_path / name)).as_default(step=12):
            for metric in metrics:
                metric.tf_summaries(train_step=345)
            tf.summary.flush()
        found.append(written(next((tmp_path / name).iterdir())))
    assert found[0].keys() == found[1].keys()
    for tag, (step, value) in found[0].items():
        assert step == 345
        assert value == pytest.approx(found[1][tag][1], rel=1e-5)


def test_tf_summaries_leave_out_what_is_not_known(tmp_path):
    statistics = EpisodeStatistics()
    statistics.tf_summaries()  # Without a writer.
    with tf.summary.create_file_writer(str(tmp_path)).as_default(step=12):
        statistics.tf_summaries()
        tf.summary.flush()
    assert written(next(tmp_path.iterdir())) == {
        "Metrics/NumberOfEpisodes": (12, 0),
        "Metrics/EnvironmentSteps": (12, 0),
    }


def test_tf_summaries_are_refused_in_a_graph():
    with pytest.raises(RuntimeError, match="inside a graph"):
        tf.function(EpisodeStatistics().tf_summaries)()
