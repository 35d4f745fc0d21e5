"""One run of `ppo-train`, from its flags to its files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ppo_agent import presets
from ppo_agent.checkpoint import CheckpointError, CheckpointStore
from ppo_agent.checkpoint.descriptions import differences
from ppo_agent.checkpoint.store import Loaded
from ppo_agent.export import export_policy, export_policy_saver
from ppo_agent.training import experiment, named_environments, settings
from ppo_agent.training.command_line import FlagError, Interrupted, mistakes_are_flag_errors, say, warn
from ppo_agent.training.interrupts import InterruptGuard
from ppo_agent.training.loop import LoopOptions, TrainingLoop
from ppo_agent.training.plotting import plot_learning_curve
from ppo_agent.training.progress import ProgressBar
from ppo_agent.training.run_directory import RunDirectory, write_json
from ppo_agent.training.run_failures import FAILURES, told
from ppo_agent.training.settings import Settings


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        env_name: see `environments.make_training_environment`.
        preset: its name, see `presets.check_name`.
        given: settings given as flags, by name.
        seed: of everything that is random.
        eval_interval: iterations between evaluations; 0 for none before the end.
        num_eval_episodes: episodes of an evaluation.
        checkpoint_interval: iterations between checkpoints; 0 for none but the first and the last.
        checkpoints_kept: how many of the last checkpoints stay; the best by evaluation stays too.
        resume: go on with the run in the folder.
        progress: show a progress bar.
        present: names of the flags on the command line.
    """

    env_name: str
    preset: str
    given: Mapping[str, Any]
    seed: int
    eval_interval: int
    num_eval_episodes: int
    checkpoint_interval: int
    checkpoints_kept: int
    resume: bool
    progress: bool
    present: Collection[str]


class Start(NamedTuple):
    """What a run starts with.

    Attributes:
        request: what was asked for, by this command line or that of the resumed run.
        source: in words, where the settings come from.
        settings: of the run.
        loaded: the checkpoint to go on from, if any.
    """

    request: Request
    source: str
    settings: Settings
    loaded: Loaded | None


def train(request: Request, directory: RunDirectory, guard: InterruptGuard) -> int:
    """Trains, evaluates, exports and writes everything down.

    Args:
        request: what the command line asks for.
        directory: where to write, checked.
        guard: entered; holds signals back while the state changes.

    Returns:
        The exit status: 0, or 128 + n when signal n ended the run.

    Raises:
        FlagError: a flag does not fit the environment, or the run to resume; nothing has been written.
        CheckpointError: there is no checkpoint that could be resumed from; nothing has been written.
        OSError: the checkpoint at the end could not be written.
    """
    with mistakes_are_flag_errors():
        store = CheckpointStore(directory.checkpoints, request.checkpoints_kept, warn)
        start = _resume(request, directory, store) if request.resume else _begin(request)
        steps_before = 0 if start.loaded is None else start.loaded.manifest.step
        parts = experiment.build(start.request.env_name, start.settings, start.request.seed, steps_before)
    with contextlib.closing(parts.env):
        loop = TrainingLoop(parts, _loop_options(start), directory, guard, store)
        if start.loaded is not None:
            with mistakes_are_flag_errors():
                loop.resume(start.loaded)
        return _run(start, directory, loop)


def _begin(request: Request) -> Start:
    """A new run.

    Raises:
        ValueError: its settings do not fit one another, or there is no such environment.
    """
    env_name = named_environments.gymnasium_name(request.env_name)
    name = env_name if request.preset == presets.AUTO else request.preset
    preset = presets.find(name)
    if preset is not None:
        chosen = settings.combine(preset.settings, request.given)
        return Start(request, f"preset {presets.family(name)}", chosen, None)
    if request.preset == presets.NONE:
        return Start(request, "no preset", settings.combine({}, request.given), None)
    preset = experiment.general_preset(env_name)
    return Start(request, "general settings", settings.combine(preset.settings, request.given), None)


