"""A traced function carried out in NumPy: each operation, the graph around it, random numbers, and what is refused."""

import json

import helpers
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import actor_distribution_network
from tf_agents.policies import greedy_policy
from tf_agents.trajectories import time_step as ts

from ppo_agent import networks
from ppo_agent.drivers import DynamicStepDriver, GymnasiumEnvironment, UniformReplayBuffer
from ppo_agent.drivers.array_policies import numpy_operations as operations
from ppo_agent.drivers.array_policies.graph_policy import GraphPolicy
from ppo_agent.drivers.array_policies.numpy_program import NumpyProgram, numpy_program

raw = tf.raw_ops
SEED = (3, 4)


def unary(name):
    return lambda x, y: getattr(raw, name)(x=x)


def binary(name):
    return lambda x, y: getattr(raw, name)(x=x, y=y)


def reduction(name, keeps):
    return lambda x, y: getattr(raw, name)(input=x, axis=[-1, 0], keep_dims=keeps)


def normalized(x, y):
    x, y = tf.reshape(x, [1, 3, 5, 1]), tf.reshape(y, [3, 5, 1, 1])
    layer_like = tf.compat.v1.nn.fused_batch_norm(x, tf.ones([1]), tf.zeros([1]), data_format="NHWC")[0]
    learnt = {"mean": tf.constant([0.2]), "variance": tf.constant([0.7])}
    trained = tf.compat.v1.nn.fused_batch_norm(y, [1.5], [0.3], **learnt, is_training=False)[0]
    return tf.reshape(layer_like, [3, 5]) + tf.reshape(trained, [3, 5])


