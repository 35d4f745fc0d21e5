"""Graphs that TensorFlow would keep for good."""

import gc

import helpers
import pytest
import tensorflow as tf
from tensorflow.python.framework import func_graph, ops

from ppo_agent import networks
from ppo_agent.common import custom_gradients


def graphs() -> int:
    gc.collect()
    return sum(isinstance(found, func_graph.FuncGraph) for found in gc.get_objects())


@pytest.mark.parametrize("is_recurrent", [False, True])
def test_a_trained_agent_leaves_no_graph_behind(is_recurrent, rng):
    def train():
        nets = None
        if is_recurrent:
            nets = (
                networks.ActorNetwork(helpers.OBSERVATION, helpers.DISCRETE, (3,), memory=networks.LSTMMemory(3)),
                networks.ValueNetwork(helpers.OBSERVATION, (3,), memory=networks.LSTMMemory(3)),
            )
        agent = helpers.make_agent(
            action_spec=helpers.DISCRETE, nets=nets, eager=False, minibatch_size=2 if is_recurrent else 8, num_epochs=1,
            jit_compile=False,
        )  # fmt: skip
        agent.train(helpers.make_experience(agent, rng, batch=4, length=6))

    before = graphs()
    train()
    assert graphs() == before


def test_gradients_are_right_and_those_from_before_stay():
    @tf.custom_gradient
    def times_three(x):
        return x * 2.0, lambda upstream: upstream * 3.0

    def call(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = times_three(x)
        return tape.gradient(y, x)

    registry = custom_gradients._registry()
    assert registry is ops.gradient_registry._registry
    spec = tf.TensorSpec([], tf.float32)
    tf.function(call).get_concrete_function(spec)
    kept = set(registry)
    with custom_gradients.forgotten():
        traced = tf.function(call).get_concrete_function(spec)
        assert set(registry) - kept
    assert set(registry) == kept
    assert traced(tf.constant(5.0)) == 3.0
