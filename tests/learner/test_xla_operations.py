"""Single gradient steps within the caller's own function: compiled by XLA where it is known to have the operations."""

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import sequential

KEYWORDS = {
    "num_epochs": 1,
    "compute_value_and_advantage_in_train": False,
    "update_normalizers_in_train": False,
    "importance_ratio_clipping": 0.2,
}


def nets_with(operation):
    """A value network that begins with an operation."""
    actor_net, _ = helpers.make_networks()
    squeeze = tf.keras.layers.Lambda(lambda x: tf.squeeze(x, -1))
    layers = [tf.keras.layers.Lambda(operation), tf.keras.layers.Dense(1), squeeze]
    return actor_net, sequential.Sequential(layers, input_spec=helpers.OBSERVATION)


def compiled(agent, experience):
    """Whether XLA compiles a part of a call of `train` within a function, and its loss."""
    experience = agent.preprocess_sequence(experience)
    function = tf.function(lambda: agent.train(experience), autograph=False).get_concrete_function()
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for nested in graph.library.function for node in nested.node_def)]
    attributes = [nested.attr for nested in graph.library.function] + [node.attr for node in nodes]
    return any(a["_XlaMustCompile"].b for a in attributes if "_XlaMustCompile" in a), function().loss


@pytest.mark.parametrize("kind", ["ours", "legacy", "sequential"])
def test_small_steps_are_compiled_and_give_the_numbers_of_the_plain_graph(rng, kind):
    losses = []
    agents = [helpers.make_agent(kind, eager=False, **KEYWORDS, jit_compile=jit) for jit in (None, False)]
    helpers.copy_weights(*agents)
    experience = helpers.make_experience(agents[0], rng)
    for agent in agents:
        is_compiled, loss = compiled(agent, experience)
        assert is_compiled == (agent is agents[0])
        losses.append(loss)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    for ours, plain in zip(*(agent._trained_variables() for agent in agents), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x + tf.cast(tf.raw_ops.Bucketize(input=x, boundaries=[0.0, 1.0]), tf.float32),
        lambda x: tf.strings.to_number(tf.strings.as_string(x)),
    ],
)
def test_a_network_with_other_operations_is_not_compiled(rng, operation):
    agent = helpers.make_agent(nets=nets_with(operation), eager=False, **KEYWORDS)
    is_compiled, loss = compiled(agent, helpers.make_experience(agent, rng))
    assert not is_compiled
    assert np.isfinite(loss)
