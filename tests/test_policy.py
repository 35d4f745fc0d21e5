"""The policy: what it emits, its states, and the networks that it refuses."""

import re

import helpers
import numpy as np
import oracles
import pytest
import tensorflow as tf
from tf_agents.networks import sequential
from tf_agents.specs import array_spec, tensor_spec
from tf_agents.trajectories import time_step as ts

import ppo_agent
from ppo_agent import PPOPolicy
from ppo_agent.network_checks import check_output
from ppo_agent.networks import ActorNetwork, ValueNetwork
from ppo_agent.normalizers import StreamingNormalizer

ACTION_RANGES = {
    "discrete": tensor_spec.BoundedTensorSpec([], tf.int64, 0, 3),
    "from 2": tensor_spec.BoundedTensorSpec([], tf.int32, 2, 4),
    "several": tensor_spec.BoundedTensorSpec([3], tf.int32, 0, [1, 4, 2]),
}


def make_policy(kind="ours", action="continuous", **keywords):
    actor_net, value_net = helpers.make_networks(kind, helpers.ACTIONS[action])
    return PPOPolicy(helpers.TIME_STEP, helpers.ACTIONS[action], actor_net, value_net, **keywords)


def first_step(rng, batch=5):
    return ts.restart(helpers.random_observations(rng, helpers.OBSERVATION, (batch,)), batch_size=batch)


@pytest.mark.parametrize(("kind", "action"), [("ours", "nested"), ("legacy", "nested"), ("sequential", "continuous")])
def test_info_holds_the_parameters_and_the_value(rng, kind, action):
    policy, time_step = make_policy(kind, action, clip=False), first_step(rng)
    step = policy.action(time_step)
    assert set(step.info) == {"dist_params", "value_prediction"}
    tf.nest.assert_same_structure(step.info, policy.info_spec)
    for tensor, spec in zip(tf.nest.flatten(step.info), tf.nest.flatten(policy.info_spec), strict=True):
        assert (tensor.shape, tensor.dtype) == ([5, *spec.shape], spec.dtype)
    value, _ = policy.apply_value_network(time_step.observation, time_step.step_type)
    np.testing.assert_allclose(step.info["value_prediction"], value, rtol=1e-6)
    stored = helpers.numpy_distribution(tf.nest.map_structure(lambda x: x.numpy()[:, None], step.info["dist_params"]))
    present = policy.distribution(time_step).action
    actions = [x.numpy()[:, None] for x in tf.nest.flatten(step.action)]
    log_prob = sum(
        tf.reshape(d.log_prob(a), [5, -1]).numpy().sum(1)
        for d, a in zip(tf.nest.flatten(present), tf.nest.flatten(step.action), strict=True)
    )
    np.testing.assert_allclose(stored.log_prob(actions)[:, 0], log_prob, rtol=1e-4)


def test_no_value_where_train_computes_it_and_no_info_without_collecting(rng):
    time_step = first_step(rng)
    step = make_policy(compute_value_and_advantage_in_train=True).action(time_step)
    assert set(step.info) == {"dist_params"}
    policy = make_policy(collect=False)
    assert (policy.action(time_step).info, policy.info_spec) == ((), ())


@pytest.mark.parametrize(("clip", "largest"), [(True, 1.0), (False, np.inf)])
def test_clipping_to_the_bounds(rng, clip, largest):
    policy = make_policy(clip=clip)
    actions = np.concatenate([policy.action(first_step(rng, 200)).action.numpy() for _ in range(3)])
    assert np.abs(actions).max() <= largest
    assert (np.abs(actions).max() > 1) == (not clip)


def test_states_of_recurrent_networks(rng):
    policy = make_policy("rnn", clip=False)
    assert set(policy.policy_state_spec) == {"actor_network_state", "value_network_state"}
    without_value = make_policy("rnn", compute_value_and_advantage_in_train=True)
    assert set(without_value.policy_state_spec) == {"actor_network_state"}
    assert make_policy("ours").policy_state_spec == ()
    state = policy.get_initial_state(5)
    for tensor in tf.nest.flatten(state):
        np.testing.assert_array_equal(tensor, np.zeros((5, 4)))
    time_step = first_step(rng)
    following = policy.action(time_step._replace(step_type=tf.ones([5], tf.int32)), state).state
    assert set(following) == set(state)
    assert all(np.abs(tensor).max() > 0 for tensor in tf.nest.flatten(following))


