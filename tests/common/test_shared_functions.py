"""Functions that XLA compiles under names of their contents."""

import ctypes
import gc
import re
import time

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from ppo_agent.common import shared_functions


def names():
    """Of the functions that are known by their contents."""
    return {n for n in map(str, context.context().list_function_names()) if re.search("ppo_agent_[0-9a-f]{64}", n)}


def doubler(variable, factor=2.0, steps=3):
    """A function with a loop and a branch in it, which changes a variable."""

    def body(i, x):
        x = tf.cond(tf.reduce_sum(x) > 0, lambda: x * factor, lambda: x)
        variable.assign_add(tf.reduce_sum(x))
        return i + 1, x

    def function(x, extra):
        _, y = tf.while_loop(lambda i, _: i < steps, body, (tf.constant(0), x))
        return {"y": y + extra[0], "sum": (tf.reduce_sum(y), variable.read_value())}

    return function


def in_graph(function, *arguments):
    return tf.function(shared_functions.shared(function), autograph=False)(*arguments)


def test_equal_ones_are_one_with_variables_of_their_own():
    arguments = tf.constant([1.0, 2.0]), (tf.constant(5.0),)
    variables = [tf.Variable(float(i)) for i in range(3)]
    before, found = names(), []
    for variable in variables:
        result = in_graph(doubler(variable), *arguments)
        np.testing.assert_allclose(result["y"], [13, 21])
        np.testing.assert_allclose(result["sum"][0], 24)
        found.append(names() - before)
    assert found[0] == found[1] == found[2] != set()
    # 2, 4 and 8 times 3.
    np.testing.assert_allclose([v.numpy() for v in variables], [42, 43, 44])


@pytest.mark.parametrize("changed", [{"factor": 3.0}, {"steps": 4}])
def test_others_are_others(changed):
    arguments = tf.constant([1.0, 2.0]), (tf.constant(0.0),)
    plain = in_graph(doubler(tf.Variable(0.0)), *arguments)
    before = names()
    other = in_graph(doubler(tf.Variable(0.0), **changed), *arguments)
    assert names() - before
    assert not np.allclose(plain["y"], other["y"])


def test_tensors_of_the_graph_around_it_and_branches():
    variable = tf.Variable(1.0)

    @tf.function(autograph=False)
    def outer(x, choose):
        scale = x[0] * 10

        def inner(y):
            variable.assign_add(1.0)
            return y * scale + variable

        return tf.cond(choose, lambda: shared_functions.shared(inner)(x), lambda: x)

    np.testing.assert_allclose(outer(tf.constant([1.0, 2.0]), tf.constant(True)), [12, 22])
    np.testing.assert_allclose(outer(tf.constant([1.0, 2.0]), tf.constant(False)), [1, 2])
    assert variable.numpy() == 2.0


def test_eagerly_and_with_shapes_that_are_open():
    function = shared_functions.shared(lambda x: {"a": tf.nn.relu(x)})
    np.testing.assert_array_equal(function(tf.constant([-1.0, 2.0]))["a"], [0, 2])
    around = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([None, 2]))
    assert around.structured_outputs["a"].shape.as_list() == [None, 2]
    for rows in (1, 3):
        np.testing.assert_array_equal(around(tf.fill([rows, 2], -1.0))["a"], np.zeros([rows, 2]))


def test_dicts_in_any_order_and_static_values():
    def function(given, nothing, number):
        assert nothing is None
        assert number == 3
        return {"b": given["b"] * number, "a": given["a"]}

    arguments = {"b": tf.constant(1.0), "a": tf.constant(2.0)}, None, 3
    for result in (
        tf.function(lambda: shared_functions.shared(function)(*arguments), autograph=False)(),
        shared_functions.SharedCall(function, arguments)(*arguments),
    ):
        assert (float(result["b"]), float(result["a"])) == (3.0, 2.0)


def test_calls_of_equal_functions_have_variables_of_their_own():
    spec = (tf.TensorSpec([None], tf.float32), (tf.TensorSpec([], tf.float32),))
    before, found, variables = names(), [], [tf.Variable(float(i)) for i in range(3)]
    for variable in variables:
        call = shared_functions.SharedCall(doubler(variable), spec)
        np.testing.assert_allclose(call(tf.constant([1.0, 2.0]), (tf.constant(5.0),))["y"], [13, 21])
        np.testing.assert_allclose(call(tf.constant([1.0]), (tf.constant(0.0),))["y"], [8])
        found.append(names() - before)
    assert found[0] == found[1] == found[2] != set()
    np.testing.assert_allclose([v.numpy() for v in variables], [56, 57, 58])


