"""A traced function carried out in NumPy: each operation, the graph around it, random numbers, and what is refused."""

import json
import logging

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
from ppo_agent.drivers.array_policies import probes
from ppo_agent.drivers.array_policies.array_policy import ArrayPolicy
from ppo_agent.drivers.array_policies.numpy_program import numpy_program
from ppo_agent.drivers.array_policies.traces import trace

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
    "FloorMod": lambda x, y: raw.FloorMod(x=4 * x, y=y + 1.5),
    "Floor": lambda x, y: tf.floor(4 * x),
    "IsNan": lambda x, y: tf.math.is_nan(tf.math.log(x) + y),
    "IsInf": lambda x, y: tf.math.is_inf(x / tf.where(x > y, 0.0, y)),
    "IsFinite": lambda x, y: tf.math.is_finite(x / tf.where(x > y, 0.0, y)),
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


def traced(function, *example):
    """The trace of a function of the example's arrays and a seed."""
    return trace(function, (*example, np.zeros(2, np.int32)))


def try_program(function, *example, seed=SEED):
    without_seed = traced(lambda *arguments: function(*arguments[:-1]), *example)
    return numpy_program(without_seed, [example], np.random.SeedSequence(seed))


def program_of(function, *example):
    program, reason = try_program(function, *example)
    assert program is not None, reason
    return program.act


def drawing(function, seed=SEED):
    """The program of a function of the seed."""
    example = (np.zeros(1, np.float32),)
    program, reason = numpy_program(
        traced(lambda _, seed: function(seed), *example), [example], np.random.SeedSequence(seed)
    )
    assert program is not None, reason
    return program


def test_every_operation_has_a_case():
    assert set(CASES) | RANDOM == operations.KNOWN


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
        found, expected = program(*arguments), function(*arguments).numpy()
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


