"""Callbacks."""

import math
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from reliability import corruptions

from ppo_agent import Trainer, callbacks
from ppo_agent.callbacks.base import HOOKS
from ppo_agent.drivers import TFCartPole

TINY = {
    "num_environments": 2, "collect_steps_per_iteration": 20, "minibatch_size": 20, "num_epochs": 1,
    "actor_fc_layers": (4,), "value_fc_layers": (4,), "preset": "none", "num_eval_episodes": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _without_compilation():
    with corruptions.without_compilation():
        yield


def make(env="CartPole-v1", **settings) -> Trainer:
    return Trainer(env, **{**TINY, **settings})


class Notes:
    """Notes every call; `stop` is the hook that returns False."""

    def __init__(self, stop: str = "") -> None:
        self.calls: list[str] = []
        for hook in HOOKS:
            setattr(self, hook, lambda trainer, hook=hook: self._note(trainer, hook, stop))

    def _note(self, trainer: Trainer, hook: str, stop: str) -> bool | None:
        self.calls.append(hook)
        return False if hook == stop else None


def test_hooks_are_called_in_order() -> None:
    notes = Notes()
    with make(eval_interval=2, callbacks=[notes]) as trainer:
        trainer.train(120)
    without_steps = [call for call in notes.calls if call != "on_step"]
    iteration = ["on_rollout_start", "on_rollout_end", "on_update_end"]
    assert without_steps[:8] == ["on_training_start", *iteration, *iteration, "on_evaluation"]
    assert without_steps[-1] == "on_training_end"
    # A call for each vector step.
    assert notes.calls[:21].count("on_step") >= 18


@pytest.mark.parametrize("hook", ["on_step", "on_rollout_start", "on_rollout_end", "on_update_end"])
def test_false_stops_after_what_is_under_way_has_been_used(hook: str) -> None:
    with make() as trainer:
        trainer.train(10_000, callbacks=[Notes(hook)])
        assert trainer.loop.tally.iterations == 1
        assert trainer.metrics["environment_steps"] == trainer.environment_steps > 0
        trainer.train(40)
        assert trainer.loop.tally.iterations == 2


def test_steps_inside_tensorflow_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    notes = Notes()
    with make(TFCartPole(num_environments=2, seed=0)) as trainer:
        trainer.train(40, callbacks=[notes])
    assert "on_step" not in notes.calls
    assert "on_step is not called" in capsys.readouterr().err


def test_watching_steps_changes_nothing() -> None:
    weights = []
    for extra in ([], [Notes()]):
        with make() as trainer:
            trainer.train(120, callbacks=extra)
            weights.append(trainer.get_parameters())
    for name, array in weights[0].items():
        assert array.tobytes() == weights[1][name].tobytes()


def test_stopping() -> None:
    with make() as trainer:
        trainer.train(10_000, callbacks=[callbacks.StopAfterEpisodes(7)])
        assert 7 <= trainer.num_episodes <= 14
        trainer.train(10_000, callbacks=[callbacks.StopOnReturn(5.0)])
        assert trainer.mean_return >= 5
        trainer.train(10_000, callbacks=[lambda t: t.environment_steps < 900])
        assert 900 <= trainer.environment_steps < 950
    with make(eval_interval=1) as trainer:
        trainer.train(10_000, callbacks=[callbacks.StopOnReturn(1.0, on_evaluations=True)])
        assert trainer.loop.tally.iterations == 1


def test_evaluation_of_its_own_keeps_the_best(tmp_path: Path) -> None:
    kept = callbacks.EvalCallback(every=40, num_episodes=2, best_dir=tmp_path / "best")
    with make() as trainer:
        trainer.train(130, callbacks=[kept])
    assert len(kept.evaluations) in (2, 3)
    assert kept.best_mean == max(found.mean for _, found in kept.evaluations)
    assert tf.saved_model.contains_saved_model(tmp_path / "best")
    assert set(kept.best_parameters) == set(trainer.get_parameters())


def test_checkpoints_and_histograms(tmp_path: Path) -> None:
    with make() as trainer:
        writers = [callbacks.CheckpointCallback(tmp_path / "saved", 40, kept=2)]
        trainer.train(170, callbacks=[*writers, callbacks.HistogramCallback(tmp_path / "events", 40)])
        last = trainer.environment_steps
    assert len(list((tmp_path / "saved" / "checkpoints").iterdir())) == 2
    assert last - 40 <= Trainer.load(tmp_path / "saved").environment_steps <= last
    (path,) = (tmp_path / "events").iterdir()
    tags = {v.tag for e in tf.compat.v1.train.summary_iterator(str(path)) for v in e.summary.value}
    assert {"Experience/action_0", "Experience/reward_0"} <= tags


class Pruned(Exception):
    pass


def test_a_trial_is_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", types.SimpleNamespace(TrialPruned=Pruned))
    reported = []
    trial = types.SimpleNamespace(
        report=lambda value, step: reported.append((value, step)), should_prune=lambda: len(reported) == 2
    )
    with make(eval_interval=1) as trainer:
        with pytest.raises(Pruned):
            trainer.train(1000, callbacks=[callbacks.OptunaPruning(trial)])
        assert [value for value, _ in reported] == [found.mean for _, found in trainer.evaluations]
        assert [step for _, step in reported] == [40, 80]  # Of 25 iterations of 40 steps each, in 1,000.
        assert trainer.loop.tally.iterations == 2


def test_trials_are_compared_though_their_steps_differ() -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=25_000)
    )

    def run(steps_of_an_iteration: int, interval: int, steps: list[int], mean: float) -> int:
        """Reports evaluations of so many steps of 100,000, as a trainer does; returns how many there were."""
        trial = study.ask()
        callback = callbacks.OptunaPruning(trial)
        settings = types.SimpleNamespace(steps_per_iteration=steps_of_an_iteration, eval_interval=interval)
        trainer = types.SimpleNamespace(settings=settings, target_steps=100_000, evaluations=[])
        for number, found in enumerate(steps, 1):
            trainer.evaluations.append((found, types.SimpleNamespace(mean=mean)))
            try:
                callback.on_evaluation(trainer)
            except optuna.TrialPruned:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                return number
        study.tell(trial, mean)
        return len(steps)

    assert run(256, 97, [24_801, 49_630, 74_466, 99_300], 10.0) == 4
    assert run(2048, 12, [24_012, 48_009, 72_031, 96_040], 20.0) == 4
    assert run(512, 49, [25_040, 50_070, 75_100, 99_990], 30.0) == 4
    assert all([*t.intermediate_values] == [25_000, 50_000, 75_000, 100_000] for t in study.trials)
    assert run(1024, 24, [24_460, 48_950, 73_400, 97_800], 15.0) == 1
    assert run(1024, 24, [24_460, 48_950, 73_400, 97_800], 21.0) == 4


