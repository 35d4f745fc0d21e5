"""Numbers that `train` refuses, in one sentence and before anything has changed."""

import functools

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.learner import experience_values, optimizers

KEYWORDS = {"importance_ratio_clipping": 0.2, "use_gae": True, "num_epochs": 1}
NO_STEP = "experience has no step to learn from, expected at least one"


def discrete(dtype, low, high, shape=()):
    return tensor_spec.BoundedTensorSpec(shape, dtype, low, high)


@functools.cache
def trained(items):
    """An agent whose momentum would move it, and what it was trained on; tests share it, for none may change it."""
    rng, keywords = np.random.default_rng(0), dict(items)
    agent = helpers.make_agent(**{"eager": True, **KEYWORDS, **keywords})
    rows = helpers.make_experience(agent, rng)
    agent.train(prepared(agent, rows))
    return agent, rows


def make(**keywords):
    """An agent that was trained, and an experience of several episodes."""
    agent, rows = trained(tuple(keywords.items()))
    return agent, helpers.numpy_experience(rows)


def prepared(agent, rows):
    rows = tf.nest.map_structure(tf.constant, rows)
    return rows if agent._config.compute_value_and_advantage_in_train else agent.preprocess_sequence(rows)


def state_of(agent):
    slots = {f"slot {i}": v.numpy() for i, v in enumerate(optimizers.variables(agent._optimizer))}
    return {**helpers.state_of(agent), **slots, "report": agent._report.numpy()}


def assert_refused(agent, rows, message, weights=None, error=ValueError, call=None):
    rows, before = prepared(agent, rows), state_of(agent)
    with pytest.raises(error, match=message) as caught:
        (call or agent.train)(rows, weights)
    if error is ValueError:
        assert "\n" not in str(caught.value)
    helpers.assert_same_state(state_of(agent), before)


def all_last(rows):
    rows.step_type[:] = rows.next_step_type[:] = helpers.LAST


def all_padding(rows):
    rows.step_type[:] = rows.next_step_type[:] = helpers.FIRST


def boundaries_and_padding(rows):
    rows.step_type[:], rows.next_step_type[:] = helpers.FIRST, helpers.FIRST
    rows.step_type[:, 3] = helpers.LAST


def only_the_last_time_index(rows):
    rows.step_type[:, :-1] = rows.next_step_type[:, :-1] = helpers.FIRST
    rows.step_type[:, -1] = rows.next_step_type[:, -1] = helpers.MID


def cut_off_at_every_step(rows):
    rows.step_type[:], rows.next_step_type[:], rows.discount[:] = helpers.FIRST, helpers.MID, 1.0


FORMS = [all_last, all_padding, boundaries_and_padding, only_the_last_time_index, cut_off_at_every_step]


@pytest.mark.parametrize("change", FORMS)
@pytest.mark.parametrize("keywords", [{}, {"minibatch_size": 4}])
def test_no_step_that_counts(change, keywords):
    agent, rows = make(**keywords)
    change(rows)
    assert_refused(agent, rows, NO_STEP)


@pytest.mark.parametrize("change", FORMS[:3])
def test_no_step_that_counts_with_precomputed_advantages(change):
    agent, rows = make(compute_value_and_advantage_in_train=False)
    change(rows)
    assert_refused(agent, rows, NO_STEP)


def test_a_recurrent_agent_without_a_step():
    agent, rows = make(kind="rnn")
    all_padding(rows)
    assert_refused(agent, rows, NO_STEP)


@pytest.mark.parametrize("shape", [(), (4,), (4, 12)])
def test_weights_of_zero(shape):
    agent, rows = make()
    assert_refused(agent, rows, NO_STEP, weights=np.zeros(shape, np.float32))


def test_weights_of_zero_where_the_steps_are():
    agent, rows = make()
    rows.step_type[:], rows.next_step_type[:] = helpers.MID, helpers.MID
    rows.step_type[1:] = helpers.LAST
    weights = np.ones([4, 12], np.float32)
    weights[0, :-1] = 0.0
    assert_refused(agent, rows, NO_STEP, weights=weights)
    weights[0, 5] = 1e-3
    assert np.isfinite(agent.train(prepared(agent, rows), weights).loss)


@pytest.mark.parametrize("field", ["step_type", "next_step_type"])
@pytest.mark.parametrize("value", [3, -1, 7, np.iinfo(np.int32).min, np.iinfo(np.int32).max])
def test_step_types(field, value):
    agent, rows = make()
    getattr(rows, field)[2, 7] = value
    assert_refused(
        agent, rows, rf"^experience.{field} is {value} in a step, expected 0 \(FIRST\), 1 \(MID\) or 2 \(LAST\)"
    )


def test_discounts_of_steps_that_do_not_count_may_be_anything(rng):
    agents = [helpers.make_agent(**KEYWORDS) for _ in range(2)]
    helpers.copy_weights(*agents)
    rows = helpers.numpy_experience(helpers.make_experience(agents[0], rng, padding=2))
    other = rows._replace(discount=rows.discount.copy())
    other.discount[(rows.step_type == helpers.LAST) | (rows.next_step_type == helpers.FIRST)] = 7.0
    losses = [agent.train(prepared(agent, r)).loss for agent, r in zip(agents, (rows, other), strict=True)]
    np.testing.assert_array_equal(*losses)


CHOICES = {
    "int8": discrete(tf.int8, -2, 3),
    "uint8": discrete(tf.uint8, 1, 4),
    "int16": discrete(tf.int16, 0, 1),
    "int32": discrete(tf.int32, 5, 9),
    "int64": discrete(tf.int64, 2**40, 2**40 + 3),
}