def test_a_call_takes_other_variables():
    variables = [tf.Variable(float(i)) for i in range(2)]
    spec = tf.TensorSpec([2], tf.float32)
    call = shared_functions.SharedCall(doubler(variables[0]), (spec, (tf.TensorSpec([], tf.float32),)))
    assert [id(handle) for handle in call.captured_inputs] == [id(variables[0].handle)]
    call.set_external_captures([variables[1].handle])
    call(tf.constant([1.0, 2.0]), (tf.constant(5.0),))
    assert [float(v) for v in variables] == [0, 43]
    with_python = shared_functions.SharedCall(
        lambda x: tf.numpy_function(lambda y: y, [x], tf.float32) + variables[0], (spec,)
    )
    with_python.set_external_captures([variables[1].handle])
    np.testing.assert_array_equal(with_python(tf.constant([1.0, 2.0])), [44, 45])


class _Memory(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "used", "free", "keepcost")
    ]


def _allocated_bytes():
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("only glibc 2.33 or later tells what is allocated")
    libc.mallinfo2.restype = _Memory
    gc.collect()
    return libc.mallinfo2().used


def test_calls_that_are_instantiated_again_leave_no_memory_behind():
    """`tf.random.set_seed` forgets what was instantiated, and each training calls it."""
    variable = tf.Variable(tf.ones([4]))

    def inner(x):
        for i in range(200):
            x = tf.tanh(x + float(i))
        variable.assign_add(x)
        return x

    call = shared_functions.SharedCall(shared_functions.shared(inner), (tf.TensorSpec([4], tf.float32),))

    def use(times):
        for _ in range(times):
            tf.random.set_seed(1)
            call(tf.ones([4]))

    use(3)
    before = _allocated_bytes()
    use(10)
    # It was 1,000 kB each.
    assert _allocated_bytes() - before < 10 * 100_000


def test_resources_and_tensors_in_any_order():
    first, last = tf.Variable([1.0, 2.0]), tf.Variable(3, dtype=tf.int64)

    @tf.function(autograph=False)
    def outer(x):
        scale, count = x * 10, tf.size(x)

        def inner(y, z):
            first.assign_add(y)
            total = first * scale
            last.assign_sub(tf.cast(count, tf.int64))
            return total + z["b"], last.read_value() * z["a"], tf.range(2) + count

        return shared_functions.shared(inner)(x, {"b": scale, "a": tf.constant(2, tf.int64)})

    results = outer(tf.constant([0.5, 0.25]))
    for found, expected in zip(results, ([12.5, 8.125], 2, [2, 3]), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(first, [1.5, 2.25])
    assert int(last) == 1


def test_calls_of_python_live_as_long_as_they_are_needed():
    seen = []
    call = shared_functions.SharedCall(
        lambda x: tf.numpy_function(lambda value: seen.append(float(value)) or value, [x], tf.float32),
        (tf.TensorSpec([], tf.float32),),
    )
    gc.collect()
    assert float(call(tf.constant(3.0))) == seen[0] == 3.0


def test_equal_agents_are_compiled_once_and_train_alike(rng):
    """Each on variables of its own: as agents that XLA compiled apart."""

    def make():
        tf.random.set_seed(1)
        return helpers.make_agent(eager=False, minibatch_size=8, num_epochs=2, jit_compile=True)

    agents, seconds, before, found = [], [], names(), []
    rows = helpers.make_experience(make(), rng)
    for _ in range(3):
        agents.append(make())
        start = time.process_time()
        agents[-1].train(rows)
        seconds.append(time.process_time() - start)
        found.append(names() - before)
    assert found[0] == found[1] == found[2] != set()
    for agent in agents[1:]:
        helpers.assert_same_state(helpers.state_of(agent), helpers.state_of(agents[0]))
    agents[1].train(rows)
    assert int(agents[1].train_step_counter) == 2 * int(agents[2].train_step_counter)
    other = helpers.make_agent(eager=False, minibatch_size=8, num_epochs=2, jit_compile=True, discount_factor=0.5)
    del agents
    gc.collect()
    assert np.isfinite(other.train(rows).loss)