# What each operation is called with: x and y are float32 [3, 5], positive where `POSITIVE` says so.
CASES = {
    **{name: unary(name) for name in ("Abs", "Cos", "Exp", "Expm1", "Neg", "Sigmoid", "Sign", "Sin", "Square", "Tanh")},
    **{name: unary(name) for name in ("Log", "Log1p", "Sqrt", "Rsqrt", "Reciprocal", "ZerosLike", "OnesLike")},
    **{name: binary(name) for name in ("Add", "AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "Pow")},
    **{name: binary(name) for name in ("SquaredDifference", "Equal", "NotEqual", "Greater", "GreaterEqual", "Less")},
    "LessEqual": binary("LessEqual"),
    "Identity": lambda x, y: raw.Identity(input=x),
    "StopGradient": lambda x, y: tf.stop_gradient(x),
    "PreventGradient": lambda x, y: raw.PreventGradient(input=x),
    "Snapshot": lambda x, y: raw.Snapshot(input=x),
    "Relu": lambda x, y: tf.nn.relu(x),
    "Relu6": lambda x, y: tf.nn.relu6(4 * x),
    "Elu": lambda x, y: tf.nn.elu(30 * x),
    "LeakyRelu": lambda x, y: tf.nn.leaky_relu(x, 0.3),
    "Selu": lambda x, y: tf.nn.selu(30 * x),
    "Erfc": lambda x, y: tf.math.erfc(3 * x),
    "Erf": lambda x, y: tf.math.erf(3 * x),
    "BatchMatMulV2": lambda x, y: raw.BatchMatMulV2(x=x[tf.newaxis], y=tf.stack([y, -y]), adj_y=True),
    "Einsum": lambda x, y: tf.einsum("ij,kj->ik", x, y),
    "FusedBatchNormV3": normalized,
    "Softsign": lambda x, y: tf.nn.softsign(x),
    "Softplus": lambda x, y: tf.nn.softplus(30 * x),
    "Softmax": lambda x, y: tf.nn.softmax(100 * x),
    "LogSoftmax": lambda x, y: tf.nn.log_softmax(100 * x),
    "ClipByValue": lambda x, y: raw.ClipByValue(t=x, clip_value_min=-0.5, clip_value_max=0.25),
    "Select": lambda x, y: raw.Select(condition=x > y, x=x, y=y),
    "SelectV2": lambda x, y: tf.where(x > 0, x, -1.0),
    "LogicalAnd": lambda x, y: (x > 0) & (y > 0),
    "LogicalOr": lambda x, y: (x > 0) | (y > 0),
    "LogicalNot": lambda x, y: ~(x > y),
    "Reshape": lambda x, y: tf.reshape(x, [5, -1, 1]),
    "ExpandDims": lambda x, y: tf.expand_dims(x, 1),
    "Squeeze": lambda x, y: tf.squeeze(x[:, tf.newaxis], 1),
    "BroadcastTo": lambda x, y: tf.broadcast_to(x[0], [4, 5]),
    "Fill": lambda x, y: tf.fill([2, 3], x[1, 1]),
    "Transpose": lambda x, y: tf.transpose(x),
    "MatMul": lambda x, y: tf.matmul(x, y, transpose_a=True) + tf.matmul(tf.transpose(x), y),
    "BiasAdd": lambda x, y: tf.nn.bias_add(x, y[2]),
    "ConcatV2": lambda x, y: tf.concat([x, y, x], axis=-1),
    "Pack": lambda x, y: tf.stack([x, y], axis=1),
    "Unpack": lambda x, y: raw.Unpack(value=x, num=5, axis=1)[3],
    "Split": lambda x, y: raw.Split(axis=0, value=x, num_split=3)[1],
    "SplitV": lambda x, y: tf.split(x, [1, 3, 1], axis=-1)[1],
    "IdentityN": lambda x, y: raw.IdentityN(input=[x, y])[1],
    "Cast": lambda x, y: tf.cast(5 * x, tf.int32),
    "ArgMax": lambda x, y: tf.argmax(x, axis=-1, output_type=tf.int32),
    "Sum": reduction("Sum", keeps=True),
    "Mean": reduction("Mean", keeps=False),
    "Max": reduction("Max", keeps=False),
    "Min": reduction("Min", keeps=True),
    "All": lambda x, y: tf.reduce_all(x > -0.9, axis=1),
    "Any": lambda x, y: tf.reduce_any(x > 0.9, axis=[0]),
    "GatherV2": lambda x, y: tf.gather(x, [[2, 0], [1, 1]], axis=1),
    "OneHot": lambda x, y: tf.one_hot(tf.argmax(x, axis=1), 5, 2.0, -1.0),
    "StridedSlice": lambda x, y: tf.stack([x[1:, tf.newaxis, ::2][0, 0], x[-1, 4:1:-1]]),
}
POSITIVE = {"Log", "Log1p", "Sqrt", "Rsqrt", "Pow"}
# They have tests of their own.
RANDOM = {"StatelessRandomNormalV2", "StatelessRandomUniformV2", "StatelessMultinomial"}


def flat(function):
    return lambda *arguments: tf.nest.flatten(function(*arguments))


def program_of(function, *example):
    program = numpy_program(flat(function), example, SEED)
    assert program is not None
    return program


def test_every_operation_has_a_case():
    assert set(CASES) | RANDOM == set(operations.OPERATIONS)


@pytest.mark.parametrize("name", sorted(CASES))
def test_operation(rng, name):
    def draw():
        x, y = rng.uniform(-1, 1, (2, 3, 5)).astype(np.float32)
        y[0] = x[0]
        return (np.abs(x), np.abs(y)) if name in POSITIVE else (x, y)

    function = tf.function(CASES[name], input_signature=[tf.TensorSpec([3, 5])] * 2, autograph=False)
    assert name in {operation.type for operation in function.get_concrete_function().graph.get_operations()}
    program = program_of(CASES[name], *draw())
    for _ in range(3):
        arguments = draw()
        (found,), expected = program(arguments), function(*arguments).numpy()
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


def test_whole_numbers_stay_as_long_as_they_are(rng):
    rows = rng.integers(-9, 9, (4, 3)).astype(np.int32)
    program = program_of(lambda x: (tf.reduce_sum(x, axis=0), tf.reduce_mean(tf.abs(x), axis=1), x * 2 - 1), rows)
    for found, expected in zip(program([rows]), (rows.sum(0), np.abs(rows).sum(1) // 3, rows * 2 - 1), strict=True):
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected)


def test_nothing_is_said_of_what_is_not_finite(rng, recwarn):
    program = program_of(lambda x: tf.math.log(x) / x, np.ones(3, np.float32))
    (found,) = program([np.zeros(3, np.float32)])
    np.testing.assert_array_equal(found, -np.inf)
    assert not recwarn.list


def test_variables_are_read_by_refresh(rng):
    weight, scale = tf.Variable(rng.normal(size=(5, 2)).astype(np.float32)), tf.Variable([1.0, 2.0])
    x = rng.normal(size=(3, 5)).astype(np.float32)
    program = program_of(lambda x: tf.matmul(x, weight) * tf.exp(scale), x)
    before = program([x])[0]
    np.testing.assert_allclose(before, x @ weight.numpy() * np.exp(scale.numpy()), rtol=1e-5)
    weight.assign(2.0 * weight)
    scale.assign([0.0, 0.0])
    np.testing.assert_array_equal(program([x])[0], before)
    program.refresh()
    np.testing.assert_allclose(program([x])[0], x @ weight.numpy(), rtol=1e-5)


def test_captured_tensors_are_constants(rng):
    captured = tf.constant(rng.normal(size=5).astype(np.float32))
    x = rng.normal(size=(3, 5)).astype(np.float32)
    np.testing.assert_allclose(program_of(lambda x: x + captured, x)([x])[0], x + captured.numpy(), rtol=1e-6)


# Random numbers.

SEED_TENSOR = np.array([1, 2], np.int32)


def drawn(function, count=4000):
    program = program_of(function, SEED_TENSOR)
    assert program.outputs_vary == [True]
    return np.stack([program([SEED_TENSOR])[0] for _ in range(count)])


def test_normal_numbers():
    numbers = drawn(lambda seed: 3.0 * tf.random.stateless_normal([2, 3], seed) + 1.0)
    np.testing.assert_allclose(numbers.mean(0), np.ones((2, 3)), atol=0.25)
    np.testing.assert_allclose(numbers.std(0), np.full((2, 3), 3.0), atol=0.2)
    assert np.abs(np.corrcoef(numbers.reshape(len(numbers), 6).T) - np.eye(6)).max() < 0.1


def test_uniform_numbers():
    numbers = drawn(lambda seed: tf.random.stateless_uniform([4], seed, minval=2.0, maxval=4.0))
    assert 2.0 <= numbers.min() < 2.01
    assert 3.99 < numbers.max() <= 4.0
    np.testing.assert_allclose(numbers.mean(0), np.full(4, 3.0), atol=0.06)


@pytest.mark.parametrize("impossible", [-np.inf, np.finfo(np.float32).min])
def test_categories_are_drawn_as_often_as_they_are_likely(impossible):
    logits = np.log(np.array([[0.7, 0.2, 0.1, 1.0], [0.05, 0.9, 0.05, 1.0]], np.float32))
    logits[:, 3] = impossible
    numbers = drawn(lambda seed: tfp.distributions.Categorical(logits=logits).sample(seed=seed))
    for row in range(2):
        shares = np.bincount(numbers[:, row], minlength=4) / len(numbers)
        np.testing.assert_allclose(shares, np.exp(logits[row]), atol=0.03)
        assert shares[3] == 0


def test_random_numbers_follow_from_the_seed_and_go_on_from_a_state():
    def function(seed):
        return tf.random.stateless_normal([2], seed), tf.random.stateless_uniform([3], seed)

    def draw(program, count):
        return [np.concatenate(program([SEED_TENSOR])) for _ in range(count)]

    first, same = program_of(function, SEED_TENSOR), program_of(function, SEED_TENSOR)
    other = numpy_program(flat(function), (SEED_TENSOR,), (5, 6))
    np.testing.assert_array_equal(draw(first, 5), draw(same, 5))
    assert not np.allclose(draw(other, 5), draw(same, 5))
    state = json.loads(json.dumps(first.get_state()))
    expected = draw(first, 1100)  # Into the next block.
    draw(same, 7)
    same.set_state(state)
    np.testing.assert_array_equal(draw(same, 1100), expected)


# What is left to TensorFlow.


def refused_functions():
    kernel, counter = tf.Variable(tf.ones([2, 2, 1, 3])), tf.Variable(0.0)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1, 2], [2.0, 3.0], tf.int32), 0.0)

    def counts(x):
        counter.assign_add(1.0)
        return x

    def prints(x):
        tf.print(x)
        return x

    return {
        "an operation that is not known": lambda x: tf.nn.conv2d(x[tf.newaxis, :, :, tf.newaxis], kernel, 1, "VALID"),
        "stateful random numbers": lambda x: x + tf.random.normal([]),
        "an assignment": counts,
        "a message": prints,
        "Python": lambda x: tf.numpy_function(np.sin, [x], tf.float32),
        "a table": lambda x: table.lookup(tf.cast(x, tf.int32)),
        "a loop": lambda x: tf.while_loop(lambda y: y[0, 0] < 9.0, lambda y: (y + 1.0,), (x,))[0],
        "a function": tf.function(tf.sin),
        "an order of axes": lambda x: tf.nn.bias_add(x[tf.newaxis, :, :, tf.newaxis], [1.0] * 3, "NCHW"),
        "an axis that depends": lambda x: tf.reduce_sum(x, axis=tf.cast(x[0, 0] > 0.0, tf.int32)),
        "several samples": lambda x: tf.random.stateless_categorical(x, 2, [1, 2]),
        "double precision": lambda x: tf.random.stateless_normal([2], [1, 2], dtype=tf.float64),
    }


