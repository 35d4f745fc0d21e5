"""Policies on arrays in TF-Agents' `PyDriver` and `Actor`."""

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.drivers import py_driver
from tf_agents.environments import batched_py_environment, random_py_environment
from tf_agents.metrics import py_metrics
from tf_agents.policies import greedy_policy, py_tf_eager_policy
from tf_agents.specs import array_spec, tensor_spec
from tf_agents.train import actor
from tf_agents.trajectories import time_step as ts

from ppo_agent.drivers import py_policy

# TF-Agents' specs of float32 bounds.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")


def make_env(batch_size=None):
    def single(seed=0):
        return random_py_environment.RandomPyEnvironment(
            array_spec.BoundedArraySpec([3], np.float32, -2, 2),
            tensor_spec.to_nest_array_spec(helpers.NESTED),
            episode_end_probability=0.2,
            seed=seed,
        )

    return (
        single()
        if batch_size is None
        else batched_py_environment.BatchedPyEnvironment([single(i) for i in range(batch_size)])
    )


def time_step_of(rng, *outer):
    return ts.TimeStep(
        np.ones(outer, np.int32),
        np.zeros(outer, np.float32),
        np.ones(outer, np.float32),
        rng.normal(size=(*outer, 3)).astype(np.float32),
    )


@pytest.mark.parametrize("kind", ["ours", "rnn", "sequential"])
@pytest.mark.parametrize("outer", [(), (4,)], ids=["single", "batch"])
def test_steps_are_those_of_the_policy_in_eager_mode(rng, kind, outer):
    agent = helpers.make_agent(kind, helpers.CONTINUOUS if kind == "sequential" else helpers.NESTED)
    ours = py_policy(agent.collect_policy)
    theirs = py_tf_eager_policy.PyTFEagerPolicy(agent.collect_policy, batch_time_steps=not outer)
    for name in ("time_step_spec", "action_spec", "policy_state_spec", "info_spec", "trajectory_spec"):
        assert getattr(ours, name) == getattr(theirs, name)
    state, their_state = (policy.get_initial_state((outer or (1,))[0]) for policy in (ours, theirs))
    for _ in range(3):
        time_step = time_step_of(rng, *outer)
        found, expected = ours.action(time_step, state), theirs.action(time_step, their_state)
        for x, y in zip(tf.nest.flatten(found.action), tf.nest.flatten(expected.action), strict=True):
            assert (x.dtype, x.shape) == (np.asarray(y).dtype, np.asarray(y).shape)
        for x, y in zip(
            tf.nest.flatten((found.info, found.state)), tf.nest.flatten((expected.info, expected.state)), strict=True
        ):
            assert (x.dtype, x.shape) == (np.asarray(y).dtype, np.asarray(y).shape)
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
        state, their_state = found.state, expected.state
    np.testing.assert_equal(ours.variables(), theirs.variables())


def test_a_state_without_a_batch_dimension(rng):
    policy = py_policy(helpers.make_agent("rnn").collect_policy)
    state = policy.get_initial_state()
    for x, spec in zip(tf.nest.flatten(state), tf.nest.flatten(policy.policy_state_spec), strict=True):
        assert x.shape == spec.shape
    step = policy.action(time_step_of(rng), state)
    batched = policy.action(time_step_of(rng, 1), policy.get_initial_state(1))
    for x, y in zip(tf.nest.flatten(step.state), tf.nest.flatten(batched.state), strict=True):
        assert x.shape == y.shape[1:]


def test_changed_variables_count_from_the_next_action_on(rng):
    agent = helpers.make_agent("ours", normalize_observations=True)
    policy, time_step = py_policy(agent.collect_policy), time_step_of(rng, 2)
    compiled = tf.function(lambda: [v.assign_sub(0.5 * v) for v in agent._trained_variables()], jit_compile=True)
    changes = [
        lambda: agent._actor_net.variables[0].assign_add(tf.ones_like(agent._actor_net.variables[0])),
        lambda: helpers.prime_normalizers(agent, rng),
        compiled,
        compiled,
        lambda: None,
    ]
    for change in changes:
        policy.action(time_step)
        change()
        info = policy.action(time_step).info
        expected = agent.collect_policy.action(tf.nest.map_structure(tf.constant, time_step)).info
        for x, y in zip(tf.nest.flatten(info), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_seeds(rng):
    agent, time_step = helpers.make_agent("ours"), time_step_of(rng, 2)

    def actions(policy):
        return [policy.action(time_step).action for _ in range(5)]

    first, same, other = (actions(py_policy(agent.collect_policy, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)
    policy = py_policy(agent.collect_policy)
    assert policy.action(time_step, seed=3).action.shape == (2, 2)  # Left to TensorFlow.
    state = policy.get_state()
    expected = actions(policy)
    policy.set_state(state)
    np.testing.assert_array_equal(actions(policy), expected)


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("kind", ["ours", "rnn"])
def test_drivers_and_metrics_of_tf_agents(batch_size, kind):
    env, agent = make_env(batch_size), helpers.make_agent(kind, helpers.NESTED)
    policy, rows = py_policy(agent.collect_policy), []
    metrics = [py_metrics.EnvironmentSteps(), py_metrics.NumberOfEpisodes(), py_metrics.AverageReturnMetric()]
    driver = py_driver.PyDriver(env, policy, [rows.append, *metrics], max_steps=60)
    driver.run(env.reset(), policy.get_initial_state(batch_size or 1))
    assert metrics[0].result() >= 60
    spec = tf.nest.flatten(policy.trajectory_spec)
    for row in rows:
        for leaf, leaf_spec in zip(tf.nest.flatten(row), spec, strict=True):
            assert np.asarray(leaf).shape == (() if batch_size is None else (batch_size,)) + tuple(leaf_spec.shape)


def test_actor_of_tf_agents():
    env, agent = make_env(3), helpers.make_agent("ours", helpers.NESTED)
    rows = []
    collector = actor.Actor(
        env,
        py_policy(greedy_policy.GreedyPolicy(agent.collect_policy)),
        tf.Variable(0, dtype=tf.int64),
        steps_per_run=30,
        observers=[rows.append],
        metrics=actor.collect_metrics(10),
    )
    collector.run()
    collector.run()
    assert len(rows) >= 20
    assert collector.metrics[1].result() >= 60


def test_a_wrong_argument():
    with pytest.raises(TypeError, match="policy is 3, expected a tf_agents TFPolicy"):
        py_policy(3)