def test_one_state_is_carried_from_step_to_step(rng):
    """Stepping through a sequence gives the values of the whole sequence at once."""
    policy = make_policy("rnn", clip=False)
    observations = helpers.random_observations(rng, helpers.OBSERVATION, (2, 6))
    step_type = np.full((2, 6), helpers.MID, np.int32)
    step_type[0, 3] = helpers.FIRST
    whole, _ = policy.apply_value_network(observations, step_type, policy.get_initial_value_state(2))
    state, values = policy.get_initial_state(2), []
    for t in range(6):
        time_step = ts.TimeStep(tf.constant(step_type[:, t]), tf.zeros([2]), tf.ones([2]), observations[:, t])
        step = policy.action(time_step, state)
        state = step.state
        values.append(step.info["value_prediction"])
    np.testing.assert_allclose(np.stack(values, 1), whole, rtol=1e-4, atol=1e-5)


def test_initial_states():
    policy = make_policy("rnn")
    for get in (policy.get_initial_actor_state, policy.get_initial_value_state):
        assert all(tensor.shape == [3, 4] for tensor in tf.nest.flatten(get(3)))
        assert all(tensor.shape == [4] for tensor in tf.nest.flatten(get(None)))
    assert make_policy().get_initial_actor_state(3) == ()


@pytest.mark.parametrize("bound", [0.0, 0.5, 10.0])
def test_normalized_observations_are_clipped_where_the_agent_says(rng, bound):
    agent, oracle = helpers.make_agent(observation_norm_clipping=bound), oracles.Normalizer((3,))
    rows = rng.normal(4, 2, (30, 3)).astype(np.float32)
    agent.update_observation_normalizer(tf.constant(rows))
    oracle.update(rows)
    far = tf.constant(40.0 * rows)
    plain = PPOPolicy(helpers.TIME_STEP, helpers.CONTINUOUS, agent.actor_net, agent.value_net)
    clipped = ts.restart(tf.constant(oracle.normalize(far, bound), tf.float32), batch_size=30)
    expected = plain.distribution(clipped)
    for policy in (agent.collect_policy, agent.policy.wrapped_policy):
        found = policy.distribution(ts.restart(far, batch_size=30))
        np.testing.assert_allclose(found.action.mean(), expected.action.mean(), rtol=1e-4, atol=1e-5)
    values = agent._objective.predict_values(far, clipped.step_type)
    np.testing.assert_allclose(values, expected.info["value_prediction"], rtol=1e-4, atol=1e-5)


def test_observations_are_normalized_for_both_networks(rng):
    normalizer, oracle = StreamingNormalizer(helpers.OBSERVATION), oracles.Normalizer((3,))
    policy = make_policy("ours", observation_normalizer=normalizer)
    plain = PPOPolicy(helpers.TIME_STEP, helpers.CONTINUOUS, policy._actor_network, policy._value_network)
    rows = rng.normal(4, 2, (30, 3)).astype(np.float32)
    normalizer.update(tf.constant(rows))
    oracle.update(rows)
    time_step = ts.restart(tf.constant(rows), batch_size=30)
    normalized = ts.restart(tf.constant(oracle.normalize(rows), tf.float32), batch_size=30)
    np.testing.assert_allclose(
        policy.distribution(time_step).action.mean(), plain.distribution(normalized).action.mean(), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        policy.distribution(time_step).info["value_prediction"],
        plain.distribution(normalized).info["value_prediction"],
        rtol=1e-4,
        atol=1e-5,
    )
    assert len(policy.variables()) == len(plain.variables()) + len(tf.nest.flatten(normalizer.variables))


# Networks that do not fit.


@pytest.mark.parametrize("net", [None, tf.keras.layers.Dense, "net", lambda x: x])
@pytest.mark.parametrize("place", [0, 1])
def test_networks_of_the_wrong_type(net, place):
    nets = list(helpers.make_networks())
    nets[place] = net
    with pytest.raises(
        TypeError, match=f"{('actor_network', 'value_network')[place]} must be a tf_agents.networks.Network"
    ):
        PPOPolicy(helpers.TIME_STEP, helpers.CONTINUOUS, *nets)
    with pytest.raises(TypeError, match=f"{('actor_net', 'value_net')[place]} must be a tf_agents.networks.Network"):
        helpers.make_agent(nets=nets)


def test_a_keras_model_in_the_place_of_a_network_is_told_where_it_belongs():
    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    with pytest.raises(
        TypeError, match=r"Sequential: a Keras model is the encoder of an ActorNetwork or ValueNetwork\.$"
    ):
        helpers.make_agent(nets=(helpers.make_networks()[0], model))


class Opinionated(tf.keras.Model):
    """An encoder that fails in a layer inside of a layer."""

    def call(self, observation):
        raise ValueError("this model takes no such observations")


