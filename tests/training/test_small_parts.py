"""Schedules, clock and progress bar."""

import time
import types

import pytest

from ppo_agent.callbacks import ProgressBar
from ppo_agent.maths.schedules import make_schedule
from ppo_agent.training import tally
from ppo_agent.training.experiment import ScheduledValue, scheduled_values
from ppo_agent.training.settings import combine


def test_schedules() -> None:
    assert [make_schedule("constant", 0.3)(done) for done in (0.0, 0.5, 1.0)] == [0.3] * 3
    assert [make_schedule("linear", 0.4)(done) for done in (0.0, 0.25, 1.0, 1.1)] == pytest.approx([0.4, 0.3, 0.0, 0.0])
    cosine = [make_schedule("cosine", 0.4)(done) for done in (0.0, 0.25, 0.5, 1.0, 1.1)]
    assert cosine == pytest.approx([0.4, 0.2 * (1 + 2**-0.5), 0.2, 0.0, 0.0])
    shares = (0.0, 0.02, 0.05, 0.525, 1.0)
    assert [make_schedule("warmup_constant", 0.5)(done) for done in shares] == pytest.approx([0.0, 0.2, 0.5, 0.5, 0.5])
    assert [make_schedule("warmup_linear", 0.5)(done) for done in shares] == pytest.approx([0.0, 0.2, 0.5, 0.25, 0.0])
    assert [make_schedule("warmup_cosine", 0.5)(done) for done in shares] == pytest.approx([0.0, 0.2, 0.5, 0.25, 0.0])
    with pytest.raises(ValueError, match="'sine', expected constant or linear or cosine or warmup_constant or"):
        make_schedule("sine", 0.1)


def test_a_scheduled_value_follows_its_schedule() -> None:
    value = ScheduledValue("linear", 0.4)
    assert float(value()) == pytest.approx(0.4)
    value.update(0.75)
    assert float(value()) == pytest.approx(0.1)


def test_settings_tell_what_changes_over_a_run() -> None:
    assert scheduled_values(combine({}, {})) == {}
    linear = {f"{name}_schedule": "linear" for name in ("importance_ratio_clipping", "entropy_regularization")}
    values = scheduled_values(combine({}, {**linear, "entropy_regularization": 0.3}))
    assert {name: round(float(value()), 6) for name, value in values.items()} == {
        "entropy_regularization": 0.3,
        "importance_ratio_clipping": 0.2,
    }
    rates = scheduled_values(combine({}, {"learning_rate_schedule": "cosine", "value_clipping_schedule": "linear"}))
    assert set(rates) == {"learning_rate"}  # A value clipping of 0 is off and stays off.
    # A preset's clipping is of no use to the other agent.
    assert set(scheduled_values(combine(linear, {"agent": "kl_penalty"}))) == {"entropy_regularization"}


def test_clock_goes_from_the_start_of_the_process() -> None:
    age = tally.seconds_since_process_start()
    time.sleep(0.02)
    assert 0.02 <= tally.seconds_since_process_start() - age < 5
    assert tally._AGE_AT_IMPORT >= 0


def test_progress_bar_shows_return_and_speed(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = types.SimpleNamespace(environment_steps=10, target_steps=100, mean_return=float("nan"))
    bar = ProgressBar()
    bar.on_training_start(trainer)
    trainer.environment_steps = 30
    bar.on_update_end(trainer)
    time.sleep(0.15)
    trainer.environment_steps, trainer.mean_return = 60, 12.34
    bar.on_update_end(trainer)
    bar.on_training_end(trainer)
    text = capsys.readouterr().err
    assert "60/100" in text.replace(".0", "")
    assert "return 12.3" in text
    assert "steps/s" in text
