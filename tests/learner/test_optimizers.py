"""Every optimiser that TF-Agents' users pass trains, as a graph and by XLA, as it does eagerly."""

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.tf_agent import LossInfo

from ppo_agent.learner import epochs, gradients, optimizers
from ppo_agent.learner.report import StepResult


def decay():
    return tf.keras.optimizers.schedules.PolynomialDecay(0.05, 10, 0.01)


OPTIMIZERS = {
    "keras": lambda: tf.keras.optimizers.Adam(0.02, epsilon=1e-3),
    "keras schedule": lambda: tf.keras.optimizers.Adam(decay(), epsilon=1e-3),
    "keras legacy": lambda: tf.keras.optimizers.legacy.Adam(0.02, epsilon=1e-3),
    "keras legacy schedule": lambda: tf.keras.optimizers.legacy.SGD(decay(), momentum=0.9),
    "compat.v1": lambda: tf.compat.v1.train.AdamOptimizer(0.02, epsilon=1e-3),
    "compat.v1 schedule": lambda: tf.compat.v1.train.RMSPropOptimizer(
        lambda: 0.02 / (1.0 + tf.cast(STEP.read_value(), tf.float32)), epsilon=1e-2
    ),
}
STEP = tf.Variable(0, dtype=tf.int64)
KEYWORDS = {"importance_ratio_clipping": 0.2, "use_gae": True, "num_epochs": 3, "normalize_observations": False}


def descend(optimizer, way):
    """Some gradient steps on a parabola, in the loop that `train` uses; returns where they lead."""
    variables = [tf.Variable([[1.0, -2.0], [0.5, 3.0]]), tf.Variable([4.0])]
    STEP.assign(0)
    optimizers.create_slots(optimizer, variables)

    def loss():
        value = tf.add_n([tf.reduce_sum(v**2) for v in variables])
        return StepResult(LossInfo(value, ()), {})

    def step(_):
        result, _, is_sound = gradients.gradient_step(loss, variables, optimizer, gradient_clipping=1.0)
        STEP.assign_add(1)
        return tf.stack([result.loss_info.loss, optimizers.learning_rate(optimizer)]), is_sound

    def run():
        return epochs.run_epochs(step, tf.constant(5), 2)[:2]

    if way != "eager":
        run = tf.function(run, jit_compile=way == "xla", autograph=False)
    reports = [run() for _ in range(2)]
    return [v.numpy() for v in variables], reports


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_in_a_graph_and_by_xla_are_those_made_eagerly(name):
    expected, expected_reports = descend(OPTIMIZERS[name](), "eager")
    assert np.abs(expected[1] - 4.0) > 0.01
    for way in ("graph", "xla"):
        actual, reports = descend(OPTIMIZERS[name](), way)
        for x, y in zip(actual, expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5)
        np.testing.assert_allclose(reports, expected_reports, rtol=1e-5)
    rates = [last[1] for last, _ in expected_reports]
    assert ("schedule" in name) == (rates[0] != rates[1])


@pytest.mark.parametrize("name", ["keras", "keras legacy", "compat.v1"])
def test_training_by_xla_is_that_made_eagerly(rng, name):
    ways = ({"eager": True}, {"eager": False, "jit_compile": True})
    agents = [helpers.make_agent(**KEYWORDS, optimizer=OPTIMIZERS[name](), **way) for way in ways]
    helpers.copy_weights(*agents)
    experience = helpers.make_experience(agents[0], rng)
    for _ in range(2):
        losses = [agent.train(experience).loss for agent in agents]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    helpers.assert_same_state(*map(helpers.state_of, agents[::-1]), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slots_are_created_once(rng, name):
    optimizer, variable = OPTIMIZERS[name](), tf.Variable([1.0, 2.0])
    optimizers.create_slots(optimizer, [variable])
    number = len(optimizer.variables() if callable(optimizer.variables) else optimizer.variables)
    optimizers.create_slots(optimizer, [variable])
    optimizer.apply_gradients([(tf.constant([0.1, 0.1]), variable)])
    assert number == len(optimizer.variables() if callable(optimizer.variables) else optimizer.variables)
    assert number > 0


@pytest.mark.parametrize(
    ("name", "rate"), [("keras", 0.02), ("keras legacy", 0.02), ("compat.v1", 0.02), ("keras schedule", 0.05)]
)
def test_learning_rate(name, rate):
    np.testing.assert_allclose(optimizers.learning_rate(OPTIMIZERS[name]()), rate, rtol=1e-6)


def test_learning_rate_that_is_not_told():
    assert optimizers.learning_rate(object()) is None


def test_learning_rate_can_be_changed_between_calls(rng):
    agent = helpers.make_agent(**KEYWORDS, eager=False, optimizer=tf.keras.optimizers.Adam(0.02))
    experience = helpers.make_experience(agent, rng)
    agent.train(experience)
    agent._optimizer.learning_rate.assign(0.0)
    before = helpers.state_of(agent)
    agent.train(experience)
    assert agent.train_metrics()["learning_rate"] == 0.0
    after = helpers.state_of(agent)
    for name in (n for n in before if n.startswith("variable")):
        np.testing.assert_array_equal(after[name], before[name])


def test_default_is_adam_of_compat_v1():
    assert isinstance(optimizers.default_optimizer(), tf.compat.v1.train.AdamOptimizer)


@pytest.mark.skipif(tf.__version__ < "2.16", reason="its Keras is Keras 2")
@pytest.mark.parametrize("name", ["Adam", "SGD", "RMSprop"])
def test_an_optimizer_of_keras_3_is_refused(name):
    keras = pytest.importorskip("keras")
    with pytest.raises(TypeError, match=rf"optimizer is {name} of Keras 3, expected tf\.keras\.optimizers\.{name}"):
        helpers.make_agent(optimizer=getattr(keras.optimizers, name)())


@pytest.mark.parametrize(
    "make", [tf.keras.optimizers.Adam, tf.keras.optimizers.legacy.SGD, tf.compat.v1.train.AdamOptimizer]
)
def test_a_class_of_optimizers_is_refused(make):
    name = make.__name__
    with pytest.raises(TypeError, match=rf"^optimizer is the class {name}, expected an object of it: {name}\(\)\.$"):
        helpers.make_agent(optimizer=make)


@pytest.mark.parametrize("counter", [3, 0.0, tf.constant(0)])
def test_a_counter_that_cannot_count(counter):
    with pytest.raises(TypeError, match=r"^train_step_counter is .*, expected None or a tf\.Variable\.$"):
        helpers.make_agent(train_step_counter=counter)
