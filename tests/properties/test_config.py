"""Hyper-parameters: any mixture of good and bad ones is taken, or refused with every bad one named."""

import dataclasses
import math

import helpers
import numpy as np
import pytest
from hypothesis import strategies as st
from strategies import holds_for, refusal

import ppo_agent
from ppo_agent.config import PPOConfig

COUNTS = ("num_epochs", "minibatch_size", "sequence_length")
CAN_BE_NONE = ("kl_cutoff_factor", "gradient_clipping", "value_clipping", "target_kl", "minibatch_size")
FRACTIONS = ("lambda_value", "discount_factor")
NUMERIC = [field.name for field in dataclasses.fields(PPOConfig) if field.metadata["kind"] is float] + list(COUNTS)

VALUES = st.one_of(
    st.floats(),
    st.integers(-3, 10),
    st.sampled_from(
        [0, 0.5, 1, 1.0, True, None, "0.2", "", np.float32(0.5), np.int64(3), np.nan, np.inf, [0.1], {}, np.ones(2), 1j]
    ),
)


def number(value):
    """The number that a value is, NaN if it is none."""
    if isinstance(value, (int, float, np.number)):
        return float(value)
    return math.nan


def is_good(name, value):
    if value is None:
        return name in (*CAN_BE_NONE, "sequence_length")
    if name in COUNTS:
        return number(value) >= 1 and number(value) % 1 == 0 and math.isfinite(number(value))
    if name in FRACTIONS:
        return 0 <= number(value) <= 1
    if name == "dual_clipping":
        return number(value) == 0 or 1 < number(value) < math.inf
    return 0 <= number(value) < math.inf


@holds_for(keywords=st.dictionaries(st.sampled_from(NUMERIC), VALUES, max_size=5), stores_state=st.booleans())
def test_every_bad_number_is_named(keywords, stores_state):
    bad = {name for name, value in keywords.items() if not is_good(name, value)}
    if not stores_state and keywords.get("sequence_length") is not None:
        bad.add("sequence_length")
    if not bad:
        made = PPOConfig(**keywords, store_policy_state=stores_state)
        for name, value in keywords.items():
            assert getattr(made, name) == (0 if value is None and name in CAN_BE_NONE[:4] else value)
        return
    with pytest.raises((ValueError, TypeError)) as refused:
        PPOConfig(**keywords, store_policy_state=stores_state)
    sentences = str(refused.value).split("; ")
    assert {sentence.split()[0] for sentence in sentences} == bad
    assert all(", expected " in sentence for sentence in sentences)


SWITCHES = ("use_gae", "normalize_rewards", "normalize_observations", "check_numerics", "store_policy_state")


@holds_for(
    keywords=st.dictionaries(st.sampled_from(NUMERIC), VALUES, max_size=2),
    switches=st.dictionaries(st.sampled_from(SWITCHES), st.booleans()),
    cls=st.sampled_from([ppo_agent.PPOAgent, ppo_agent.PPOClipAgent, ppo_agent.PPOKLPenaltyAgent]),
)
def test_agents_take_or_refuse_them_with_one_sentence(keywords, switches, cls):
    given = {**keywords, **switches}
    if cls is ppo_agent.PPOKLPenaltyAgent:
        needed = {"initial_adaptive_kl_beta": 1.0, "adaptive_kl_target": 0.01, "adaptive_kl_tolerance": 0.3}
        given = {**needed, **given}
    sentence = refusal(helpers.make_agent, cls=cls, **given)
    if sentence is None:
        assert all(is_good(name, value) for name, value in keywords.items())
    else:
        assert any(name in sentence for name in given)
        assert "\n" not in sentence
