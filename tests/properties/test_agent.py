"""The whole loss and whole updates, for any experience: oracle, invariances, ranges."""

import functools

import helpers
import numpy as np
import pytest
import strategies
import tensorflow as tf
from hypothesis import assume
from hypothesis import strategies as st
from strategies import coefficients, fractions, generators, holds_for

from ppo_agent import PPOLossInfo, networks
from ppo_agent.learner import optimizers

ACTIONS = st.sampled_from(sorted(helpers.ACTIONS))
ENDS = st.sampled_from([0.0, 0.2, 0.6, 1.0])
SHAPES = st.sampled_from([(1, 2), (2, 7), (4, 12)])


@functools.cache
def shared_agent(action):
    """An agent that only tests that change nothing may use."""
    return helpers.make_agent(action_spec=helpers.ACTIONS[action], importance_ratio_clipping=0.2, use_gae=True)


def experience_of(agent, rng, shape, end):
    return helpers.make_experience(agent, rng, *shape, end=end)


def loss_and_gradient(agent, experience):
    variables = agent._trained_variables()
    with tf.GradientTape() as tape:
        loss_info = agent.loss(experience)
    return [*tf.nest.flatten(loss_info), *tape.gradient(loss_info.loss, variables, unconnected_gradients="zero")]


def assert_same(found, expected):
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5)


@holds_for(
    share=0.5, action=ACTIONS, rng=generators(), shape=SHAPES, end=ENDS, gamma=fractions(), lambda_=fractions(),
    clipping=coefficients(1.0), value_clipping=coefficients(1.0), entropy=coefficients(1.0), beta=coefficients(2.0),
    cutoff=coefficients(3.0), log_prob_clipping=coefficients(), gae=st.booleans(), td_lambda=st.booleans(),
)  # fmt: skip
def test_the_loss_is_the_oracles_for_any_hyper_parameters(
    action, rng, shape, end, gamma, lambda_, clipping, value_clipping, entropy, beta, cutoff, log_prob_clipping, gae,
    td_lambda,
):  # fmt: skip
    agent = helpers.make_agent(
        action_spec=helpers.ACTIONS[action], discount_factor=gamma, lambda_value=lambda_, use_gae=gae,
        use_td_lambda_return=td_lambda, importance_ratio_clipping=clipping, value_clipping=value_clipping,
        entropy_regularization=entropy, initial_adaptive_kl_beta=beta, kl_cutoff_factor=cutoff,
        log_prob_clipping=log_prob_clipping, normalize_rewards=False,
    )  # fmt: skip
    experience = experience_of(agent, rng, shape, end)
    if not trained_rows(experience).any():
        return
    helpers.assert_loss(agent.loss(experience), helpers.expected_loss(agent, experience), rtol=1e-3, atol=1e-3)


def trained_rows(experience):
    """The steps that are trained on, bool [B, T]."""
    rows = helpers.numpy_experience(experience)
    return helpers.oracles.trained_rows(rows.step_type, rows.next_step_type)


def with_garbage(experience, rng):
    """The experience with NaN and the like wherever nothing may look."""
    rows = helpers.numpy_experience(experience)
    trained = trained_rows(experience)
    behind_terminal = np.pad(rows.discount[:, :-1] == 0, [[0, 0], [1, 0]])

    def spoil(nest, kept):
        return tf.nest.map_structure(
            lambda x: strategies.spoilt(x, kept, rng) if x.dtype == np.float32 else np.where(_like(kept, x), x, 0), nest
        )

    return rows._replace(
        observation=spoil(rows.observation, ~behind_terminal),
        **{name: spoil(getattr(rows, name), trained) for name in ("action", "policy_info", "reward")},
    )


def _like(mask, values):
    return mask.reshape(*mask.shape, *[1] * (values.ndim - 2))


