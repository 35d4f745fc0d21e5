"""Our agents against TF-Agents', number by number, over several iterations of training."""

import helpers
import numpy as np
import pytest
import tensorflow as tf
from reference import corrected
from tf_agents.agents.ppo import ppo_agent as tf_agents_ppo
from tf_agents.networks import sequential

import ppo_agent

ADAM = {"learning_rate": 0.01, "epsilon": 1e-3}
NO_NORMALIZERS = {"normalize_rewards": False, "normalize_observations": False}
NO_KL = {"initial_adaptive_kl_beta": 0.0, "kl_cutoff_factor": 0.0}
CLIP = {"importance_ratio_clipping": 0.2, **NO_KL}
GAE = {"use_gae": True, "lambda_value": 0.8}

# Kind of networks, kind of action, keywords.
CASES = {
    "defaults": ("legacy", "continuous", {}),
    "gae": ("ours", "continuous", {**CLIP, **GAE, "entropy_regularization": 0.1, "gradient_clipping": 0.3}),
    "td_lambda": ("legacy", "nested", {**CLIP, **GAE, "use_td_lambda_return": True, "value_clipping": 0.2}),
    "monte_carlo": (
        "ours",
        "discrete",
        {**CLIP, **NO_NORMALIZERS, "use_td_lambda_return": True, "discount_factor": 0.9},
    ),
    "log_prob_clipping": ("sequential", "continuous", {**CLIP, **GAE, "log_prob_clipping": 1.0}),
    "kl": ("legacy", "discrete", {**GAE, "adaptive_kl_target": 0.004, "kl_cutoff_factor": 1.5, "kl_cutoff_coef": 50.0}),
    "beta_alone": (
        "ours",
        "nested",
        {"kl_cutoff_factor": 0.0, "initial_adaptive_kl_beta": 3.0, "reward_norm_clipping": 0.5},
    ),
    "cutoff_alone": ("sequential", "continuous", {**GAE, "initial_adaptive_kl_beta": 0.0, "value_pred_loss_coef": 2.0}),
    "weight_decay": ("legacy", "continuous", {**CLIP, "policy_l2_reg": 0.1, "value_function_l2_reg": 0.2}),
    "normalizers_kept": (
        "ours",
        "discrete",
        {**CLIP, "update_normalizers_in_train": False, "aggregate_losses_across_replicas": False},
    ),
    "recurrent": ("rnn", "continuous", {**CLIP, **GAE, "normalize_observations": False}),
    "recurrent_kl": ("rnn", "discrete", {"num_epochs": 2, "entropy_regularization": 0.01, "policy_l2_reg": 0.01}),
}


def make_pair(kind, action, keywords, ours=ppo_agent.PPOAgent, theirs=corrected.PPOAgent, make_nets=None, eager=True):
    """Our agent and TF-Agents' with equal weights."""
    agents = []
    for cls in (ours, theirs):
        nets = make_nets() if make_nets else helpers.make_networks(kind, helpers.ACTIONS[action])
        optimizer = tf.keras.optimizers.Adam(**ADAM)
        arguments = {"cls": cls, "nets": nets, "optimizer": optimizer, "num_epochs": 2, **keywords}
        agents.append(helpers.make_agent(action_spec=helpers.ACTIONS[action], eager=eager and cls is ours, **arguments))
    helpers.copy_weights(*agents)
    return agents


def reference_state(agent):
    """`helpers.state_of` of TF-Agents' agent."""
    variables = {id(v): v for v in agent._actor_net.trainable_weights + agent._value_net.trainable_weights}
    agent._trained_variables = lambda: sorted(variables.values(), key=lambda v: v.name)
    return helpers.state_of(agent)