@pytest.mark.parametrize("name", list(refused_functions()))
def test_refused(name):
    assert numpy_program(flat(refused_functions()[name]), (np.ones((3, 5), np.float32),), SEED) is None


def test_what_has_an_effect_is_not_tried():
    counter = tf.Variable(0.0)
    assert numpy_program(lambda x: [x + counter.assign_add(1.0)], (np.ones(3, np.float32),), SEED) is None
    assert counter.numpy() == 0.0


def test_another_result_than_tensorflows_is_refused(monkeypatch):
    x = np.ones((3, 5), np.float32)
    assert numpy_program(flat(tf.tanh), (x,), SEED) is not None
    wrong = operations._elementwise(lambda x: np.tanh(x) + 1e-3)
    monkeypatch.setitem(operations.OPERATIONS, "Tanh", wrong)
    assert numpy_program(flat(tf.tanh), (x,), SEED) is None
    monkeypatch.setitem(operations.OPERATIONS, "Tanh", operations._elementwise(lambda x: np.tanh(x).astype(np.float64)))
    assert numpy_program(flat(tf.tanh), (x,), SEED) is None


# Policies.


class OwnActor(networks.ActorNetwork):
    """A class that has no mirror."""


def own_networks(observation_spec, action_spec):
    return OwnActor(observation_spec, action_spec, (6, 5)), networks.ValueNetwork(observation_spec, (4,))