@holds_for(share=0.5, action=ACTIONS, rng=generators(), shape=SHAPES, end=ENDS)
def test_steps_that_are_not_trained_on_reach_neither_value_nor_gradient(action, rng, shape, end):
    agent = shared_agent(action)
    experience = experience_of(agent, rng, shape, end)
    assert_same(loss_and_gradient(agent, with_garbage(experience, rng)), loss_and_gradient(agent, experience))


@holds_for(share=0.5, action=ACTIONS, rng=generators(), end=ENDS, padding=st.integers(1, 2), at=st.integers(0, 6))
def test_padding_behind_and_between_episodes_changes_nothing(action, rng, end, padding, at):
    agent = shared_agent(action)
    experience = tf.nest.map_structure(lambda x: x[:1], experience_of(agent, rng, (2, 7), end))
    (boundaries,) = np.nonzero(experience.step_type[0].numpy() == strategies.LAST)
    assume(len(boundaries))
    cut = boundaries[at % len(boundaries)] + 1
    parts = [tf.nest.map_structure(lambda x, s=s: x[:, s], experience) for s in (slice(cut), slice(cut, None))]
    garbage = tf.nest.map_structure(
        lambda x: np.full((1, padding, *x.shape[2:]), 3, x.dtype.as_numpy_dtype), experience
    )
    zeros = np.zeros((1, padding), np.int32)
    between = garbage._replace(step_type=zeros, next_step_type=zeros)
    padded = tf.nest.map_structure(lambda *x: np.concatenate(x, axis=1), parts[0], between, parts[1])
    assert_same(loss_and_gradient(agent, padded), loss_and_gradient(agent, experience))


@holds_for(share=0.3, action=ACTIONS, rng=generators(), shape=SHAPES, end=ENDS)
def test_rows_may_come_in_any_order(action, rng, shape, end):
    agent = shared_agent(action)
    experience = experience_of(agent, rng, shape, end)
    order = rng.permutation(shape[0])
    shuffled = tf.nest.map_structure(lambda x: tf.gather(x, order), experience)
    assert_same(loss_and_gradient(agent, shuffled), loss_and_gradient(agent, experience))


@holds_for(share=0.3, action=ACTIONS, rng=generators(), end=ENDS, weights=st.sampled_from(["1", "B", "BT"]))
def test_weights_of_all_shapes_mean_the_same(action, rng, end, weights):
    agent = shared_agent(action)
    experience = experience_of(agent, rng, (2, 7), end)
    shape = {"1": (1, 1), "B": (2, 1), "BT": (2, 7)}[weights]
    values = rng.random(shape).astype(np.float32)
    given = values.reshape({"1": (), "B": (2,), "BT": (2, 7)}[weights])
    found = agent.loss(experience, weights=given)
    expected = agent.loss(experience, weights=np.broadcast_to(values, (2, 7)))
    assert_same(tf.nest.flatten(found), tf.nest.flatten(expected))


