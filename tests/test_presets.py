"""Presets."""

import pytest

from ppo_agent import presets
from ppo_agent.training.settings import combine


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_makes_settings_and_names_its_source(name: str) -> None:
    preset = presets.PRESETS[name]
    settings = combine(preset.settings, {})
    assert all(getattr(settings, key) == value for key, value in preset.settings.items())
    assert preset.source
    # Else gradient steps of an iteration would have rows missing.
    assert (settings.steps_per_iteration or settings.minibatch_size) % settings.minibatch_size == 0


@pytest.mark.parametrize(
    ("env_name", "name"),
    [
        ("CartPole-v1", "CartPole"),
        ("CartPole", "CartPole"),
        ("my_module:CartPole-v0", "CartPole"),
        ("phys2d/CartPole-v1", "CartPole"),
        ("LunarLanderContinuous-v3", "LunarLanderContinuous"),
        ("ALE/Pong-v5", "Atari"),
        ("ALE/MsPacman-v5", "Atari"),
    ],
)
def test_a_preset_is_found_by_the_environments_name(env_name: str, name: str) -> None:
    assert presets.find(env_name) is presets.PRESETS[name]


def test_an_unknown_environment_has_no_preset() -> None:
    assert presets.find("CartPoleSwingUp-v1") is None


@pytest.mark.parametrize("name", ["auto", "none", "CartPole", "CartPole-v1"])
def test_names_are_accepted(name: str) -> None:
    presets.check_name(name)


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"preset is 'hoper-v5', expected auto, .* \(did you mean Hopper\?\)"):
        presets.check_name("hoper-v5")


def test_general_settings_follow_from_the_spaces() -> None:
    continuous = presets.general(continuous_actions=True, images=False).settings
    discrete = presets.general(continuous_actions=False, images=False).settings
    images = presets.general(continuous_actions=False, images=True).settings
    assert continuous["num_environments"] == 1
    assert discrete["num_environments"] > 1
    assert combine(images, {}).shared_torso
    assert not combine(continuous, {}).shared_torso
    assert not combine(discrete, {}).shared_torso
