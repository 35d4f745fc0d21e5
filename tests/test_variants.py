"""PPOClipAgent and PPOKLPenaltyAgent: their keywords, and that they are PPOAgent with some of them fixed."""

import inspect

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.ppo import ppo_agent as tf_agents_ppo
from tf_agents.agents.ppo import ppo_clip_agent, ppo_kl_penalty_agent

import ppo_agent

KL = {"initial_adaptive_kl_beta": 1.5, "adaptive_kl_target": 0.01, "adaptive_kl_tolerance": 0.3}


def keywords_of(cls):
    parameters = inspect.signature(cls.__init__).parameters.values()
    return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ppo_agent.PPOAgent, tf_agents_ppo.PPOAgent),
        (ppo_agent.PPOClipAgent, ppo_clip_agent.PPOClipAgent),
        (ppo_agent.PPOKLPenaltyAgent, ppo_kl_penalty_agent.PPOKLPenaltyAgent),
    ],
)
def test_keywords_are_the_references_in_order_and_default(ours, theirs):
    def plain(pairs):
        return [(name, repr(default)) for name, default in pairs]

    assert plain(keywords_of(ours)) == plain(keywords_of(theirs))
    added = [p for p in inspect.signature(ours.__init__).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in added] == [
        ("minibatch_size", None),
        ("jit_compile", None),
        ("store_policy_state", False),
        ("sequence_length", None),
        ("observation_and_action_constraint_splitter", None),
        ("target_kl", None),
        ("normalize_rewards_by", "reward"),
        ("max_skipped_steps", 10),
        ("recompute_advantages", False),
        ("learning_rate_kl_target", 0.0),
        ("dual_clipping", 0.0),
        ("normalize_value_targets", False),
        ("observation_norm_clipping", 5.0),
    ]


def test_loss_info_has_the_references_fields():
    assert ppo_agent.PPOLossInfo._fields == tf_agents_ppo.PPOLossInfo._fields


@pytest.mark.parametrize(
    ("cls", "keywords", "fixed"),
    [
        (
            ppo_agent.PPOClipAgent,
            {"importance_ratio_clipping": 0.1, "use_gae": True, "policy_l2_reg": 0.1, "minibatch_size": 9},
            {"kl_cutoff_factor": 0.0, "initial_adaptive_kl_beta": 0.0},
        ),
        (
            ppo_agent.PPOKLPenaltyAgent,
            {**KL, "entropy_regularization": 0.1, "value_clipping": 0.2, "gradient_clipping": 0.4, "minibatch_size": 9},
            {
                "kl_cutoff_factor": 0.0,
                "use_gae": True,
                "use_td_lambda_return": True,
                "normalize_observations": False,
                "reward_norm_clipping": 0.0,
            },
        ),
    ],
)
def test_is_ppo_agent_with_some_keywords_fixed(rng, cls, keywords, fixed):
    agents = []
    for kind, given in ((cls, keywords), (ppo_agent.PPOAgent, keywords | fixed)):
        tf.random.set_seed(1)
        agents.append(helpers.make_agent(cls=kind, num_epochs=2, **given))
    helpers.copy_weights(*agents)
    experiences = [helpers.make_experience(agents[0], rng) for _ in range(2)]
    for experience in experiences:
        one, other = (agent.train(experience) for agent in agents)
        np.testing.assert_allclose(tf.nest.flatten(one), tf.nest.flatten(other), rtol=1e-6)
    helpers.assert_same_state(*map(helpers.state_of, agents), rtol=1e-6, atol=1e-7)


def test_clip_agent_has_no_kl_penalty(rng):
    agent = helpers.make_agent(cls=ppo_agent.PPOClipAgent, importance_ratio_clipping=0.2)
    loss_info = agent.train(helpers.make_experience(agent, rng, noise=1.0))
    assert loss_info.extra.kl_penalty_loss == 0
    assert np.isnan(agent.train_metrics()["adaptive_kl_beta"])


def test_kl_penalty_agent_does_not_clip_ratios(rng):
    agent = helpers.make_agent(cls=ppo_agent.PPOKLPenaltyAgent, **KL)
    loss_info = agent.train(helpers.make_experience(agent, rng, noise=1.0))
    assert loss_info.extra.clip_fraction == 0
    assert loss_info.extra.kl_penalty_loss > 0


def test_kl_penalty_agent_needs_a_factor_with_a_coefficient():
    with pytest.raises(ValueError, match=r"kl_cutoff_factor is None, expected a number with kl_cutoff_coef = 5\.0"):
        helpers.make_agent(cls=ppo_agent.PPOKLPenaltyAgent, kl_cutoff_coef=5.0, **KL)


@pytest.mark.parametrize("value", [None, "5"])
def test_a_kl_cutoff_coefficient_that_is_no_number(value):
    with pytest.raises(ValueError, match=f"kl_cutoff_coef is {value!r}, expected a finite number"):
        helpers.make_agent(cls=ppo_agent.PPOKLPenaltyAgent, kl_cutoff_coef=value, **KL)