@holds_for(
    share=0.3, rng=generators(), shape=st.sampled_from([(2, 7), (4, 12)]), end=ENDS,
    minibatch_size=st.sampled_from([None, 3, 5]), target_kl=coefficients(0.125), noise=st.sampled_from([0.0, 0.3, 2.0]),
    by=st.sampled_from(["reward", "return"]),
)  # fmt: skip
def test_an_update_leaves_finite_numbers_in_their_ranges(rng, shape, end, minibatch_size, target_kl, noise, by):
    agent = helpers.make_agent(
        num_epochs=2, importance_ratio_clipping=0.2, use_gae=True, minibatch_size=minibatch_size, target_kl=target_kl,
        normalize_rewards_by=by,
    )  # fmt: skip
    experience = helpers.make_experience(agent, rng, *shape, end=end, noise=noise)
    loss_info = agent.train(experience)
    assert isinstance(loss_info.extra, PPOLossInfo)
    for name, value in helpers.state_of(agent).items():
        assert np.isfinite(value).all(), name
    metrics = agent.train_metrics()
    assert 0 <= metrics["clip_fraction"] <= 1
    assert metrics["approx_kl"] >= -1e-6
    assert metrics["mean_kl_divergence"] >= -1e-5
    assert not metrics["explained_variance"] > 1
    valid = trained_rows(experience).sum()
    per_epoch = 1 if minibatch_size is None else -(-valid // minibatch_size)
    assert int(agent.train_step_counter) <= 2 * max(per_epoch, 1)
    if not target_kl and valid:
        assert int(agent.train_step_counter) == 2 * per_epoch


PARAMETERS = ("loc", "scale")
FIELDS = ("step_type", "observation", "action", "next_step_type", "reward", "discount", *PARAMETERS)
MUTATIONS = {
    "drop": lambda x: (),
    "none": lambda x: None,
    "object": lambda x: object(),
    "text": lambda x: "rewards",
    "dtype": lambda x: x.astype(np.float64 if x.dtype == np.float32 else np.int64),
    "complex": lambda x: x.astype(np.complex64),
    "scalar": lambda x: x[0, 0].ravel()[0],
    "rank": lambda x: x[..., np.newaxis],
    "flat": lambda x: x.reshape(-1),
    "batch": lambda x: x[:-1],
    "time": lambda x: x[:, 1:],
    "nest": lambda x: {"a": x},
    "pair": lambda x: (x, x),
    "empty": lambda x: x[:0],
    "ragged": lambda x: [[1.0, 2.0], [3.0]],
}


def mutated(rows, field, mutate):
    if field not in PARAMETERS:
        return rows._replace(**{field: mutate(getattr(rows, field))})
    parameters = rows.policy_info["dist_params"]["distribution"]
    return rows._replace(
        policy_info={"dist_params": {"distribution": {**parameters, field: mutate(parameters[field])}}}
    )


@holds_for(field=st.sampled_from(FIELDS), mutation=st.sampled_from(sorted(MUTATIONS)), rng=generators())
def test_experience_that_is_wrong_in_one_place_is_refused_before_anything_changes(field, mutation, rng):
    agent = shared_agent("continuous")
    rows = helpers.numpy_experience(experience_of(agent, rng, (3, 5), 0.3))
    wrong = mutated(rows, field, MUTATIONS[mutation])
    before = helpers.state_of(agent)
    for call in (agent.train, agent.loss):
        with pytest.raises((ValueError, TypeError), match=r"^experience.* expected .*\.$") as refused:
            call(wrong)
        assert "\n" not in str(refused.value)
    helpers.assert_same_state(helpers.state_of(agent), before)


ANYTHING = st.one_of(st.integers(), st.text(), st.lists(st.integers()), st.dictionaries(st.text(), st.floats()))


@holds_for(
    {"thing": {"\n": 0.0}, "rng": np.random.default_rng(0), "where": "policy_info"},
    thing=ANYTHING,
    rng=generators(),
    where=st.sampled_from(["whole", "policy_info", "observation", "weights"]),
)
def test_anything_else_is_refused_before_anything_changes(thing, rng, where):
    agent = shared_agent("continuous")
    rows = helpers.numpy_experience(experience_of(agent, rng, (3, 5), 0.3))
    weights = None
    if where == "whole":
        wrong = thing
    elif where == "weights":
        if isinstance(thing, int) or (isinstance(thing, list) and len(thing) == 3):  # Those fit.
            return
        wrong, weights = rows, thing
    else:
        wrong = rows._replace(**{where: thing})
    before = helpers.state_of(agent)
    with pytest.raises((ValueError, TypeError)) as refused:
        agent.train(wrong, weights=weights)
    assert ("weights" if where == "weights" else "experience") in str(refused.value)
    assert "\n" not in str(refused.value)
    helpers.assert_same_state(helpers.state_of(agent), before)


class Memory(tf.keras.layers.Layer):
    """Keeps the mean of what it was trained on last."""

    def build(self, input_shape):
        self.mean = self.add_weight(name="mean", shape=[input_shape[-1]], initializer="zeros", trainable=False)

    def call(self, inputs, training=False):
        if training:
            self.mean.assign(tf.reduce_mean(tf.reshape(inputs, [-1, inputs.shape[-1]]), axis=0))
        return inputs


@functools.cache
def agent_with_statistics():
    """An agent whose network holds more than what is trained, and that layer."""
    layer = Memory()
    encoder = tf.keras.Sequential([layer, tf.keras.layers.BatchNormalization(), tf.keras.layers.Dense(3)])
    nets = (
        networks.ActorNetwork(helpers.OBSERVATION, helpers.CONTINUOUS, encoder=encoder),
        networks.ValueNetwork(helpers.OBSERVATION, fc_layers=(3,)),
    )
    keywords = {"normalize_observations": False, "normalize_rewards": False, "num_epochs": 2, "max_skipped_steps": 0}
    return helpers.make_agent(nets=nets, use_gae=True, **keywords), layer


@holds_for(
    share=0.5, rng=generators(), end=ENDS, shape=st.sampled_from([(1, 2), (3, 9)]),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]), field=st.sampled_from(["observation", "reward", "weights"]),
)  # fmt: skip
def test_a_skipped_update_changes_nothing_that_a_network_holds(rng, end, shape, bad, field):
    agent, _ = agent_with_statistics()
    rows = helpers.numpy_experience(experience_of(agent, rng, shape, end))
    weights = np.ones(shape, np.float32)
    trained = np.argwhere(trained_rows(rows))
    place = tuple(trained[rng.integers(len(trained))])
    (weights if field == "weights" else getattr(rows, field))[place] = bad
    parts = [*agent.actor_net.variables, *agent.value_net.variables, *optimizers.variables(agent._optimizer)]
    before = [part.numpy() for part in parts]
    agent.train(tf.nest.map_structure(tf.constant, rows), weights)
    assert agent.train_metrics()["skipped_steps"] == 2
    for part, value in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part, value)


