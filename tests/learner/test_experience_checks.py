"""What `train` refuses, in one sentence that says why, and before anything has changed."""

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.trajectories import trajectory as trajectories

from ppo_agent.drivers import UniformReplayBuffer

KEYWORDS = {"importance_ratio_clipping": 0.2, "use_gae": True, "num_epochs": 1}


@pytest.fixture
def agent():
    return helpers.make_agent(**KEYWORDS)


@pytest.fixture
def rows(agent, rng):
    return helpers.make_experience(agent, rng)


def assert_refused(agent, experience, message, error=ValueError, weights=None):
    before = helpers.state_of(agent)
    with pytest.raises(error, match=message):
        agent.train(experience, weights=weights)
    helpers.assert_same_state(helpers.state_of(agent), before)
    with pytest.raises(error, match=message):
        agent.loss(experience, weights=weights)


@pytest.mark.parametrize("experience", [None, 3, {"reward": 1.0}, (1, 2)])
def test_neither_trajectory_nor_transition(agent, experience):
    assert_refused(agent, experience, ", expected a Trajectory or a Transition", TypeError)


def test_one_time_step(agent, rows):
    one = tf.nest.map_structure(lambda x: x[:, :1], rows)
    assert_refused(agent, one, r"experience has T = 1 time step, expected at least 2")


def test_an_empty_replay_buffer(agent):
    buffer = UniformReplayBuffer(agent.collect_data_spec, batch_size=2)
    assert_refused(agent, buffer.gather_all(), r"experience has T = 0 time steps, expected at least 2")


@pytest.mark.parametrize("leaf", [None, object()])
def test_an_entry_that_is_no_tensor(agent, rows, leaf):
    kind = type(leaf).__name__
    assert_refused(agent, rows._replace(reward=leaf), f"experience.reward is {kind}, expected a tensor or an array")


def test_one_time_step_in_preprocess_sequence(rng):
    agent = helpers.make_agent(**KEYWORDS, compute_value_and_advantage_in_train=False)
    one = tf.nest.map_structure(lambda x: x[:, :1], helpers.make_experience(agent, rng))
    with pytest.raises(ValueError, match="T = 1"):
        agent.preprocess_sequence(one)


def test_missing_policy_info(agent, rows):
    assert_refused(
        agent, rows._replace(policy_info=()), r"experience has the entries .*expected those of training_data_spec"
    )


def test_missing_distribution_parameter(agent, rows):
    assert_refused(
        agent, rows._replace(policy_info={"other": rows.reward}), "expected those of training_data_spec: .*dist_params"
    )


def test_raw_rows_where_advantages_are_expected(rng):
    agent = helpers.make_agent(**KEYWORDS, compute_value_and_advantage_in_train=False)
    raw = helpers.make_experience(agent, rng)
    assert_refused(agent, raw, "expected those of training_data_spec: .*return")


@pytest.mark.parametrize(
    ("field", "dtype", "message"),
    [
        ("reward", tf.float64, "experience.reward has dtype float64, expected float32"),
        ("observation", tf.int32, "experience.observation has dtype int32, expected float32"),
        ("step_type", tf.int64, "experience.step_type has dtype int64, expected int32"),
        ("action", tf.float64, "experience.action has dtype float64, expected float32"),
    ],
)
def test_dtype(agent, rows, field, dtype, message):
    assert_refused(agent, rows._replace(**{field: tf.cast(getattr(rows, field), dtype)}), message)


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        (
            "observation",
            lambda x: x[..., :2],
            r"experience.observation has shape \(4, 12, 2\), expected \[B, T\] followed by",
        ),
        ("action", lambda x: x[..., 0], r"experience.action has shape \(4, 12\), expected \[B, T\] followed by \(2,\)"),
        ("reward", lambda x: x[:, :-1], r"experience.reward has \[B, T\] = \(4, 11\), expected \(4, 12\)"),
        ("discount", lambda x: x[:3], r"experience.discount has \[B, T\] = \(3, 12\), expected"),
        ("reward", lambda x: x[..., tf.newaxis], r"experience.reward has shape \(4, 12, 1\)"),
    ],
)
def test_shape(agent, rows, field, change, message):
    assert_refused(agent, rows._replace(**{field: change(getattr(rows, field))}), message)


def test_a_batch_dimension_is_missing(agent, rows):
    assert_refused(agent, tf.nest.map_structure(lambda x: x[0], rows), r"expected \[B, T\] followed by")


@pytest.mark.parametrize("shape", [(12,), (4, 11), (12, 4), (4, 12, 1)])
def test_weights_of_another_shape(agent, rows, shape):
    assert_refused(
        agent,
        rows,
        r"weights has the shape .*, expected a scalar, \(4,\) or \(4, 12\)",
        weights=np.ones(shape, np.float32),
    )


def test_minibatch_larger_than_the_batch(rng):
    agent = helpers.make_agent(**KEYWORDS, minibatch_size=45)
    rows = helpers.make_experience(agent, rng)
    assert_refused(agent, rows, "minibatch_size is 45, expected at most the 44 steps of experience")


def test_minibatch_larger_than_the_number_of_sequences(rng):
    agent = helpers.make_agent("rnn", **KEYWORDS, minibatch_size=5)
    rows = helpers.make_experience(agent, rng)
    assert_refused(agent, rows, "minibatch_size is 5, expected at most the 4 sequences of experience")


def test_what_is_not_in_the_spec_is_ignored(agent, rows):
    expected = agent.loss(rows).loss
    more = rows._replace(policy_info={**rows.policy_info, "extra": tf.fill([4, 12], np.nan)})
    np.testing.assert_allclose(agent.loss(more).loss, expected, rtol=1e-6)


def test_arrays_are_as_good_as_tensors(agent, rows):
    expected = agent.loss(rows).loss
    np.testing.assert_allclose(agent.loss(helpers.numpy_experience(rows)).loss, expected, rtol=1e-6)
    assert np.isfinite(agent.train(helpers.numpy_experience(rows)).loss)


def test_a_transition_of_sequences_is_as_good_as_a_trajectory(agent, rng):
    """A transition holds time steps and next time steps [B, T]: its last observation is that of the last next step."""
    rows = helpers.make_experience(agent, rng, end=0.0)
    transition = trajectories.to_transition(rows)
    shorter = tf.nest.map_structure(lambda x: x[:, :-1], rows)
    actual, expected = agent.loss(transition), agent.loss(shorter)
    for x, y in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    assert np.isfinite(agent.train(transition).loss)