def test_what_a_keras_model_says_is_in_the_error_not_the_name_of_its_layer():
    net = ActorNetwork(helpers.OBSERVATION, helpers.CONTINUOUS, encoder=Opinionated())
    with pytest.raises(ValueError, match=r"observations of the spec .*: this model takes no such observations$"):
        helpers.make_agent(nets=(net, helpers.make_networks()[1]))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("ours", tf.TensorSpec([7], tf.float32)),
        ("legacy", tf.TensorSpec([7], tf.float32)),
        ("legacy", tf.TensorSpec([3], tf.int32)),
        ("rnn", tf.TensorSpec([3, 1], tf.float32)),
    ],
)
def test_networks_for_other_observations(kind, spec, place):
    nets = list(helpers.make_networks(kind))
    nets[place] = helpers.make_networks(kind, observation_spec=spec)[place]
    with pytest.raises(
        ValueError,
        match=f"{('actor_net', 'value_net')[place]}.* (does not accept|was built for) observations of the spec",
    ):
        helpers.make_agent(nets=nets)


@pytest.mark.parametrize(
    "spec", [helpers.DISCRETE, helpers.NESTED, tensor_spec.BoundedTensorSpec([3], tf.float32, -1.0, 1.0)]
)
@pytest.mark.parametrize("kind", ["ours", "legacy"])
def test_actor_network_for_other_actions(kind, spec):
    with pytest.raises(ValueError, match=r"actor_net emits .*, expected action_spec: "):
        helpers.make_agent(action_spec=spec, nets=helpers.make_networks(kind, helpers.CONTINUOUS))


def test_actor_network_that_emits_no_distribution():
    net = sequential.Sequential([tf.keras.layers.Dense(2)])
    with pytest.raises((ValueError, TypeError), match="actor_net"):
        helpers.make_agent(nets=(net, helpers.make_networks()[1]))


@pytest.mark.parametrize("units", [1, 2])
def test_value_network_of_another_shape(units):
    net = sequential.Sequential([tf.keras.layers.Dense(units)])
    with pytest.raises(ValueError, match=rf"value_net emits .*\({units},\).*, expected one value for each observation"):
        helpers.make_agent(nets=(helpers.make_networks()[0], net))


def test_networks_must_not_be_swapped():
    with pytest.raises((ValueError, TypeError), match=r"actor_net|value_net"):
        helpers.make_agent(nets=helpers.make_networks()[::-1])


@pytest.mark.parametrize("spec", ACTION_RANGES.values(), ids=list(ACTION_RANGES))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_policy_without_finite_outputs_chooses_nothing_outside_its_range(spec, bad):
    observation_spec = tf.TensorSpec([3], tf.float32)
    networks = ActorNetwork(observation_spec, spec, (4,)), ValueNetwork(observation_spec, (4,))
    policy = PPOPolicy(ts.time_step_spec(observation_spec), spec, *networks, clip=False)
    observation = tf.fill([50, 3], bad)
    try:
        action = policy.action(ts.restart(observation, 50)).action.numpy()
    except ValueError as error:
        assert re.match(r"action is \[.*\], expected values from .*: the observations or", str(error))  # noqa: PT017
    else:
        assert ((action >= spec.minimum) & (action <= spec.maximum)).all()