def assert_same_training(ours, theirs, experiences, weights=None, tolerance=1e-5):
    for experience in experiences:
        loss_info, expected = ours.train(experience, weights), theirs.train(experience, weights)
        np.testing.assert_allclose(loss_info.loss, expected.loss, rtol=tolerance, atol=tolerance)
        for name, value in expected.extra._asdict().items():
            actual = getattr(loss_info.extra, name)
            np.testing.assert_allclose(actual, value, rtol=tolerance, atol=tolerance, err_msg=name)
        actual, wanted = helpers.state_of(ours), reference_state(theirs)
        # The carries of the normalisers' means, which TF-Agents does not have, come last.
        assert all("normalizer" in name for name in actual.keys() - wanted.keys())
        for name, reference in wanted.items():
            # What rounding took from a sum of squares: float64 loses less of it.
            absolute = 1e-4 if name.endswith("normalizer 3") else tolerance
            np.testing.assert_allclose(actual[name], reference, rtol=tolerance, atol=absolute, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_training_equals_the_corrected_references(rng, case):
    kind, action, keywords = CASES[case]
    ours, theirs = make_pair(kind, action, keywords)
    assert_same_training(ours, theirs, [helpers.make_experience(ours, rng) for _ in range(2)])


def test_compiled_training_equals_the_corrected_references(rng):
    ours, theirs = make_pair("legacy", "continuous", {**CLIP, **GAE, "gradient_clipping": 0.5}, eager=False)
    assert_same_training(ours, theirs, [helpers.make_experience(ours, rng, length=n) for n in (12, 9, 12)])


def test_clip_agent_equals_the_corrected_references(rng):
    keywords = {**GAE, "importance_ratio_clipping": 0.1, "entropy_regularization": 0.01}
    classes = {"ours": ppo_agent.PPOClipAgent, "theirs": corrected.PPOClipAgent}
    ours, theirs = make_pair("legacy", "discrete", keywords, **classes)
    assert_same_training(ours, theirs, [helpers.make_experience(ours, rng) for _ in range(2)])


def test_kl_penalty_agent_equals_the_corrected_references(rng):
    keywords = {"initial_adaptive_kl_beta": 2.0, "adaptive_kl_target": 0.01, "adaptive_kl_tolerance": 0.5}
    keywords |= {"kl_cutoff_factor": 1.5, "kl_cutoff_coef": 10.0, "value_clipping": 0.3}
    classes = {"ours": ppo_agent.PPOKLPenaltyAgent, "theirs": corrected.PPOKLPenaltyAgent}
    ours, theirs = make_pair("legacy", "continuous", keywords, **classes)
    assert_same_training(ours, theirs, [helpers.make_experience(ours, rng) for _ in range(2)])


def test_variables_that_both_networks_have(rng):
    def make_nets():
        shared = tf.keras.layers.Dense(5, activation="tanh", name="shared")
        actor_net, _ = helpers.make_networks("sequential")
        head = actor_net.layers
        squeeze = tf.keras.layers.Lambda(lambda x: tf.squeeze(x, -1))
        value_net = sequential.Sequential([shared, tf.keras.layers.Dense(1), squeeze])
        return sequential.Sequential([shared, *head[1:]]), value_net

    keywords = {**CLIP, "policy_l2_reg": 0.1, "value_function_l2_reg": 0.2, "shared_vars_l2_reg": 0.4}
    ours, theirs = make_pair("sequential", "continuous", keywords, make_nets=make_nets)
    assert len(ours._trained_variables()) < len(ours.actor_net.trainable_weights + ours.value_net.trainable_weights)
    experiences = [helpers.make_experience(ours, rng) for _ in range(2)]
    kernels = [
        {v.name: v for v in net.trainable_weights if "kernel" in v.name} for net in (ours.actor_net, ours.value_net)
    ]
    coefficients = [0.4, 0.1, 0.2]
    groups = [
        kernels[0].keys() & kernels[1].keys(),
        kernels[0].keys() - kernels[1].keys(),
        kernels[1].keys() - kernels[0].keys(),
    ]
    both = kernels[0] | kernels[1]
    expected = sum(c * np.sum(np.square(both[n])) for c, names in zip(coefficients, groups, strict=True) for n in names)
    np.testing.assert_allclose(ours.l2_regularization_loss(), expected, rtol=1e-5)
    assert_same_training(ours, theirs, experiences)


def test_weights_multiply_the_losses(rng):
    ours, theirs = make_pair("ours", "continuous", {**CLIP, **GAE})
    weights = tf.constant(rng.uniform(0.5, 2.0, (4, 12)).astype(np.float32))
    assert_same_training(ours, theirs, [helpers.make_experience(ours, rng)], weights)


def preprocessed(agent, experience):
    """Returns and advantages filled in, without the last step, for which they are not known."""
    return tf.nest.map_structure(lambda x: x[:, :-1], agent.preprocess_sequence(experience))


def test_precomputed_advantages(rng):
    keywords = {**CLIP, **GAE, "compute_value_and_advantage_in_train": False, "value_clipping": 0.1}
    ours, theirs = make_pair("ours", "nested", keywords)
    experience = helpers.make_experience(ours, rng)
    processed = ours.preprocess_sequence(experience)
    expected = theirs.preprocess_sequence(experience)
    real = np.array(experience.step_type != helpers.LAST)
    for name in ("return", "advantage", "value_prediction"):
        actual, wanted = processed.policy_info[name].numpy(), expected.policy_info[name].numpy()
        np.testing.assert_allclose(actual[real], wanted[real], rtol=1e-5, atol=1e-5)
    assert_same_training(ours, theirs, [processed])


@pytest.mark.parametrize("action", ["continuous", "discrete"])
def test_where_nothing_is_corrected_the_untouched_reference_agrees(rng, action):
    """No episode ends, no step without an advantage, no generalized advantage estimation."""
    keywords = {"compute_value_and_advantage_in_train": False, "entropy_regularization": 0.02}
    ours, theirs = make_pair("legacy", action, keywords, theirs=tf_agents_ppo.PPOAgent)
    for _ in range(2):
        experience = helpers.make_experience(ours, rng, end=0.0)
        processed, expected = ours.preprocess_sequence(experience), theirs.preprocess_sequence(experience)
        for actual, wanted in zip(tf.nest.flatten(processed), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)
        assert_same_training(ours, theirs, [preprocessed(ours, experience)])