def keras_networks(observation_spec, action_spec):
    """As TF-Agents' users write them: layers that have no mirror, with TF-Agents' projections behind."""
    initializer = tf.keras.initializers.GlorotUniform(seed=1)  # Without a seed, Keras 2.15 warns of its copies.
    activations = ("swish", "selu", "softplus", "elu", "gelu", "softsign")
    layers = [tf.keras.layers.Dense(8, name, kernel_initializer=initializer) for name in activations]
    layers.insert(1, tf.keras.layers.LayerNormalization())
    actor = actor_distribution_network.ActorDistributionNetwork(
        observation_spec,
        action_spec,
        preprocessing_layers=tf.keras.Sequential(layers),
        fc_layer_params=(7,),
        activation_fn=tf.nn.leaky_relu,
    )
    return actor, networks.ValueNetwork(observation_spec, (4,))


def agent_of(make_networks, action):
    tf.random.set_seed(0)
    nets = make_networks(helpers.OBSERVATION, helpers.ACTIONS[action])
    agent = helpers.make_agent(action_spec=helpers.ACTIONS[action], nets=nets, normalize_observations=True)
    helpers.prime_normalizers(agent, np.random.default_rng(1))
    return agent


def random_time_step(rng, batch_size=6):
    return ts.TimeStep(
        rng.integers(0, 3, batch_size).astype(np.int32),
        rng.normal(size=batch_size).astype(np.float32),
        np.ones(batch_size, np.float32),
        rng.normal(size=(batch_size, 3)).astype(np.float32),
    )