def _resume(request: Request, directory: RunDirectory, store: CheckpointStore) -> Start:
    """The run in the folder, with what it was started with where the command line says nothing.

    Raises:
        FlagError: another run is using the folder, or the command line asks for something that cannot change now.
        CheckpointError: there is nothing to go on from.
    """
    directory.lock()
    loaded = store.newest_sound()
    if loaded is None and directory.has_trained:
        raise CheckpointError(f"{directory.checkpoints} holds no checkpoint, though the run has trained.")
    saved = _read_settings(directory) if loaded is None else loaded.manifest.hyper_parameters["run"]
    asked = {"env_name": request.env_name, "seed": request.seed}
    asked = {name: value for name, value in asked.items() if name in request.present}
    fixed = {name: value for name, value in request.given.items() if name not in settings.MAY_CHANGE}
    known = {name: saved["settings"].get(name) for name in fixed}
    if found := differences({**asked, **fixed}, {**{name: saved[name] for name in asked}, **known}):
        raise FlagError(
            f"the run in {directory.path} cannot be resumed with other settings: {'; '.join(found)} "
            f"({', '.join(settings.MAY_CHANGE)} may change)."
        )
    if loaded is None:
        say(f"{directory.path} holds no checkpoint: the run starts anew.")
    given = {name: value for name, value in request.given.items() if name in settings.MAY_CHANGE}
    request = dataclasses.replace(request, env_name=saved["env_name"], seed=saved["seed"])
    return Start(request, "settings of the resumed run", settings.combine(saved["settings"], given), loaded)


def _read_settings(directory: RunDirectory) -> dict[str, Any]:
    try:
        saved = json.loads(directory.settings.read_text(encoding="utf-8"))
        return {name: saved[name] for name in ("env_name", "seed", "settings")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{directory.path} holds neither a checkpoint nor a settings.json to start from."
        ) from error


def _run(start: Start, directory: RunDirectory, loop: TrainingLoop) -> int:
    request = start.request
    directory.create(request.resume)
    write_json(directory.settings, _run_parameters(start))
    loop.save()
    say(f"Training in {request.env_name} ({start.source}), writing to {directory.path}")
    signal_number = 0
    try:
        total = start.settings.total_environment_steps
        with ProgressBar(request.progress, total, loop.environment_steps) as progress:
            loop.run(progress)
    except Interrupted as interrupt:
        signal_number = interrupt.signal_number
        say("Interrupted: saving what was learnt ...")
    except FAILURES as error:
        is_saved = loop.save()
        loop.close()
        raise told(error, directory, is_saved) from error
    result = _finish(request, directory, loop, interrupted=signal_number != 0)
    say(_summary(result, directory))
    return 128 + signal_number if signal_number else 0


def _finish(request: Request, directory: RunDirectory, loop: TrainingLoop, *, interrupted: bool) -> dict[str, Any]:
    """Saves, exports and reports; the most precious comes first."""
    is_saved = loop.save()
    loop.close()
    policy = loop.agent.policy
    export_policy(policy, directory.policy)
    result = {**loop.result(finished=not interrupted), "interrupted": interrupted}
    write_json(directory.result, result)
    with _quiet():
        export_policy_saver(policy, directory.policy_saver)
    title = f"PPO on {request.env_name}, seed {request.seed}"
    plot_learning_curve(directory.learning_curve, title, loop.table.read(), loop.tally.evaluations)
    result["wall_time_s"] = round(loop.wall_time(), 3)
    write_json(directory.result, result)
    if not is_saved:
        raise CheckpointError(f"{directory.checkpoints}: the last checkpoint could not be written.")
    return result


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what TensorFlow says about names and types in TF-Agents' own format, which is as it has to be."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _summary(result: Mapping[str, Any], directory: RunDirectory) -> str:
    steps = f"{result['environment_steps']:,} environment steps in {result['wall_time_s']:.1f} s"
    if result["interrupted"]:
        return f"Interrupted after {steps}; what was learnt is in {directory.path} (--resume goes on with it)"
    score = f"{result['eval_return_mean']:.1f} +- {result['eval_return_std']:.1f}"
    return (
        f"Return {score} over {result['num_eval_episodes']} episodes after {steps}; everything is in {directory.path}"
    )


def _run_parameters(start: Start) -> dict[str, Any]:
    """What a run can be resumed with."""
    request, chosen = start.request, dataclasses.asdict(start.settings)
    return {"env_name": request.env_name, "seed": request.seed, "settings": chosen}


def _loop_options(start: Start) -> LoopOptions:
    request = start.request
    return LoopOptions(
        env_name=request.env_name,
        seed=request.seed,
        total_environment_steps=start.settings.total_environment_steps,
        eval_interval=request.eval_interval,
        num_eval_episodes=request.num_eval_episodes,
        checkpoint_interval=request.checkpoint_interval,
        limits=start.settings.limits,
        hyper_parameters={"run": _run_parameters(start)},
    )
