"""One run of `ppo-train`, from its flags to its files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from ppo_agent import checkpoint, presets
from ppo_agent.export import export_policy, export_policy_saver
from ppo_agent.training import experiment, settings
from ppo_agent.training.command_line import FlagError, Interrupted, mistakes_are_flag_errors, say
from ppo_agent.training.interrupts import InterruptGuard
from ppo_agent.training.loop import LoopOptions, TrainingLoop
from ppo_agent.training.plotting import plot_learning_curve
from ppo_agent.training.progress import ProgressBar
from ppo_agent.training.run_directory import RunDirectory, write_json
from ppo_agent.training.settings import Settings


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        env_name: a gymnasium id.
        preset: its name, see `presets.check_name`.
        given: settings given as flags, by name.
        seed: of everything that is random.
        eval_interval: iterations between evaluations; 0 for none before the end.
        num_eval_episodes: episodes of an evaluation.
        checkpoint_interval: iterations between checkpoints; 0 for none before the end.
        resume: go on with the run in the folder.
        progress: show a progress bar.
    """

    env_name: str
    preset: str
    given: Mapping[str, Any]
    seed: int
    eval_interval: int
    num_eval_episodes: int
    checkpoint_interval: int
    resume: bool
    progress: bool


def train(request: Request, directory: RunDirectory) -> int:
    """Trains, evaluates, exports and writes everything down.

    Args:
        request: what the command line asks for.
        directory: where to write, checked.

    Returns:
        The exit status: 0, or 128 + n when signal n ended the run.

    Raises:
        FlagError: a flag does not fit the environment; nothing has been written.
    """
    with InterruptGuard() as guard:
        with mistakes_are_flag_errors():
            source, chosen = choose_settings(request, directory)
            parts = experiment.build(request.env_name, chosen, _seed_of_process(request, directory))
        try:
            loop = TrainingLoop(parts, _loop_options(request, chosen), directory, guard)
            return _run(request, directory, source, chosen, loop)
        finally:
            parts.env.close()


def choose_settings(request: Request, directory: RunDirectory) -> tuple[str, Settings]:
    """The settings of the run and, in words, where they come from.

    Raises:
        ValueError: they do not fit one another, or there is no such environment.
    """
    if request.resume:
        return "settings of the resumed run", settings.combine(_saved(directory)["settings"], request.given)
    name = request.env_name if request.preset == presets.AUTO else request.preset
    preset = presets.find(name)
    if preset is not None:
        return f"preset {presets.family(name)}", settings.combine(preset.settings, request.given)
    if request.preset == presets.NONE:
        return "no preset", settings.combine({}, request.given)
    preset = experiment.general_preset(request.env_name)
    return "general settings", settings.combine(preset.settings, request.given)


def resumed_request(request: Request, directory: RunDirectory, given: set[str]) -> Request:
    """The request with what the resumed run was started with, where the command line says nothing.

    Args:
        request: what the command line asks for.
        directory: of the run.
        given: names of the flags on the command line.

    Raises:
        FlagError: the run trained in another environment.
    """
    saved = _saved(directory)
    if "env_name" in given and request.env_name != saved["env_name"]:
        raise FlagError(f"env_name is {request.env_name!r}, expected {saved['env_name']!r}, which the run trains in.")
    seed = request.seed if "seed" in given else saved["seed"]
    return dataclasses.replace(request, env_name=saved["env_name"], seed=seed)


def _run(request: Request, directory: RunDirectory, source: str, chosen: Settings, loop: TrainingLoop) -> int:
    if request.resume and not loop.resume():
        say(f"{directory.path} holds no checkpoint: the run starts anew.")
    directory.create()
    _write_settings(request, directory, chosen)
    say(f"Training in {request.env_name} ({source}), writing to {directory.path}")
    signal_number = 0
    try:
        with ProgressBar(request.progress, chosen.total_environment_steps, loop.environment_steps) as progress:
            loop.run(progress)
    except Interrupted as interrupt:
        signal_number = interrupt.signal_number
        say("Interrupted: saving what was learnt ...")
    result = _finish(request, directory, loop, interrupted=signal_number != 0)
    say(_summary(result, directory))
    return 128 + signal_number if signal_number else 0


