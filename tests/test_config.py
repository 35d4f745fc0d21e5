"""Checks of the hyper-parameters."""

import dataclasses
import inspect

import numpy as np
import pytest

import ppo_agent
from ppo_agent.config import OTHER_KEYWORDS, PPOConfig


def test_defaults_are_the_agents():
    parameters = inspect.signature(ppo_agent.PPOAgent.__init__).parameters
    for field in dataclasses.fields(PPOConfig):
        default = parameters[field.name].default
        can_be_none = field.name in ("gradient_clipping", "value_clipping", "target_kl", "max_skipped_steps")
        assert field.default == (default or 0.0 if can_be_none else default)


def test_none_means_off():
    config = PPOConfig(kl_cutoff_factor=None, gradient_clipping=None, value_clipping=None, target_kl=None)
    assert (config.kl_cutoff_factor, config.gradient_clipping) == (0.0, 0.0)
    assert (config.value_clipping, config.target_kl) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "importance_ratio_clipping",
            -0.1,
            r"importance_ratio_clipping is -0\.1, expected a finite number",
        ),
        (
            "entropy_regularization",
            float("nan"),
            "entropy_regularization is nan, expected a finite number",
        ),
        (
            "entropy_regularization",
            float("inf"),
            "entropy_regularization is inf, expected a finite number of at least 0",
        ),
        ("gradient_clipping", -1.0, r"gradient_clipping is -1\.0, expected"),
        ("value_clipping", -1.0, r"value_clipping is -1\.0, expected"),
        ("kl_cutoff_factor", -2.0, r"kl_cutoff_factor is -2\.0, expected"),
        ("initial_adaptive_kl_beta", -1.0, "initial_adaptive_kl_beta is"),
        ("policy_l2_reg", -1.0, "policy_l2_reg is"),
        ("lambda_value", 1.1, r"lambda_value is 1\.1, expected a number between 0 and 1"),
        ("discount_factor", -0.1, r"discount_factor is -0\.1, expected a number between 0 and 1"),
        ("num_epochs", 0, "num_epochs is 0, expected an integer of at least 1"),
        ("num_epochs", 2.5, r"num_epochs is 2\.5, expected an integer"),
        ("minibatch_size", 0, "minibatch_size is 0, expected an integer of at least 1"),
        ("num_epochs", None, "num_epochs is None, expected an integer"),
        ("gradient_clipping", "", "gradient_clipping is '', expected a finite number"),
        ("use_gae", "False", "use_gae is 'False', expected True or False"),
        ("jit_compile", "yes", "jit_compile is 'yes', expected None, True or False"),
        ("normalize_rewards", None, "normalize_rewards is None, expected True or False"),
        ("minibatch_size", np.inf, "minibatch_size is inf, expected an integer of at least 1"),
        ("max_skipped_steps", -1, "max_skipped_steps is -1, expected an integer of at least 0"),
        ("normalize_rewards_by", "rewards", "normalize_rewards_by is 'rewards', expected reward or return"),
        ("lambda_value", lambda: 0.9, "lambda_value is .*, expected a number between 0 and 1"),
        ("store_policy_state", np.ones(2), "store_policy_state is .*, expected True or False"),
        ("minibatch_size", -4, "minibatch_size is -4, expected an integer of at least 1"),
    ],
)
def test_one_bad_value(name, value, message):
    with pytest.raises(ValueError, match=message):
        PPOConfig(**{name: value})


def test_all_bad_values_are_named_at_once():
    with pytest.raises(ValueError, match=r"lambda_value.*num_epochs"):
        PPOConfig(num_epochs=0, lambda_value=2.0)


@pytest.mark.parametrize(("name", "value"), [("num_epochs", "3"), ("lambda_value", "0.9"), ("lambda_value", None)])
def test_values_of_another_type_are_named(name, value):
    with pytest.raises((TypeError, ValueError), match=f"{name} is {value!r}, expected"):
        PPOConfig(**{name: value})


def test_whole_numbers_of_any_type_are_taken_as_integers():
    config = PPOConfig(num_epochs=np.float64(3.0), minibatch_size=np.int64(8))
    assert (type(config.num_epochs), type(config.minibatch_size)) == (int, int)


class Variable:
    """Has what distinguishes a tf.Variable from a number."""

    def read_value(self):
        return 0.25

    def __float__(self):
        return 0.25


def test_a_variable_is_read_when_its_value_is_needed():
    config = PPOConfig(entropy_regularization=Variable(), value_clipping=Variable())
    assert config.entropy_regularization() == config.value_clipping() == 0.25
    for name in ("discount_factor", "num_epochs", "gradient_clipping"):
        with pytest.raises(ValueError, match=f"{name} is .*Variable object.*, expected"):
            PPOConfig(**{name: Variable()})


@pytest.mark.parametrize("make", [np.float32, np.float64, np.array])
def test_numbers_of_any_type_become_pythons(make):
    config = PPOConfig(discount_factor=make(0.5), entropy_regularization=make(0.25), num_epochs=np.array(3))
    assert [type(x) for x in (config.discount_factor, config.entropy_regularization, config.num_epochs)] == [
        float, float, int,
    ]  # fmt: skip


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PPOConfig().num_epochs = 3


@pytest.mark.parametrize(
    ("keywords", "uses_l2", "uses_kl"),
    [
        ({}, False, True),
        ({"initial_adaptive_kl_beta": 0.0}, False, True),
        ({"initial_adaptive_kl_beta": 0.0, "kl_cutoff_factor": None}, False, False),
        ({"shared_vars_l2_reg": 0.1}, True, True),
    ],
)
def test_what_is_used(keywords, uses_l2, uses_kl):
    config = PPOConfig(**keywords)
    assert (config.uses_l2, config.uses_kl_penalty) == (uses_l2, uses_kl)


def test_every_hyper_parameter_is_described():
    for field in dataclasses.fields(PPOConfig):
        assert set(field.metadata) == {"help", "kind", "limits", "may_be_none", "schedulable"}
        assert field.metadata["help"]
        assert not field.metadata["help"].endswith(".")
        assert field.default is None or isinstance(field.default, field.metadata["kind"])
        bounds = {"choices"} if field.metadata["kind"] is str else {"lower_bound", "upper_bound"}
        assert set(field.metadata["limits"]) <= bounds


@pytest.mark.parametrize("field", dataclasses.fields(PPOConfig), ids=lambda field: field.name)
def test_limits_are_what_is_checked(field):
    limits = field.metadata["limits"]
    good = [limits[name] for name in ("lower_bound", "upper_bound") if name in limits]
    bad = [limit + step for limit, step in zip(good, (-1, 1), strict=False)]
    for value in [*good, *limits.get("choices", ())]:
        keywords = {"store_policy_state": True} | {field.name: value}
        assert getattr(PPOConfig(**keywords), field.name) == value
    for value in bad:
        with pytest.raises(ValueError, match=f"{field.name} is {value}"):
            PPOConfig(**{field.name: value})


@pytest.mark.parametrize("cls", [ppo_agent.PPOAgent, ppo_agent.PPOClipAgent, ppo_agent.PPOKLPenaltyAgent])
def test_every_keyword_of_the_agents_is_described(cls):
    fields = {field.name: field.metadata["help"] for field in dataclasses.fields(PPOConfig)}
    for name in list(inspect.signature(cls.__init__).parameters)[1:]:
        text = OTHER_KEYWORDS.get(name) or fields[name]
        assert f"{name}: {text}" in inspect.getdoc(cls.__init__)