@holds_for(rng=generators(), end=ENDS, shape=st.sampled_from([(1, 2), (3, 9), (2, 30)]), outlier=st.floats(-1e4, 1e4))
def test_statistics_of_a_network_are_those_of_the_steps_that_count(rng, end, shape, outlier):
    agent, layer = agent_with_statistics()
    rows = helpers.numpy_experience(experience_of(agent, rng, shape, end))
    trained = trained_rows(rows)
    rows.observation[~trained] = 1e6  # Where an episode goes on, values are of these.
    rows.observation[tuple(np.argwhere(trained)[0])] = outlier
    agent.train(tf.nest.map_structure(tf.constant, rows))
    np.testing.assert_allclose(layer.mean, rows.observation[trained].mean(axis=0), rtol=1e-3, atol=1e-3)


@holds_for(
    rng=generators(), action=st.sampled_from(["discrete", "nested"]), end=ENDS,
    field=st.sampled_from(["type", "action"]), value=st.integers(-(2**31), 2**31 - 1), everywhere=st.booleans(),
)  # fmt: skip
def test_numbers_out_of_range_are_refused_before_anything_changes(rng, action, end, field, value, everywhere):
    agent = shared_agent(action)
    rows = helpers.numpy_experience(experience_of(agent, rng, (3, 9), end))
    where = ... if everywhere else tuple(np.argwhere(trained_rows(rows))[0])
    leaf = rows.step_type if field == "type" else (rows.action["mode"] if action == "nested" else rows.action)
    leaf[where] = value
    largest = 2 if field == "type" else 3
    if 0 <= value <= largest:
        return
    before = helpers.state_of(agent)
    with pytest.raises(ValueError, match=rf"^experience\.(step_type|action|action/mode) is {value}.*, expected .*\.$"):
        agent.train(tf.nest.map_structure(tf.constant, rows))
    helpers.assert_same_state(helpers.state_of(agent), before)
