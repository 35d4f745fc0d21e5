"""Nested log-probabilities, entropies and divergences against NumPy, and the way to parameters and back."""

import functools

import helpers
import numpy as np
import oracles
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.agents.sac.tanh_normal_projection_network import TanhNormalProjectionNetwork
from tf_agents.networks import actor_distribution_network, normal_projection_network, sequential, value_network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories.time_step import restart, time_step_spec

import ppo_agent
from ppo_agent.maths import distributions
from ppo_agent.maths.distributions import ParameterCodec

tfd = tfp.distributions
OBSERVATION_SPEC = tf.TensorSpec([4], tf.float32)


@pytest.fixture
def logits(rng):
    return rng.normal(size=(2, 3, 4, 5)).astype(np.float32)


@pytest.fixture
def normals(rng):
    loc, scale = rng.normal(size=(2, 3, 4, 2)), np.exp(rng.normal(size=(2, 3, 4, 2)))
    return [(a.astype(np.float32), b.astype(np.float32)) for a, b in zip(loc, scale, strict=True)]


def test_nests_add_up(rng, logits, normals):
    """A leaf per kind: one categorical, several in a tensor, a normal per component and a multivariate normal."""
    actions = {
        "one": rng.integers(0, 5, (3, 4)),
        "many": rng.integers(0, 5, (3, 4)),
        "pair": (rng.normal(size=(3, 4, 2)).astype(np.float32),) * 2,
    }
    many_actions = rng.integers(0, 5, (3, 4, 2))

    def build(i):
        several = np.stack([logits[i], logits[1 - i]], axis=2)
        distribution = {
            "one": tfd.Categorical(logits=logits[i]),
            "many": tfd.Categorical(logits=several),
            "pair": (tfd.Normal(*normals[i]), tfd.MultivariateNormalDiag(*normals[1 - i])),
        }
        expected = [
            oracles.Categorical(logits[i]),
            oracles.Categorical(several),
            oracles.Normal(*normals[i]),
            oracles.Normal(*normals[1 - i]),
        ]
        return distribution, expected

    (old, old_parts), (new, new_parts) = build(0), build(1)
    actions["many"] = many_actions
    flat = [actions["one"], many_actions, *actions["pair"]]
    log_prob = sum(d.log_prob(a) for d, a in zip(new_parts, flat, strict=True))
    np.testing.assert_allclose(distributions.log_probability(new, actions, 2), log_prob, rtol=1e-5)
    np.testing.assert_allclose(distributions.entropy(new, 2), sum(d.entropy() for d in new_parts), rtol=1e-5)
    divergence = sum(o.kl(n) for o, n in zip(old_parts, new_parts, strict=True))
    np.testing.assert_allclose(distributions.kl_divergence(old, new, 2), divergence, rtol=1e-4)


def test_kl_divergence_is_of_the_new_distribution_from_the_old(logits):
    old, new = tfd.Categorical(logits=logits[0]), tfd.Categorical(logits=5 * logits[1])
    forward = distributions.kl_divergence(old, new, 2)
    np.testing.assert_allclose(
        forward, oracles.Categorical(logits[0]).kl(oracles.Categorical(5 * logits[1])), rtol=1e-4
    )
    assert np.abs(forward - distributions.kl_divergence(new, old, 2)).max() > 0.1


@pytest.mark.parametrize("outer_rank", [1, 2])
def test_outer_rank_says_which_axes_are_summed_over(normals, outer_rank):
    value = distributions.entropy(tfd.Normal(*normals[0]), outer_rank)
    np.testing.assert_allclose(value, oracles.Normal(*normals[0], outer_rank=outer_rank).entropy(), rtol=1e-5)


def test_entropy_without_a_closed_form_is_left_out(normals, logits):
    squashed = tfd.TransformedDistribution(tfd.Normal(*normals[0]), tfp.bijectors.Tanh())
    assert distributions.entropy(squashed, 2) is None
    known = tfd.Categorical(logits=logits[0])
    np.testing.assert_allclose(distributions.entropy((squashed, known), 2), known.entropy(), rtol=1e-6)


def test_structures_must_match(logits):
    categorical = tfd.Categorical(logits=logits[0])
    with pytest.raises(ValueError, match="structure"):
        distributions.log_probability({"a": categorical}, {"b": tf.zeros([3, 4], tf.int32)}, 2)
    with pytest.raises(ValueError, match="structure"):
        distributions.kl_divergence({"a": categorical}, {"b": categorical}, 2)


KINDS = [
    ("ours", "continuous"),
    ("ours", "discrete"),
    ("ours", "nested"),
    ("legacy", "continuous"),
    ("legacy", "discrete"),
    ("legacy", "nested"),
    ("sequential", "continuous"),
]


