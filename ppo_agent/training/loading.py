"""A trainer from what another one has written."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ppo_agent.checkpoint import CheckpointError, CheckpointMismatchError, CheckpointStore
from ppo_agent.checkpoint.descriptions import differences
from ppo_agent.checkpoint.manifest import DamagedError
from ppo_agent.checkpoint.store import Loaded
from ppo_agent.training import choosing, saved_run
from ppo_agent.training.command_line import say, warn
from ppo_agent.training.experiment import Learner, make_learner
from ppo_agent.training.global_state import seed_everything, use_threads
from ppo_agent.training.named_environments import EnvLike
from ppo_agent.training.recorder import RunRecorder
from ppo_agent.training.run_directory import RunDirectory
from ppo_agent.training.saved_run import SavedRun
from ppo_agent.training.settings import MAY_CHANGE

if TYPE_CHECKING:
    from ppo_agent.trainer import Trainer


class _Asked(NamedTuple):
    """What a trainer is loaded for, in place of what was saved; `is_continued`: its own folder is written further."""

    cls: type[Trainer]
    env: EnvLike
    agent: Any
    callbacks: list[Any]
    given: Mapping[str, Any]
    is_continued: bool

    @property
    def changes(self) -> dict[str, Any]:
        """Settings that a loaded run may have otherwise."""
        return {name: value for name, value in self.given.items() if name in MAY_CHANGE}


def load(
    cls: type[Trainer],
    path: Any,
    env: EnvLike,
    agent: Any,
    root_dir: Any,
    callbacks: list[Any],
    given: Mapping[str, Any],
) -> Trainer:
    """See `Trainer.load`; `given` may hold `env_name` and `seed`, which must be those of the run."""
    source, target = RunDirectory(path), None
    if not source.path.is_dir():
        raise ValueError(f"path is {str(path)!r}, expected the folder of a run or of a saved trainer.")
    source.check(resume=True)
    is_continued = root_dir is not None and Path(root_dir).resolve() == source.path.resolve()
    if root_dir is not None:
        target = RunDirectory(root_dir)
        target.check(resume=is_continued)
    with contextlib.ExitStack() as stack:
        if is_continued and target is not None:
            target.lock()
            stack.callback(target.release)
        trainer = _from_checkpoints(_Asked(cls, env, agent, callbacks, given, is_continued), source)
        stack.pop_all()
    if target is not None:
        trainer.recorder = RunRecorder(target, trainer.settings.checkpoints_kept, is_resumed=is_continued)
        if is_continued:
            trainer.recorder.resumed(trainer)
    return trainer


def _from_checkpoints(asked: _Asked, source: RunDirectory) -> Trainer:
    """A trainer with the state of the newest checkpoint that can be used; a new one if none was written yet."""
    store = CheckpointStore(source.checkpoints, asked.given.get("checkpoints_kept", 3), warn)
    accepted: list[Trainer] = []

    def accept(loaded: Loaded) -> None:
        run = saved_run.of_checkpoint(loaded)
        _check_changes(source.path, run, asked.given)
        accepted[:] = [_restored(asked, run, loaded)]

    if store.newest_sound(accept) is None:
        if not asked.is_continued or source.has_trained:
            raise CheckpointError(f"{source.checkpoints} holds no checkpoint, though the run has trained.")
        run = _of_settings(source)
        _check_changes(source.path, run, asked.given)
        say(f"{source.path} holds no checkpoint: the run begins again.")
        accepted.append(_with_environment(_bare(asked, run), asked, run))
    return accepted[0]


def _check_changes(path: Path, run: SavedRun, given: Mapping[str, Any]) -> None:
    """Raises ValueError if settings were given that a loaded run cannot change."""
    known = {"env_name": run.env_name, "seed": run.seed, **vars(run.settings)}
    fixed = {name: value for name, value in given.items() if name not in MAY_CHANGE}
    if found := differences(fixed, {name: known.get(name) for name in fixed}):
        raise ValueError(
            f"the run in {path} cannot be resumed with other settings: {'; '.join(found)} "
            f"({', '.join(MAY_CHANGE)} may change)."
        )


def _of_settings(source: RunDirectory) -> SavedRun:
    try:
        return saved_run.of_folder(source.settings)
    except ValueError as error:
        raise CheckpointError(
            f"{source.path} holds neither a checkpoint nor a settings.json to start from: {error}"
        ) from error


def _restored(asked: _Asked, run: SavedRun, loaded: Loaded) -> Trainer:
    """A trainer with the state of a checkpoint.

    Raises:
        DamagedError: the checkpoint holds something that nothing can continue from.
        CheckpointMismatchError: it does not fit the environment or the agent that was given.
    """
    trainer = _bare(asked, run)
    trainer._steps_before = loaded.manifest.step
    without: tuple[str, ...] = ()
    if asked.is_continued or asked.agent is not None or run.observation_spec is None:
        _with_environment(trainer, asked, run)
    else:
        trainer._use(_learner(run, run.time_step_spec, run.action_spec, asked.agent, trainer))
        trainer._pending, without = loaded, ("collector", "environment")
    if "collector" not in loaded.state:
        trainer.loop.collector, trainer._pending = None, None
    checkpoint = trainer.checkpoint(CheckpointStore(loaded.path.parent))
    try:
        checkpoint.take_over(loaded, without=without)
    except CheckpointMismatchError as error:
        trainer.close()
        # The agent was made as the checkpoint says, so that it is the checkpoint which is odd.
        if asked.agent is None and asked.env is None:
            raise DamagedError(str(error).removeprefix(f"{loaded.path} ").rstrip(".")) from error
        raise
    return trainer


def _bare(asked: _Asked, run: SavedRun) -> Trainer:
    """A trainer without an agent."""
    settings = choosing.with_changes(run.settings, asked.changes)
    use_threads(settings.num_threads)
    seed_everything(run.seed)
    trainer = asked.cls.__new__(asked.cls)
    env = run.env_name if asked.env is None else asked.env
    trainer._start(env, run.seed, settings, "settings of the resumed run", asked.callbacks)
    trainer._own_agent, trainer._saved_encoding = run.own_agent, run.action_encoding
    return trainer


def _with_environment(trainer: Trainer, asked: _Asked, run: SavedRun) -> Trainer:
    """The trainer with its environments and an agent that is made for them."""
    made = trainer.env
    trainer._use(_learner(run, made.time_step_spec(), made.action_spec(), asked.agent, trainer))
    trainer._get_collector()
    return trainer


def _learner(run: SavedRun, time_step_spec: Any, action_spec: Any, agent: Any, trainer: Any) -> Learner:
    if choosing.is_maker(agent):
        agent = choosing.made_by(agent, time_step_spec, action_spec)
    if agent is not None:
        return Learner(agent)
    if run.own_agent:
        raise ValueError("agent is None, expected one: the saved trainer was given a ready agent.")
    return make_learner(time_step_spec, action_spec, trainer.settings)
