"""Value targets that are normalised: moments, predictions that stay, the loss in units of the deviation."""

import helpers
import numpy as np
import pytest
import tensorflow as tf

from ppo_agent.value_scale import ValueScale

KEYWORDS = {
    "importance_ratio_clipping": 0.2,
    "initial_adaptive_kl_beta": 0.0,
    "kl_cutoff_factor": 0.0,
    "use_gae": True,
    "normalize_rewards": False,
    "normalize_value_targets": True,
}


def layer(rng):
    found = tf.keras.layers.Dense(1)
    found.build([None, 4])
    found.kernel.assign(rng.normal(size=(4, 1)))
    found.bias.assign([0.7])
    return found


@pytest.mark.parametrize("offset", [0.0, -30.0, 1e5])
def test_moments_are_an_average_and_predictions_stay(rng, offset):
    dense = layer(rng)
    scale, features = ValueScale(dense), rng.normal(size=(9, 4)).astype(np.float32)
    before = scale.denormalized(dense(features)).numpy()
    mean, variance = 0.0, 1.0
    for count in range(14):
        returns = rng.normal(offset + count, 1.0 + count, (5, 8)).astype(np.float32)
        mask = rng.random((5, 8)) < 0.7
        scale.update(tf.constant(np.where(mask, returns, np.nan)), tf.constant(mask))
        share = max(0.1, 1 / (count + 1))
        new, known = np.float64(returns[mask]), mean
        mean = known + share * (new.mean() - known)
        variance = (1 - share) * (variance + share * (new.mean() - known) ** 2) + share * new.var()
        np.testing.assert_allclose(scale.mean, mean, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(scale.std, np.sqrt(variance), rtol=1e-3)
    np.testing.assert_allclose(scale.denormalized(dense(features)), before, rtol=1e-4, atol=1e-4 + abs(offset) * 1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_returns_whose_squares_are_too_large_spoil_nothing(rng, jit_compile):
    dense = layer(rng)
    scale = ValueScale(dense)
    update = tf.function(scale.update, jit_compile=jit_compile)
    mask = tf.fill([6], True)
    update(tf.fill([6], 1e20), mask)  # The square of the mean is, the variance is not.
    assert float(scale.mean) == np.float32(1e20)
    assert float(scale.std) == pytest.approx(1e-3)
    kernel = dense.kernel.numpy()
    update(tf.linspace(-3e38, 3e38, 6), mask)
    assert float(scale.mean) == np.float32(1e20)
    np.testing.assert_array_equal(dense.kernel, kernel)
    small = ValueScale(layer(rng))
    for _ in range(3):
        small.update(tf.constant([-1e20, 1e20, 1e20]), mask[:3])
        small.update(tf.constant([1.0, 2.0, 3.0]), mask[:3])
    assert (float(small.mean), float(small.std)) == pytest.approx((2.0, np.sqrt(2 / 3)), rel=0.2)


def test_nothing_that_counts_changes_nothing(rng):
    dense = layer(rng)
    scale, kernel = ValueScale(dense), dense.kernel.numpy()
    scale.update(tf.constant([np.nan, 1.0]), tf.constant([True, False]))
    assert (float(scale.mean), float(scale.std)) == (0.0, 1.0)
    np.testing.assert_array_equal(dense.kernel, kernel)


def test_equal_returns_have_a_deviation_that_can_be_divided_by(rng):
    dense = layer(rng)
    scale, features = ValueScale(dense), rng.normal(size=(3, 4)).astype(np.float32)
    before = scale.denormalized(dense(features)).numpy()
    scale.update(tf.fill([20], 5.0), tf.fill([20], True))
    assert float(scale.std) == pytest.approx(1e-3)
    np.testing.assert_allclose(scale.denormalized(dense(features)), before, rtol=1e-3)


@pytest.mark.parametrize("kind", ["ours", "legacy", "rnn"])
def test_training_leaves_predictions_and_divides_errors(rng, kind):
    """Two agents alike but for the scale: before the first update both predict the same and have the same loss."""
    agents = [
        helpers.make_agent(kind, num_epochs=1, **{**KEYWORDS, "normalize_value_targets": on}) for on in (True, False)
    ]
    helpers.copy_weights(*agents)
    scaled, plain = agents
    experience = helpers.make_experience(scaled, rng)
    experience = experience._replace(reward=50.0 * experience.reward)
    np.testing.assert_allclose(scaled.loss(experience).loss, plain.loss(experience).loss, rtol=1e-5)
    for agent in agents:
        agent.train(experience)
    predictions = [a._objective.predict_values(experience.observation, experience.step_type).numpy() for a in agents]
    np.testing.assert_allclose(*predictions, rtol=1e-3, atol=1e-3)
    assert float(scaled._value_scale.std) > 10
    losses = [agent.loss(experience).extra.value_estimation_loss for agent in agents]
    np.testing.assert_allclose(losses[0] * scaled._value_scale.std**2, losses[1], rtol=1e-3)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_compiled_update_does_the_same(rng, jit_compile):
    ways = ({"eager": True}, {"eager": False, "jit_compile": jit_compile})
    agents = [helpers.make_agent(**KEYWORDS, **way, minibatch_size=44, num_epochs=2) for way in ways]
    helpers.copy_weights(*agents)
    experience = helpers.make_experience(agents[0], rng)
    for _ in range(2):
        losses = [agent.train(experience).loss for agent in agents]
        np.testing.assert_allclose(*losses, rtol=1e-4)
    assert [float(a._value_scale._count) for a in agents] == [2.0, 2.0]
    np.testing.assert_allclose(agents[0]._value_scale.mean, agents[1]._value_scale.mean, rtol=1e-5)


def test_a_network_without_a_last_layer_is_refused():
    from tf_agents.networks import sequential

    actor_net, _ = helpers.make_networks()
    value_net = sequential.Sequential(
        [tf.keras.layers.Dense(4), tf.keras.layers.Lambda(lambda x: tf.reduce_sum(x, axis=-1))]
    )
    with pytest.raises(
        ValueError, match="normalize_value_targets is True, expected False with a value_net that has not"
    ):
        helpers.make_agent(nets=(actor_net, value_net), **KEYWORDS)


def test_dual_clipping_below_one_is_refused():
    with pytest.raises(ValueError, match=r"dual_clipping is 0\.5, expected 0 or more than 1"):
        helpers.make_agent(dual_clipping=0.5)