@pytest.mark.parametrize(("kind", "action"), KINDS)
def test_codec_goes_to_parameters_and_back(rng, kind, action):
    actor_net, _ = helpers.make_networks(kind, helpers.ACTIONS[action])
    codec = ParameterCodec(actor_net, actor_net.create_variables(helpers.OBSERVATION))
    observations = helpers.random_observations(rng, helpers.OBSERVATION, (3, 4))
    original, _ = actor_net(observations, tf.ones([3, 4], tf.int32), ())
    parameters = codec.to_parameters(original)
    for spec, tensor in zip(tf.nest.flatten(codec.parameters_spec), tf.nest.flatten(parameters), strict=True):
        assert [3, 4, *spec.shape] == tensor.shape
        assert spec.dtype == tensor.dtype
    rebuilt = codec.to_distributions(parameters)
    actions = tf.nest.map_structure(lambda d: d.sample(), original)
    np.testing.assert_allclose(
        distributions.log_probability(rebuilt, actions, 2),
        distributions.log_probability(original, actions, 2),
        rtol=1e-6,
    )
    np.testing.assert_allclose(distributions.kl_divergence(original, rebuilt, 2), np.zeros((3, 4)), atol=1e-6)


def test_codec_stores_the_scale_of_a_legacy_multivariate_normal_under_scale():
    names = {}
    for kind in ("legacy", "sequential"):
        actor_net, _ = helpers.make_networks(kind)
        codec = ParameterCodec(actor_net, actor_net.create_variables(helpers.OBSERVATION))
        names[kind] = set(codec.parameters_spec)
    assert names == {"legacy": {"loc", "scale"}, "sequential": {"loc", "scale_diag"}}


SQUASHED = {
    "tanh": TanhNormalProjectionNetwork,
    "scaled": functools.partial(normal_projection_network.NormalProjectionNetwork, scale_distribution=True),
    "scaled by the state": functools.partial(
        normal_projection_network.NormalProjectionNetwork, scale_distribution=True, state_dependent_std=True
    ),
}


@pytest.mark.parametrize("kind", SQUASHED)
def test_codec_knows_tf_agents_squashed_normals(rng, kind):
    tf.random.set_seed(0)
    spec = tensor_spec.BoundedTensorSpec([2], tf.float32, [-2.0, 0.0], [3.0, 10.0])
    net = actor_distribution_network.ActorDistributionNetwork(
        OBSERVATION_SPEC, spec, fc_layer_params=(4,), continuous_projection_net=SQUASHED[kind]
    )
    codec = ParameterCodec(net, net.create_variables())
    emitted, _ = net(rng.normal(size=(3, 4)).astype(np.float32), network_state=(), step_type=None)
    parameters = codec.to_parameters(emitted)
    tf.nest.assert_same_structure(parameters, codec.parameters_spec)
    rebuilt = codec.to_distributions(parameters)
    actions = emitted.sample(seed=1)
    # `emitted` remembers what it squashed, `rebuilt` has to invert it, which rounding limits near the bounds.
    np.testing.assert_allclose(rebuilt.log_prob(actions), emitted.log_prob(actions), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(rebuilt.mode(), emitted.mode(), rtol=1e-5)
    np.testing.assert_allclose(emitted.kl_divergence(rebuilt), np.zeros(3), atol=1e-5)


@pytest.mark.parametrize("kind", SQUASHED)
def test_an_agent_trains_with_tf_agents_squashed_normals(rng, kind):
    observation_spec, action_spec = OBSERVATION_SPEC, tensor_spec.BoundedTensorSpec([2], tf.float32, -2, 3)
    actor_net = actor_distribution_network.ActorDistributionNetwork(
        observation_spec, action_spec, fc_layer_params=(8,), continuous_projection_net=SQUASHED[kind]
    )
    agent = ppo_agent.PPOClipAgent(
        time_step_spec(observation_spec), action_spec, tf.keras.optimizers.Adam(1e-3), actor_net=actor_net,
        value_net=value_network.ValueNetwork(observation_spec, fc_layer_params=(8,)), num_epochs=1,
        importance_ratio_clipping=0.2, normalize_observations=False,
    )  # fmt: skip
    experience = helpers.make_experience(agent, rng, noise=0.0)
    loss = agent.train(experience)
    assert np.isfinite(loss.loss)
    assert agent.train_metrics()["approx_kl"] == pytest.approx(0, abs=1e-4)
    action = agent.collect_policy.action(restart(tf.zeros([5, 4]), 5)).action.numpy()
    assert ((action >= -2) & (action <= 3)).all()


def test_codec_refuses_a_network_that_emits_no_distribution():
    net = sequential.Sequential([tf.keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="actor_net must emit distributions"):
        ParameterCodec(net, net.create_variables(tensor_spec.TensorSpec([3], tf.float32)))