def test_trackers_get_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = []
    wandb = types.SimpleNamespace(run=None, init=lambda **k: logged.append(k), finish=lambda: logged.append("end"))
    wandb.log = lambda numbers, step: logged.append((numbers, step))
    monkeypatch.setitem(__import__("sys").modules, "wandb", wandb)
    with make() as trainer:
        trainer.train(60, callbacks=[callbacks.WandbCallback(project="p", results=False)])
    assert logged[0]["config"]["num_environments"] == 2
    assert logged[0]["project"] == "p"
    numbers, step = logged[1]
    assert step == numbers["environment_steps"]
    assert not any(math.isnan(value) for value in numbers.values())
    assert logged[-1] == "end"


@pytest.mark.parametrize("name", ["WandbCallback", "MLflowCallback"])
def test_a_missing_package_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = name.removesuffix("Callback").lower()
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ImportError, match=f"{name} needs {module}, which is not installed"):
        getattr(callbacks, name)()


@pytest.mark.parametrize("returned", [False, np.bool_(False), np.array([1.0]).mean() > 2])
def test_false_of_numpy_stops_too(returned) -> None:
    with make() as trainer:
        trainer.train(10_000, callbacks=[lambda _: returned])
        assert trainer.loop.tally.iterations == 1


@pytest.mark.parametrize("returned", [None, 0, np.float32(0.0), "", [], np.bool_(True)])
def test_nothing_else_stops(returned) -> None:
    with make() as trainer:
        trainer.train(120, callbacks=[lambda _: returned])
        assert trainer.loop.tally.iterations > 1


@pytest.mark.parametrize("given", [None, 3, lambda trainer: None, callbacks.StopAfterEpisodes(1)])
def test_callbacks_are_a_list(given) -> None:
    message = "callbacks is .*, expected a list of callbacks"
    with pytest.raises(TypeError, match=message):
        make(callbacks=given)
    with make() as trainer:
        with pytest.raises(TypeError, match=message):
            trainer.train(40, callbacks=given)
        assert trainer.environment_steps == 0
        trainer.train(40, callbacks=iter([Notes()]))


def test_training_does_not_train_again_within_itself() -> None:
    with make() as trainer:
        with pytest.raises(callbacks.CallbackError, match="train is called by a callback of train, expected it when"):
            trainer.train(40, callbacks=[lambda t: t.train(40)])
        assert trainer.loop.tally.iterations == 1
        trainer.train(40)
        assert trainer.loop.tally.iterations == 2


@pytest.mark.parametrize(
    ("make_callback", "message"),
    [
        (lambda: callbacks.StopOnReturn("x"), "threshold is 'x', expected a finite number"),
        (lambda: callbacks.StopOnReturn(math.nan), "threshold is nan, expected a finite number"),
        (lambda: callbacks.HistogramCallback("x", images=-1), "images is -1, expected an int of at least 0"),
    ],
)
def test_arguments_of_ready_made_ones(make_callback, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_callback()