@pytest.mark.parametrize("spec", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("beyond", [-1, 1])
def test_discrete_actions(spec, beyond):
    low, high = int(spec.minimum), int(spec.maximum)
    agent, rows = make(action_spec=spec)
    rows.step_type[:], rows.next_step_type[:] = helpers.MID, helpers.MID
    wrong = rows.action[1, 4] = low - 1 if beyond < 0 else high + 1
    assert_refused(agent, rows, rf"^experience.action is {wrong}, expected a whole number from {low} to {high}\.$")


@pytest.mark.parametrize(
    ("component", "value", "low", "high"), [(0, 3, 0, 2), (1, 0, 1, 3), (2, 1, 2, 2), (2, -5, 2, 2)]
)
def test_components_of_a_multi_discrete_action(component, value, low, high):
    agent, rows = make(action_spec=discrete(tf.int64, [0, 1, 2], [2, 3, 2], (3,)))
    rows.step_type[:], rows.next_step_type[:] = helpers.MID, helpers.MID
    rows.action[3, 2, component] = value
    message = (
        rf"^experience.action is {value} in component \[{component}\], expected a whole number from {low} to {high}"
    )
    assert_refused(agent, rows, message)


@pytest.mark.parametrize("length", [1, 5, 340, 341, 342, 2000])
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64, tf.uint8])
def test_every_component_of_every_row_is_looked_at(length, dtype, rng):
    """NumPy reduces many rows at a time, and what is left."""
    low, high = np.array([[1, 2], [3, 0]]), np.array([[4, 2], [9, 1]])
    spec = discrete(dtype, low, high, (2, 2))
    inside = rng.integers(low, high + 1, (2, length, 2, 2)).astype(dtype.as_numpy_dtype)
    assert experience_values._is_inside(tf.constant(inside), spec)
    for _ in range(20):
        i, j = rng.integers(2, size=2)
        wrong = inside.copy()
        wrong[rng.integers(2), rng.integers(length), i, j] = rng.choice([high[i, j] + 1, max(0, low[i, j] - 1)])
        expected = bool(((low <= wrong) & (wrong <= high)).all())
        assert experience_values._is_inside(tf.constant(wrong), spec) == expected


def test_a_leaf_of_a_nest_of_actions(rng):
    spec = {"move": helpers.CONTINUOUS, "more": {"a": helpers.DISCRETE, "b": CHOICES["int8"]}}
    agent = helpers.make_agent(action_spec=spec, **KEYWORDS)
    rows = helpers.numpy_experience(helpers.make_experience(agent, rng))
    rows.step_type[:], rows.next_step_type[:] = helpers.MID, helpers.MID
    rows.action["move"][0, 0] = 40.0  # Only discrete ones have hard limits.
    assert np.isfinite(agent.train(prepared(agent, rows)).loss)
    rows.action["more"]["b"][0, 0] = 4
    assert_refused(agent, rows, "^experience.action/more/b is 4, expected a whole number from -2 to 3")


def test_actions_of_steps_that_do_not_count_may_be_anything(rng):
    """Padding of zeros is outside of a range that begins at 5, and some environments put -1 into boundary rows."""
    agents = [helpers.make_agent(action_spec=CHOICES["int32"], **KEYWORDS) for _ in range(2)]
    helpers.copy_weights(*agents)
    rows = helpers.numpy_experience(helpers.make_experience(agents[0], rng, padding=3))
    assert (rows.step_type == helpers.LAST).any()
    other = rows._replace(action=rows.action.copy())
    other.action[rows.step_type == helpers.LAST] = -1
    rows.action[:] = np.clip(rows.action, 5, 9)
    losses = [agent.train(prepared(agent, r)).loss for agent, r in zip(agents, (rows, other), strict=True)]
    np.testing.assert_array_equal(*losses)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("step_type", 3, r"experience.step_type is out of range, expected 0 \(FIRST\), 1 \(MID\) or 2 \(LAST\)"),
        ("next_step_type", -1, "experience.next_step_type is out of range"),
        ("action", 4, "experience.action is out of range, expected whole numbers from 0 to 3"),
        ("weights", None, NO_STEP),
        ("steps", None, NO_STEP),
    ],
)
def test_inside_a_function_of_the_users_own(field, value, message):
    agent, rows = make(eager=False, action_spec=helpers.DISCRETE)
    assert (rows.step_type == helpers.LAST).any()
    train = tf.function(agent.train)
    weights = np.ones([4, 12], np.float32)
    train(prepared(agent, rows), weights)
    if field == "weights":
        weights[:] = 0.0
    elif field == "steps":
        all_last(rows)
    else:
        rows.step_type[:], rows.next_step_type[:] = helpers.MID, helpers.MID
        getattr(rows, field)[1, 5] = value
    assert_refused(agent, rows, message, weights, tf.errors.InvalidArgumentError, train)


def test_networks_that_do_not_shift_are_refused():
    """TF-Agents' draw from 0 to 4 where 5 to 9 is asked for."""
    message = "actor_net draws whole numbers from 0 on, expected action_spec from 5 on"
    for kind in ("legacy", "rnn"):
        with pytest.raises(ValueError, match=message):
            helpers.make_agent(kind, action_spec=CHOICES["int32"])


def test_networks_of_tf_agents_take_small_integers(rng):
    """TensorFlow Probability has no log-probability of an int8."""
    agents = [helpers.make_agent("legacy", action_spec=discrete(t, 0, 3), **KEYWORDS) for t in (tf.int32, tf.int8)]
    helpers.copy_weights(*agents)
    rows = helpers.make_experience(agents[0], rng)
    losses = [a.loss(rows._replace(action=tf.cast(rows.action, a.action_spec.dtype))).loss for a in agents]
    np.testing.assert_array_equal(*losses)
