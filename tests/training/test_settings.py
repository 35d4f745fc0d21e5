"""Settings and their flags."""

import dataclasses

import pytest
from absl import flags

from ppo_agent.training import setting_flags as settings
from ppo_agent.training.settings import Settings, combine


def parsed(*arguments: str) -> flags.FlagValues:
    values = flags.FlagValues()
    settings.define_flags(values)
    values(["program", *arguments])
    return values


def test_every_setting_is_a_flag_with_its_default() -> None:
    values = parsed()
    assert {field.name: values[field.name].value for field in dataclasses.fields(Settings)} == dataclasses.asdict(
        Settings()
    )
    assert settings.given_flags(values) == {}


def test_given_flags_are_those_on_the_command_line() -> None:
    values = parsed("--num_epochs=10", "--nonormalize_rewards", "--actor_fc_layers=7, 8", "--value_fc_layers=")
    assert settings.given_flags(values) == {
        "num_epochs": 10,  # Though it is the default.
        "normalize_rewards": False,
        "actor_fc_layers": (7, 8),
        "value_fc_layers": (),
    }


@pytest.mark.parametrize(
    "argument",
    [
        "--num_epochs=0",
        "--minibatch_size=x",
        "--actor_fc_layers=3,x",
        "--agent=q",
        "--lambda_value=-0.1",
        "--lambda_value=nan",
        "--learning_rate=inf",
        "--initial_log_std=-inf",
    ],
)
def test_wrong_values_are_refused(argument: str) -> None:
    with pytest.raises(flags.Error, match=argument.partition("=")[0][2:]):
        parsed(argument)


def test_help_shows_layers_as_they_are_given() -> None:
    assert "64,64" in parsed().get_help()


def test_given_beats_preset_beats_default() -> None:
    chosen = combine({"num_epochs": 4, "learning_rate": 0.1}, {"learning_rate": 0.2})
    assert (chosen.num_epochs, chosen.learning_rate, chosen.lambda_value) == (4, 0.2, Settings().lambda_value)


@pytest.mark.parametrize(
    ("preset", "given", "episodes", "steps"),
    [
        ({}, {}, 8, None),
        ({"collect_steps_per_iteration": 64}, {}, None, 64),
        ({"collect_steps_per_iteration": 64}, {"collect_episodes_per_iteration": 2}, 2, None),
        ({"collect_episodes_per_iteration": 5}, {"collect_steps_per_iteration": 128}, None, 128),
    ],
)
def test_a_run_collects_one_way(preset: dict, given: dict, episodes: int | None, steps: int | None) -> None:
    chosen = combine(preset, given)
    assert (chosen.collect_episodes_per_iteration, chosen.collect_steps_per_iteration) == (episodes, steps)
    # Saved settings are a layer like a preset.
    assert combine(dataclasses.asdict(chosen), {}) == chosen


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"total_environment_steps": 20}, 16),
        ({"collect_steps_per_iteration": 3}, 24),
        ({"collect_steps_per_iteration": 3, "num_environments": 1, "minibatch_size": 3}, 3),
        ({"minibatch_size": 99_999, "num_environments": 1}, 99_999),
    ],
)
def test_a_minibatch_fits_the_first_iteration(given: dict, size: int) -> None:
    assert combine({}, given).minibatch_size == size


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"minibatch_size": 25, "collect_steps_per_iteration": 3}, "minibatch_size is 25, expected at most 24"),
        ({"total_environment_steps": 7}, "total_environment_steps is 7, expected at least num_environments, 8"),
        ({"agent": "kl_penalty", "importance_ratio_clipping": 0.1}, "importance_ratio_clipping is given with agent"),
        ({"collect_steps_per_iteration": 3, "collect_episodes_per_iteration": 3}, "both given"),
    ],
)
def test_contradictions_are_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        combine({}, given)


@pytest.mark.parametrize(
    ("preset", "given", "minibatch_size", "sequences"),
    [
        ({}, {"recurrent": True}, 256, 8),
        ({"minibatch_size": 512}, {"recurrent": True}, 512, 16),
        ({}, {"recurrent": True, "sequence_length": 10}, 80, 8),
        ({}, {"recurrent": True, "minibatch_size": 16}, 16, 1),
        ({"recurrent": True, "minibatch_size": 64}, {}, 64, 2),
        ({}, {}, 64, 64),
    ],
)
def test_minibatches_of_recurrent_networks_are_sequences(
    preset: dict, given: dict, minibatch_size: int, sequences: int
) -> None:
    chosen = combine(preset, given)
    assert (chosen.minibatch_size, chosen.rows_per_minibatch) == (minibatch_size, sequences)


def test_a_memory_without_recurrent_networks_is_refused() -> None:
    with pytest.raises(ValueError, match="memory_units is given without recurrent"):
        combine({}, {"memory_units": 3})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"learning_rate_kl_target": 0.01},
            "learning_rate_schedule is linear, expected constant with learning_rate_kl_target",
        ),
        (
            {"actor_observation_keys": "a", "shared_torso": True},
            "actor_observation_keys is 'a', expected ''",
        ),
        (
            {"value_observation_keys": "a", "shared_fc_layers": (4,)},
            "value_observation_keys is 'a', expected ''",
        ),
    ],
)
def test_settings_that_would_work_against_each_other_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        combine({"learning_rate_schedule": "linear"}, given)


def test_a_rate_that_adapts_replaces_the_schedule_of_a_preset() -> None:
    given = {"learning_rate_kl_target": 0.01, "learning_rate_schedule": "constant"}
    assert combine({"learning_rate_schedule": "linear"}, given).learning_rate_kl_target == 0.01
