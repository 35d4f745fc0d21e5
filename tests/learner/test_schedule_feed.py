"""Functions in Python that are asked anew in every call of `train`, although the update is compiled once."""

import helpers
import numpy as np
import pytest
import tensorflow as tf

from ppo_agent.learner import schedule_feed
from ppo_agent.maths import adaptive_kl

KEYWORDS = {
    "importance_ratio_clipping": 0.2,
    "initial_adaptive_kl_beta": 0.0,
    "kl_cutoff_factor": 0.0,
    "use_gae": True,
    "num_epochs": 2,
    "normalize_observations": False,
    "normalize_rewards": False,
}
# What each is first, and later.
FIELDS = {
    "entropy_regularization": (0.5, 0.1),
    "importance_ratio_clipping": (0.3, 0.02),
    "value_clipping": (1.0, 0.01),
}
V1, LEGACY = tf.compat.v1.train, tf.keras.optimizers.legacy
OPTIMIZERS = {
    "v1 sgd": V1.GradientDescentOptimizer,
    "v1 adam": lambda rate: V1.AdamOptimizer(rate, epsilon=1e-3),
    "v1 momentum": lambda rate: V1.MomentumOptimizer(0.05, momentum=rate),
    "legacy sgd": LEGACY.SGD,
    "legacy adam": lambda rate: LEGACY.Adam(rate, epsilon=1e-3),
    "legacy beta": lambda rate: LEGACY.Adam(0.05, beta_1=rate, epsilon=1e-3),
}
KINDS = {
    "python": lambda value: value,
    "numpy": np.float32,
    "array": lambda value: np.array(value, np.float64),
    "tensor": tf.constant,
}


def pair(first, second):
    """Two agents with equal weights, of different keywords."""
    agents = []
    for keywords in (first, second):
        tf.random.set_seed(1)
        agents.append(helpers.make_agent(eager=False, **{**KEYWORDS, **keywords}))
    helpers.copy_weights(*agents)
    if agents[0]._shuffle_seed is not None:
        agents[1]._shuffle_seed.assign(agents[0]._shuffle_seed)
    return agents


def assert_equal(actual, expected):
    for x, y in zip(actual._trained_variables(), expected._trained_variables(), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("entropy_regularization", kind) for kind in KINDS),
        ("importance_ratio_clipping", "python"),
        ("value_clipping", "array"),
    ],
)
def test_a_later_value_of_a_function_takes_effect(rng, name, kind):
    first, later = FIELDS[name]
    now, sgd = [first], [tf.keras.optimizers.SGD(0.05) for _ in range(2)]
    changing, fixed = pair({name: lambda: KINDS[kind](now[0]), "optimizer": sgd[0]}, {name: later, "optimizer": sgd[1]})
    experience = helpers.make_experience(changing, rng)
    changing.train(experience)
    before = [v.numpy() for v in changing._trained_variables()]
    helpers.copy_weights(fixed, changing)
    now[0] = later
    losses = [agent.train(experience) for agent in (changing, fixed)]
    np.testing.assert_allclose(losses[0].loss, losses[1].loss, rtol=1e-4)
    assert_equal(changing, fixed)
    assert any((x != y.numpy()).any() for x, y in zip(before, changing._trained_variables(), strict=True))
    assert len(changing._run_update._functions) == 1


@pytest.mark.parametrize("keywords", [{"minibatch_size": 16}, {"minibatch_size": 16, "jit_compile": True}])
def test_all_values_at_once_with_minibatches(rng, keywords):
    now = {name: values[0] for name, values in FIELDS.items()}
    functions = {name: lambda name=name: now[name] for name in FIELDS}
    later = {name: values[1] for name, values in FIELDS.items()}
    rate = [0.05]
    changing, fixed = pair(
        {**keywords, **functions, "optimizer": V1.GradientDescentOptimizer(lambda: rate[0])},
        {**keywords, **later, "optimizer": V1.GradientDescentOptimizer(0.02)},
    )
    experience = helpers.make_experience(changing, rng)
    changing.train(experience)
    helpers.copy_weights(fixed, changing)
    changing.train_step_counter.assign(0)
    now.update(later)
    rate[0] = 0.02
    changing.train(experience)
    fixed.train(experience)
    assert_equal(changing, fixed)
    assert changing.train_metrics()["learning_rate"] == pytest.approx(0.02)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_function_of_an_optimizer_is_asked_in_every_call(rng, name):
    rate = [0.1]
    changing, fixed = (
        {"optimizer": OPTIMIZERS[name](value), "num_epochs": 3} for value in (lambda: rate[0], lambda: rate[0])
    )
    changing, fixed = pair(changing, fixed)
    helpers.run_eagerly(fixed)
    experience = helpers.make_experience(changing, rng)
    for value in (0.1, 0.0, 0.03):
        rate[0] = value
        before = [v.numpy() for v in changing._trained_variables()]
        for agent in (changing, fixed):
            agent.train(experience)
        assert_equal(changing, fixed)
        if name.endswith(("sgd", "adam")):
            moved = max(np.abs(x - y).max() for x, y in zip(before, changing._trained_variables(), strict=True))
            assert (moved > 0) == (value > 0)
            assert changing.train_metrics()["learning_rate"] == pytest.approx(value)
    # What the user passed is there again.
    assert len(schedule_feed.optimizers.functions_of(changing._optimizer)) == 1