def test_whole_numbers_stay_as_long_as_they_are(rng):
    rows = rng.integers(-9, 9, (4, 3)).astype(np.int32)
    program = program_of(lambda x: (tf.reduce_sum(x, axis=0), tf.reduce_mean(tf.abs(x), axis=1), x * 2 - 1), rows)
    for found, expected in zip(program(rows), (rows.sum(0), np.abs(rows).sum(1) // 3, rows * 2 - 1), strict=True):
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected)


def test_nothing_is_said_of_what_is_not_finite(rng, recwarn):
    program = program_of(lambda x: tf.math.log(x) / x, np.ones(3, np.float32))
    found = program(np.zeros(3, np.float32))
    np.testing.assert_array_equal(found, -np.inf)
    assert not recwarn.list


def test_variables_are_read_by_refresh(rng):
    weight, scale = tf.Variable(rng.normal(size=(5, 2)).astype(np.float32)), tf.Variable([1.0, 2.0])
    x = rng.normal(size=(3, 5)).astype(np.float32)
    program, _ = try_program(lambda x: tf.matmul(x, weight) * tf.exp(scale), x)
    before = program.act(x)
    np.testing.assert_allclose(before, x @ weight.numpy() * np.exp(scale.numpy()), rtol=1e-5)
    weight.assign(2.0 * weight)
    scale.assign([0.0, 0.0])
    np.testing.assert_array_equal(program.act(x), before)
    program.refresh()
    np.testing.assert_allclose(program.act(x), x @ weight.numpy(), rtol=1e-5)


def test_captured_tensors_are_constants(rng):
    captured = tf.constant(rng.normal(size=5).astype(np.float32))
    x = rng.normal(size=(3, 5)).astype(np.float32)
    np.testing.assert_allclose(program_of(lambda x: x + captured, x)(x), x + captured.numpy(), rtol=1e-6)


def test_what_depends_on_variables_alone_is_left_to_tensorflow(rng):
    """Whatever operations it takes."""
    matrix = tf.Variable(rng.normal(size=(5, 5)).astype(np.float32))
    x = rng.normal(size=(3, 5)).astype(np.float32)
    program, _ = try_program(lambda x: tf.matmul(x, tf.linalg.inv(matrix)) + tf.random.stateless_normal([5], [1, 2]), x)
    for _ in range(2):
        expected = x @ np.linalg.inv(matrix.numpy()) + tf.random.stateless_normal([5], [1, 2]).numpy()
        np.testing.assert_allclose(program.act(x), expected, rtol=1e-3, atol=1e-3)
        matrix.assign(rng.normal(size=(5, 5)))
        program.refresh()


def test_functions_inside_are_carried_out(rng):
    weight = tf.Variable(rng.normal(size=(5, 5)).astype(np.float32))

    @tf.function(autograph=False)
    def inner(x):
        return tf.tanh(tf.matmul(x, weight))

    outer = tf.function(lambda x: inner(inner(x)) + 1.0, autograph=False)
    x = rng.normal(size=(3, 5)).astype(np.float32)
    expected = np.tanh(np.tanh(x @ weight.numpy()) @ weight.numpy()) + 1.0
    np.testing.assert_allclose(program_of(outer, x)(x), expected, rtol=1e-5)


def test_tables_are_read_from_variables_and_know_their_size(rng):
    table = tf.Variable(rng.normal(size=(7, 3)).astype(np.float32))
    program = program_of(lambda i: tf.gather(table, i), np.array([[0, 6], [3, 2]], np.int64))
    np.testing.assert_array_equal(program(np.array([[1, 1], [5, 0]])), table.numpy()[[[1, 1], [5, 0]]])
    for wrong in (-1, 7):
        with pytest.raises(IndexError, match="out of bounds"):
            program(np.array([[0, wrong], [3, 2]]))


def test_parts_are_cut_out_with_an_ellipsis(rng):
    x = rng.normal(size=(3, 4, 5)).astype(np.float32)
    program = program_of(lambda x: (x[..., 1:3], x[..., tf.newaxis, 2], x[1, ..., ::2], x[0:1, ..., tf.newaxis]), x)
    expected = (x[..., 1:3], x[..., np.newaxis, 2], x[1, ..., ::2], x[0:1, ..., np.newaxis])
    for a, b in zip(program(x), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_choice_that_is_rare_is_made_where_it_comes(rng):
    """Both with and without a row for which the condition holds."""

    def function(reset, state):
        kept = tf.where(reset[:, tf.newaxis], tf.zeros_like(state), state)
        return kept, 2.0 * kept

    state = rng.normal(size=(4, 6)).astype(np.float32)
    state[1, 2] = np.inf
    program = program_of(function, np.array([True, False, False, True]), state)
    for reset in ([False] * 4, [False, True, False, False], [True] * 4):
        kept = np.where(np.array(reset)[:, np.newaxis], np.float32(0), state)
        found = program(np.array(reset), state)
        np.testing.assert_array_equal(found[0], kept)
        np.testing.assert_array_equal(found[1], 2 * kept)


def test_results_stay_and_arguments_are_not_written_to(rng):
    """Whether they are views, are used further, or both."""

    def function(x):
        y = tf.tanh(x)
        z = tf.transpose(y)
        return y + 1.0, z, tf.exp(z), tf.reshape(y, [5, 3]), x, y[1:], tf.nn.relu(x - 0.5) * 2.0

    x = rng.normal(size=(3, 5)).astype(np.float32)
    program, before = program_of(function, x), x.copy()
    found = program(x)
    copies = [leaf.copy() for leaf in found]
    program(rng.normal(size=(3, 5)).astype(np.float32))
    for leaf, copy in zip(found, copies, strict=True):
        np.testing.assert_array_equal(leaf, copy)
    np.testing.assert_array_equal(x, before)


def test_assertions_hold_as_in_tensorflow():
    def function(x):
        tf.debugging.Assert(tf.reduce_all(x > 0.0), ["x is not positive", tf.cast(x, tf.int64)])
        return 2.0 * x

    program = program_of(function, np.ones(3, np.float32))
    np.testing.assert_array_equal(program(np.full(3, 2.0, np.float32)), [4.0] * 3)
    for wrong in (-1.0, np.nan):
        with pytest.raises(tf.errors.InvalidArgumentError, match="x is not positive"):
            program(np.array([1.0, wrong, 1.0], np.float32))


# Random numbers.

X = np.zeros(1, np.float32)


def drawn(function, count=4000):
    program = drawing(function)
    assert program.results_vary == [True]
    return np.stack([program.act(X) for _ in range(count)])


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


def test_random_numbers_follow_from_the_seed_and_continue_from_a_state():
    def function(seed):
        return tf.random.stateless_normal([2], seed), tf.random.stateless_uniform([3], seed)

    def draw(program, count):
        return [np.concatenate(program.act(X)) for _ in range(count)]

    first, same, other = drawing(function), drawing(function), drawing(function, (5, 6))
    np.testing.assert_array_equal(draw(first, 5), draw(same, 5))
    assert not np.allclose(draw(other, 5), draw(same, 5))
    untouched = json.loads(json.dumps(first.get_state()))
    expected = draw(first, 1100)  # Into the next block.
    state = json.loads(json.dumps(first.get_state()))
    draw(same, 7)
    same.set_state(untouched)
    np.testing.assert_array_equal(draw(same, 1100), expected)
    other.set_state(state)
    np.testing.assert_array_equal(draw(other, 1100), draw(first, 1100))


def test_random_numbers_follow_variables_within_a_block():
    scale = tf.Variable(1.0)
    program = drawing(lambda seed: scale * tf.random.stateless_normal([2], seed))
    same = drawing(lambda seed: tf.random.stateless_normal([2], seed))
    for value in (1.0, 3.0, 0.0):
        scale.assign(value)
        program.refresh()
        np.testing.assert_allclose(program.act(X), value * same.act(X), rtol=1e-6)


def test_equal_seeds_give_equal_numbers_and_other_seeds_others():
    program = drawing(
        lambda seed: tuple(tf.random.stateless_normal([3], s) for s in (seed, tf.identity(seed), seed + 1))
    )
    a, b, c = program.act(X)
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


def fixed_features(x):
    return tf.cos(tf.matmul(x, tf.random.stateless_normal([5, 7], seed=[1, 2])))


def test_fixed_random_features_are_computed(rng):
    """Only the policy's own seed stands for other random numbers."""
    x = rng.normal(size=(3, 5)).astype(np.float32)
    for function in (
        fixed_features,
        lambda x: x * tf.random.stateless_uniform([5], tf.constant([3, 4]) + 1),
        lambda x: x + tf.cast(tf.random.stateless_categorical(tf.zeros([5, 3]), 1, [7, 8])[:, 0], tf.float32),
        lambda x: x + tf.random.stateless_truncated_normal([5], [1, 2]),
        lambda x: tf.gather(x, tf.random.experimental.stateless_shuffle(tf.range(5), [1, 2]), axis=1),
    ):
        program = program_of(function, x)
        for _ in range(3):
            np.testing.assert_allclose(program(x), function(x), rtol=1e-4, atol=1e-5)
            x = rng.normal(size=(3, 5)).astype(np.float32)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, seed: x + tf.random.stateless_normal([5], tf.cast(x[0, :2], tf.int32)),
        lambda x, seed: x + tf.random.stateless_normal([5], seed + tf.cast(x[0, :2], tf.int32)),
        lambda x, seed: x + tf.cast(seed[0], tf.float32),
        lambda x, seed: x + tf.cast(tf.random.stateless_categorical(x, 1, [7, 8]), tf.float32),
        lambda x, seed: x + tf.random.stateless_gamma([5], seed, 2.0),
    ],
    ids=["by the observation", "by both", "the seed itself", "of the observation", "another distribution"],
)
def test_other_random_numbers_are_left_to_tensorflow(function):
    example = (np.ones((3, 5), np.float32),)
    program, reason = numpy_program(traced(function, *example), [example], np.random.SeedSequence(1))
    assert program is None
    assert reason


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

    @tf.function(autograph=False)
    def hidden(x):
        return x + counter.assign_add(1.0)

    return {
        "an effect in a function": hidden,
        "a message in a function": tf.function(prints),
        "an operation that is not known": lambda x: tf.nn.conv2d(x[tf.newaxis, :, :, tf.newaxis], kernel, 1, "VALID"),
        "stateful random numbers": lambda x: x + tf.random.normal([]),
        "an assignment": counts,
        "a message": prints,
        "Python": lambda x: tf.numpy_function(np.sin, [x], tf.float32),
        "a table": lambda x: table.lookup(tf.cast(x, tf.int32)),
        "a loop": lambda x: tf.while_loop(lambda y: y[0, 0] < 9.0, lambda y: (y + 1.0,), (x,))[0],
        "an order of axes": lambda x: tf.nn.bias_add(x[tf.newaxis, :, :, tf.newaxis], [1.0] * 3, "NCHW"),
        "an axis that depends": lambda x: tf.reduce_sum(x, axis=tf.cast(x[0, 0] > 0.0, tf.int32)),
        "a conditional": lambda x: tf.cond(x[0, 0] > 0.0, lambda: x, lambda: -x),
    }