@pytest.mark.parametrize("which", ["policy", "collect_policy"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_continuous_actions_that_are_not_finite_are_no_actions(which, bad):
    agent = helpers.make_agent(normalize_observations=False)
    policy, kernel = getattr(agent, which), agent.actor_net.trainable_variables[0]
    assert np.isfinite(policy.action(ts.restart(tf.ones([4, 3]), 4)).action).all()
    message = r"^action is \[.*\], expected finite numbers: the observations or the actor"
    with pytest.raises(ValueError, match=message):
        policy.action(ts.restart(tf.fill([4, 3], np.nan), 4))
    kernel.assign(tf.fill(kernel.shape, bad))
    with pytest.raises(ValueError, match=message):
        policy.action(ts.restart(tf.zeros([4, 3]), 4))


@pytest.mark.parametrize("spec", ACTION_RANGES.values(), ids=list(ACTION_RANGES))
@pytest.mark.parametrize("jit", [False, True])
def test_in_a_function_it_chooses_the_nearest_inside(spec, jit):
    """Nothing can be raised there: a categorical of NaNs is drawn as the category behind the last one."""
    observation_spec = tf.TensorSpec([3], tf.float32)
    networks = ActorNetwork(observation_spec, spec, (4,)), ValueNetwork(observation_spec, (4,))
    policy = PPOPolicy(ts.time_step_spec(observation_spec), spec, *networks, clip=False)
    act = tf.function(policy.action, jit_compile=jit, autograph=False)
    action = act(ts.restart(tf.fill([50, 3], np.nan), 50)).action.numpy()
    assert ((action >= spec.minimum) & (action <= spec.maximum)).all()
    healthy = ts.restart(tf.random.normal([200, 3]), 200)
    drawn = np.unique(act(healthy).action)
    assert drawn.min() >= spec.minimum.min()
    assert len(drawn) > 1


@pytest.mark.parametrize(
    ("time_step", "found"),
    [
        (None, "None"),
        (np.zeros([1, 3], np.float32), "ndarray"),
        ({"observation": 0.0}, "dict"),
        ((1, 2, 3, 4), "tuple"),
    ],
)
@pytest.mark.parametrize("name", ["policy", "collect_policy"])
def test_what_is_no_time_step(name, time_step, found):
    policy = getattr(helpers.make_agent(), name)
    for call in (policy.action, policy.distribution):
        with pytest.raises(TypeError, match=rf"^time_step is {found}, expected a TimeStep\.$"):
            call(time_step)


NESTED_OBSERVATION = {"a": tf.TensorSpec([2], tf.float32), "b": tf.TensorSpec([], tf.float32)}


@pytest.mark.parametrize(
    ("spec", "observation", "message"),
    [
        (
            helpers.OBSERVATION,
            np.zeros(3, np.float32),
            r"observation is of shape \(3,\), expected \[B, 3\] with a batch",
        ),
        (helpers.OBSERVATION, np.zeros([5, 4], np.float32), r"observation is of shape \(5, 4\), expected shape"),
        (helpers.OBSERVATION, None, "observation is None"),
        (tf.TensorSpec([], tf.float32), np.float32(1.0), r"observation is of shape \(\), expected \[B\] with a batch"),
        (
            NESTED_OBSERVATION,
            {"a": np.zeros([4, 2], np.float32), "b": np.float32(1.0)},
            r"observation leaf 'b' is of shape \(\), expected \[B\] with a batch dimension in front",
        ),
    ],
)
@pytest.mark.parametrize("in_function", [False, True])
def test_observations_without_a_batch_dimension(spec, observation, message, in_function):
    networks = ActorNetwork(spec, helpers.DISCRETE, (4,)), ValueNetwork(spec, (4,))
    policy = PPOPolicy(ts.time_step_spec(spec), helpers.DISCRETE, *networks)
    time_step = ts.restart(observation)
    calls = (policy.action, policy.distribution)
    if in_function:
        calls = [tf.function(lambda step, call=call: call(step).action, autograph=False) for call in calls]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(time_step)


def test_sequences_of_observations_have_distributions():
    """TF-Agents' own agent asks for those of whole rollouts [B, T, ...]."""
    agent = helpers.make_agent()
    step = ts.TimeStep(*(tf.zeros([4, 6], t) for t in (tf.int32, tf.float32, tf.float32)), tf.zeros([4, 6, 3]))
    assert agent.collect_policy.distribution(step).action.batch_shape[:2] == [4, 6]


def test_keras_dtype_policy_is_named():
    observation_spec = tf.TensorSpec([3], tf.float32)
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        net = sequential.Sequential([tf.keras.layers.Dense(1), tf.keras.layers.Reshape([])])
        spec = net.create_variables(observation_spec)
        with pytest.raises(ValueError, match=r"Keras' dtype policy is mixed_bfloat16, expected float32\)\.$"):
            check_output("value_net", spec, "one value", tf.TensorSpec([], tf.float32))
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")


@pytest.mark.parametrize("spec", [(), [], {}])
def test_an_empty_action_is_refused(spec):
    with pytest.raises(ValueError, match=r"action_spec is .*, expected at least one spec"):
        ppo_agent.PPOAgent(helpers.TIME_STEP, spec)


def test_specs_of_arrays_are_refused():
    array = array_spec.BoundedArraySpec((2,), np.int32, 0, 1)
    with pytest.raises(TypeError, match="action_spec holds a BoundedArraySpec, expected TensorSpecs, which"):
        ppo_agent.PPOAgent(helpers.TIME_STEP, {"a": helpers.CONTINUOUS, "b": array})
    with pytest.raises(TypeError, match=r"time_step_spec holds a .*, expected TensorSpecs, which"):
        ppo_agent.PPOAgent(ts.restart(np.zeros(3, np.float32)), helpers.CONTINUOUS)


def test_a_nest_of_rewards_is_refused():
    spec = helpers.TIME_STEP._replace(reward={"a": tf.TensorSpec([], tf.float32)})
    with pytest.raises(ValueError, match=r"time_step_spec\.reward is a nest of float32 of shape \(\), expected"):
        ppo_agent.PPOAgent(spec, helpers.CONTINUOUS)