def test_replicas_ask_in_every_call(rng):
    """One replica, whose variables are mirrored ones all the same."""
    now, strategy = [0.5, 0.1], tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        changing = helpers.make_agent(
            eager=False, **KEYWORDS, entropy_regularization=lambda: now[0],
            optimizer=LEGACY.SGD(lambda: now[1]),
        )  # fmt: skip
    fixed = helpers.make_agent(eager=False, **KEYWORDS, entropy_regularization=0.1, optimizer=LEGACY.SGD(0.02))
    experience = helpers.make_experience(changing, rng)
    strategy.run(changing.train, args=(experience,))
    helpers.copy_weights(changing, fixed)
    now[:] = [0.1, 0.02]
    strategy.run(changing.train, args=(experience,))
    fixed.train(experience)
    assert_equal(changing, fixed)


def test_each_call_asks_once(rng):
    values = iter([0.5, 0.4, 0.3])
    agent = helpers.make_agent(eager=False, **KEYWORDS, entropy_regularization=lambda: next(values))
    experience = helpers.make_experience(agent, rng)
    for _ in range(3):
        agent.train(experience)
    assert next(values, None) is None


@pytest.mark.parametrize("kind", ["keras", "of the step", "reads the step"])
def test_what_depends_on_the_train_step_follows_every_gradient_step(rng, kind):
    step = tf.Variable(0, dtype=tf.int64)
    decay = tf.keras.optimizers.schedules.PolynomialDecay(0.5, 6, 0.1)
    functions = {"keras": decay, "of the step": lambda s: decay(s) * 1.0, "reads the step": lambda: decay(step)}
    sgd = [tf.keras.optimizers.SGD(0.05) for _ in range(2)]
    scheduled, fixed = pair(
        {"entropy_regularization": functions[kind], "train_step_counter": step, "optimizer": sgd[0], "num_epochs": 6},
        {"entropy_regularization": lambda: coefficient, "optimizer": sgd[1], "num_epochs": 1},
    )
    experience = helpers.make_experience(scheduled, rng)
    # Targets come from the values before the epochs: the value function is left alone.
    for agent in (scheduled, fixed):
        object.__setattr__(agent._config, "value_pred_loss_coef", 0.0)
    scheduled.train(experience)
    for index in range(6):
        coefficient = float(decay(index))
        fixed.train(experience)
    assert_equal(scheduled, fixed)


@pytest.mark.parametrize("name", FIELDS)
def test_a_later_value_of_a_variable_takes_effect(rng, name):
    first, later = FIELDS[name]
    variable, sgd = tf.Variable(first), [tf.keras.optimizers.SGD(0.05) for _ in range(2)]
    changing, fixed = pair({name: variable, "optimizer": sgd[0]}, {name: later, "optimizer": sgd[1]})
    experience = helpers.make_experience(changing, rng)
    changing.train(experience)
    helpers.copy_weights(fixed, changing)
    variable.assign(later)
    losses = [agent.train(experience) for agent in (changing, fixed)]
    np.testing.assert_allclose(losses[0].loss, losses[1].loss, rtol=1e-4)
    assert_equal(changing, fixed)


@pytest.mark.parametrize("function", [lambda a, b: 0.1, lambda *, a: 0.1])
def test_a_function_of_other_arguments_is_refused(function):
    with pytest.raises(ValueError, match=r"regularization takes the arguments \(.*\), expected a function of no"):
        helpers.make_agent(entropy_regularization=function)


def test_values_out_of_range_change_nothing(rng):
    agent = helpers.make_agent(eager=False, **KEYWORDS, entropy_regularization=lambda: -0.5)
    experience = helpers.make_experience(agent, rng)
    before = helpers.state_of(agent)
    with pytest.raises(ValueError, match=r"entropy_regularization returns -0.5, expected a finite number of"):
        agent.train(experience)
    helpers.assert_same_state(helpers.state_of(agent), before)


# A learning rate that is adapted to the KL divergence.


@pytest.mark.parametrize(
    ("rate", "kl", "expected"),
    [(1e-3, 0.021, 1e-3 / 1.5), (1e-3, 0.0049, 1.5e-3), (1e-3, 0.019, 1e-3), (1e-3, 0.0051, 1e-3),
     (1.2e-6, 1.0, 1e-6), (9e-3, 0.0, 1e-2), (1e-3, np.nan, 1e-3)],
)  # fmt: skip
def test_adapted_learning_rate(rate, kl, expected):
    np.testing.assert_allclose(adaptive_kl.adapted_learning_rate(rate, tf.constant(kl), 0.01), expected, rtol=1e-6)


@pytest.mark.parametrize("make", [tf.keras.optimizers.Adam, LEGACY.Adam])
@pytest.mark.parametrize("keywords", [{}, {"minibatch_size": 16, "jit_compile": True}])
def test_an_update_adapts_the_learning_rate(rng, make, keywords):
    agent = helpers.make_agent(eager=False, **KEYWORDS, **keywords, optimizer=make(0.004), learning_rate_kl_target=1e-5)
    experience = helpers.make_experience(agent, rng, noise=0.5)
    agent.train(experience)
    assert agent.train_metrics()["approx_kl"] > 2e-5
    agent.train(experience)
    assert agent.train_metrics()["learning_rate"] == pytest.approx(0.004 / 1.5, rel=1e-5)
    assert float(agent._optimizer.learning_rate) == pytest.approx(0.004 / 1.5**2, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["none", "v1", "keras"])
def test_a_rate_that_is_no_variable_cannot_be_adapted(optimizer):
    decay = tf.keras.optimizers.schedules.PolynomialDecay(0.1, 5)
    optimizer = {"none": None, "v1": V1.AdamOptimizer(0.1), "keras": tf.keras.optimizers.SGD(decay)}[optimizer]
    with pytest.raises(ValueError, match=r"learning_rate_kl_target is 0\.01, expected 0 without an optimizer of"):
        helpers.make_agent(optimizer=optimizer, learning_rate_kl_target=0.01)