@pytest.mark.parametrize("name", list(refused_functions()))
def test_refused(name):
    program, reason = try_program(refused_functions()[name], np.ones((3, 5), np.float32))
    assert program is None
    assert reason.startswith("NumPy lacks ")


def test_what_has_an_effect_is_not_tried():
    counter = tf.Variable(0.0)
    assert try_program(lambda x: x + counter.assign_add(1.0), np.ones(3, np.float32))[0] is None
    assert counter.numpy() == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: np.tanh(x) + np.float32(1e-3),
        lambda x: np.tanh(x).astype(np.float64),
        lambda x: np.tanh(np.clip(x, -2, 2)),
        lambda x: np.nan_to_num(np.tanh(x)),
    ],
    ids=["rounding", "dtype", "large numbers", "NaN"],
)
def test_another_result_than_tensorflows_is_refused(rng, monkeypatch, wrong):
    x = rng.uniform(-1, 1, (3, 5)).astype(np.float32)
    examples = [(x,) for x in probes.probes(tf.TensorSpec([5]), x)]
    seed = np.random.SeedSequence(1)
    tanh = traced(lambda x, _: tf.tanh(x), x)
    assert numpy_program(tanh, examples, seed)[0] is not None
    monkeypatch.setitem(operations.OPERATIONS, "Tanh", operations._elementwise(wrong, takes_out=False))
    assert numpy_program(tanh, examples, seed) == (None, "NumPy finds another result")


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
    in_numpy, in_graph = (ArrayPolicy(agent.collect_policy, in_numpy=way) for way in (True, False))
    for _ in range(3):
        time_step = random_time_step(rng)
        found, expected = in_numpy.act(time_step, ()), in_graph.act(time_step, ())
        assert 6 in in_numpy._programs
        for x, y in zip(tf.nest.flatten(found[1]), tf.nest.flatten(expected[1]), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-6)
        for x, y in zip(tf.nest.flatten(found[0]), tf.nest.flatten(expected[0]), strict=True):
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
        for variable in agent._trained_variables():
            variable.assign(1.5 * variable)
        in_numpy.refresh()
    greedy = greedy_policy.GreedyPolicy(agent.policy.wrapped_policy)
    in_numpy, in_graph = (ArrayPolicy(greedy, in_numpy=way) for way in (True, False))
    found, expected = in_numpy.act(time_step, ())[0], in_graph.act(time_step, ())[0]
    for x, y in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-6)