@pytest.mark.parametrize("action", list(helpers.ACTIONS))
@pytest.mark.parametrize("make_networks", [own_networks, keras_networks])
def test_policies_in_numpy_are_those_of_tensorflow(rng, make_networks, action):
    agent = agent_of(make_networks, action)
    in_numpy, in_graph = (GraphPolicy(agent.collect_policy, in_numpy=way) for way in (True, False))
    for _ in range(3):
        time_step = random_time_step(rng)
        found, expected = in_numpy.act(time_step, ()), in_graph.act(time_step, ())
        assert isinstance(in_numpy._prepared[6], NumpyProgram)
        for x, y in zip(tf.nest.flatten(found[1]), tf.nest.flatten(expected[1]), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-6)
        for x, y in zip(tf.nest.flatten(found[0]), tf.nest.flatten(expected[0]), strict=True):
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
        for variable in agent._trained_variables():
            variable.assign(1.5 * variable)
        in_numpy.refresh()
    greedy = greedy_policy.GreedyPolicy(agent.policy.wrapped_policy)
    in_numpy, in_graph = (GraphPolicy(greedy, in_numpy=way) for way in (True, False))
    found, expected = in_numpy.act(time_step, ())[0], in_graph.act(time_step, ())[0]
    for x, y in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-6)


def test_actions_are_drawn_from_the_distribution(rng):
    agent = agent_of(keras_networks, "nested")
    policy, time_step = GraphPolicy(agent.collect_policy), random_time_step(rng)
    actions, infos, _ = zip(*(policy.act(time_step, ()) for _ in range(3000)), strict=True)
    parameters = infos[0]["dist_params"]
    moves = np.stack([action["move"] for action in actions])
    modes = np.stack([action["mode"] for action in actions])
    scale = parameters["move"]["scale_diag" if "scale_diag" in parameters["move"] else "scale"]
    np.testing.assert_allclose(moves.mean(0), parameters["move"]["loc"], atol=5 * scale.max() / np.sqrt(3000))
    np.testing.assert_allclose(moves.std(0), scale, rtol=0.1)
    for mode in range(4):
        np.testing.assert_allclose(
            (modes == mode).mean(0), tf.nn.softmax(parameters["mode"]["logits"])[:, mode], atol=0.04
        )


def test_a_driver_collects_with_the_networks_of_the_moment_and_can_be_resumed():
    env = GymnasiumEnvironment("CartPole-v1", num_environments=2, seed=0)
    nets = own_networks(env.observation_spec(), env.action_spec())
    agent = helpers.make_agent(action_spec=env.action_spec(), nets=nets, time_step_spec=env.time_step_spec())
    buffer = UniformReplayBuffer(agent.collect_data_spec, 2, 100)
    driver = DynamicStepDriver(env, agent.collect_policy, [buffer.add_batch], num_steps=20, bootstrap_row=True)
    for _ in range(3):
        driver.run()
        rows = buffer.gather_all()
        buffer.clear()
        expected = agent._current_distribution(ts.TimeStep(*(rows.step_type,) * 3, rows.observation)).logits
        logits = rows.policy_info["dist_params"]["logits"][:, :-1]  # The last row repeats them.
        np.testing.assert_allclose(logits, expected[:, :-1], rtol=1e-4, atol=1e-5)
        agent.train(rows)
    assert isinstance(driver._numpy_policy, GraphPolicy)
    state = json.loads(json.dumps(driver.get_state()))
    other = DynamicStepDriver(env, agent.collect_policy, [buffer.add_batch], num_steps=20)
    other.set_state(state)
    time_step = tf.nest.map_structure(lambda x: x.numpy(), env.current_time_step())
    driver._numpy_policy.refresh()
    found = [[d._numpy_policy.act(time_step, ())[0] for _ in range(50)] for d in (driver, other)]
    np.testing.assert_array_equal(*found)
    driver.set_state(state)
    np.testing.assert_array_equal([driver._numpy_policy.act(time_step, ())[0] for _ in range(50)], found[0])


def test_a_policy_that_numpy_cannot_carry_out_is_called_as_a_graph(rng):
    class Stateful(OwnActor):
        def call(self, observation, step_type=None, network_state=(), training=False):
            tf.print("seen", output_stream="file:///dev/null")
            return super().call(observation, step_type, network_state, training)

    agent = agent_of(lambda o, a: (Stateful(o, a, (6,)), networks.ValueNetwork(o, (4,))), "continuous")
    policy = GraphPolicy(agent.collect_policy)
    policy.act(random_time_step(rng), ())
    assert not isinstance(policy._prepared[6], NumpyProgram)