def _finish(request: Request, directory: RunDirectory, loop: TrainingLoop, *, interrupted: bool) -> dict[str, Any]:
    """Saves, exports and reports; the most precious comes first."""
    loop.save()
    loop.close()
    policy = loop.agent.policy
    export_policy(policy, directory.policy)
    result = _result(request, loop, interrupted=interrupted)
    write_json(directory.result, result)
    with _quiet():
        export_policy_saver(policy, directory.policy_saver)
    title = f"PPO on {request.env_name}, seed {request.seed}"
    plot_learning_curve(directory.learning_curve, title, loop.table.read(), loop.tally.evaluations)
    result["wall_time_s"] = round(loop.wall_time(), 3)
    write_json(directory.result, result)
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


def _result(request: Request, loop: TrainingLoop, *, interrupted: bool) -> dict[str, Any]:
    tally = loop.tally
    mean, std = (None, None) if interrupted else tally.evaluations[-1][1:]
    return {
        "env_name": request.env_name,
        "seed": request.seed,
        "environment_steps": loop.environment_steps,
        "iterations": tally.iterations,
        "train_steps": int(loop.agent.train_step_counter),
        "wall_time_s": round(loop.wall_time(), 3),
        "start_up_time_s": round(tally.start_up_time_s, 3),
        "steps_per_second": round(_steps_per_second(loop), 1),
        "collect_time_s": round(tally.collect_time_s, 3),
        "train_time_s": round(tally.train_time_s, 3),
        "final_train_return_mean": _known(loop.final_train_return_mean),
        "eval_return_mean": mean,
        "eval_return_std": std,
        "num_eval_episodes": 0 if interrupted else request.num_eval_episodes,
        "interrupted": interrupted,
    }


def _steps_per_second(loop: TrainingLoop) -> float:
    """After the first iteration; over the whole of a run that has only one."""
    tally = loop.tally
    if tally.timed_s > 0:
        return tally.timed_steps / tally.timed_s
    seconds = tally.collect_time_s + tally.train_time_s
    return loop.environment_steps / seconds if seconds else 0.0


def _summary(result: Mapping[str, Any], directory: RunDirectory) -> str:
    steps = f"{result['environment_steps']:,} environment steps in {result['wall_time_s']:.1f} s"
    if result["interrupted"]:
        return f"Interrupted after {steps}; what was learnt is in {directory.path} (--resume goes on with it)"
    score = f"{result['eval_return_mean']:.1f} +- {result['eval_return_std']:.1f}"
    return (
        f"Return {score} over {result['num_eval_episodes']} episodes after {steps}; everything is in {directory.path}"
    )


def _known(value: float) -> float | None:
    """None for NaN, which JSON does not know."""
    return None if math.isnan(value) else value


def _write_settings(request: Request, directory: RunDirectory, chosen: Settings) -> None:
    values = {"env_name": request.env_name, "seed": request.seed, "settings": dataclasses.asdict(chosen)}
    write_json(directory.settings, values)


def _saved(directory: RunDirectory) -> dict[str, Any]:
    return json.loads(directory.settings.read_text(encoding="utf-8"))


def _seed_of_process(request: Request, directory: RunDirectory) -> int:
    """The run's seed; after a resume another one, or the environments would start with the same episodes again."""
    return request.seed + (checkpoint.saved_steps(directory.checkpoints) if request.resume else 0)


def _loop_options(request: Request, chosen: Settings) -> LoopOptions:
    return LoopOptions(
        env_name=request.env_name,
        seed=request.seed,
        total_environment_steps=chosen.total_environment_steps,
        eval_interval=request.eval_interval,
        num_eval_episodes=request.num_eval_episodes,
        checkpoint_interval=request.checkpoint_interval,
    )