def test_actions_are_drawn_from_the_distribution(rng):
    agent = agent_of(keras_networks, "nested")
    policy, time_step = ArrayPolicy(agent.collect_policy), random_time_step(rng)
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
        expected = agent._objective.current_distribution(ts.TimeStep(*(rows.step_type,) * 3, rows.observation)).logits
        logits = rows.policy_info["dist_params"]["logits"][:, :-1]  # The last row repeats them.
        np.testing.assert_allclose(logits, expected[:, :-1], rtol=1e-4, atol=1e-5)
        agent.train(rows)
    assert driver._array_policy._programs
    state = json.loads(json.dumps(driver.get_state()))
    other = DynamicStepDriver(env, agent.collect_policy, [buffer.add_batch], num_steps=20)
    other.set_state(state)
    time_step = tf.nest.map_structure(lambda x: x.numpy(), env.current_time_step())
    driver._array_policy.refresh()
    found = [[d._array_policy.act(time_step, ())[0] for _ in range(50)] for d in (driver, other)]
    np.testing.assert_array_equal(*found)
    driver.set_state(state)
    np.testing.assert_array_equal([driver._array_policy.act(time_step, ())[0] for _ in range(50)], found[0])


def test_a_policy_that_numpy_cannot_carry_out_is_called_as_a_graph(rng, caplog):
    class Stateful(OwnActor):
        def call(self, observation, step_type=None, network_state=(), training=False):
            tf.print("seen", output_stream="file:///dev/null")
            return super().call(observation, step_type, network_state, training)

    agent = agent_of(lambda o, a: (Stateful(o, a, (6,)), networks.ValueNetwork(o, (4,))), "continuous")
    policy = ArrayPolicy(agent.collect_policy)
    with caplog.at_level(logging.INFO):
        for batch_size in (6, 6, 2):
            policy.act(random_time_step(rng, batch_size), ())
    assert not policy._programs
    (message,) = [record.getMessage() for record in caplog.records if record.name.endswith("array_policy")]
    assert message == "PPOPolicy is called as a graph of TensorFlow at each step, not in NumPy: NumPy lacks PrintV2."
