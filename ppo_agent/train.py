"""Trains a policy with PPO in a gymnasium environment.

    ppo-train --env_name=CartPole-v1

Writes the trained policy, metrics, events, checkpoints and a learning curve into --root_dir, see the README. Known
environments are trained with tuned settings, their preset; flags on the command line beat those. The defaults that
the flags' help shows apply where a preset says nothing, or with --preset=none.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ppo_agent import _stack, presets
from ppo_agent.common import compilation_cache
from ppo_agent.common.limits import LARGEST_INT32
from ppo_agent.training import command_line, preset_files, setting_flags, settings
from ppo_agent.training import tally as _tally  # noqa: F401 - Looks at the clock when it is imported.
from ppo_agent.training.command_line import FlagError, Interrupted, say
from ppo_agent.training.interrupts import InterruptGuard
from ppo_agent.training.run_directory import RunDirectory, default_root_dir

if TYPE_CHECKING:
    from ppo_agent.trainer import Trainer

_PROGRAM = "ppo-train"


def cli() -> None:
    """Runs the program and exits with its status."""
    command_line.find_modules_here()
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; command line and exit status are those of `command_line.run`."""
    flag_values = define_flags()
    return command_line.run(_PROGRAM, __doc__ or "", flag_values, lambda: _main(flag_values), argv)


def define_flags() -> flags.FlagValues:
    """The program's flags, apart from those of other programs in this process."""
    values = flags.FlagValues()
    own: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_string(
        "env_name",
        "CartPole-v1",
        "Whatever gymnasium.make takes, module:Name-v0 included; or TFCartPole, TFPendulum or TFAcrobot, which run in "
        "TensorFlow operations, compiled with the policy.",
        **own,
    )
    flags.DEFINE_string("root_dir", "", "Folder to write into; empty: runs/ENV/TIME.", **own)
    flags.DEFINE_string(
        "preset", presets.AUTO, "auto: of the environment, or general ones; none; a name; or a JSON file.", **own
    )
    setting_flags.define_integer(values, "seed", 0, "Of all that is random.", lower_bound=0, upper_bound=LARGEST_INT32)
    setting_flags.define_flags(values)
    flags.DEFINE_bool(
        "resume",
        False,
        "Continue the run in root_dir, from its newest sound checkpoint and with its settings; of these "
        f"{', '.join(settings.MAY_CHANGE)} may be given again.",
        **own,
    )
    flags.DEFINE_string(
        "compilation_cache",
        "",
        "Folder of compiled programs, which later runs load instead of compiling them; off: none; empty: "
        f"${compilation_cache.VARIABLE}, or the user's cache folder.",
        **own,
    )
    flags.DEFINE_string(
        "warm_start", "", "Folder of another run whose networks and normalisers this one starts with.", **own
    )
    flags.DEFINE_string(
        "pretrain", "", "Recorded episodes (.npz, TFRecords, a Minari folder) to clone before training.", **own
    )
    flags.DEFINE_multi_string("gin_file", [], "Gin files with values for settings, as PPOAgent.x = 1.", **own)
    flags.DEFINE_multi_string("gin_binding", [], "Gin bindings, likewise; flags beat them.", **own)
    flags.DEFINE_bool("progress", True, "Show a progress bar; unless given, only on a terminal.", **own)
    command_line.define_common_flags(values)
    return values


def _main(flag_values: flags.FlagValues) -> int:
    values: dict[str, Any] = flag_values.flag_values_dict()
    given = setting_flags.given_flags(flag_values)
    if values["resume"] and not values["root_dir"]:
        raise FlagError("root_dir is empty, expected the folder of the run to resume.")
    with command_line.mistakes_are_flag_errors():
        preset_files.check(values["preset"])
        settings.check_given(given)
        root_dir = values["root_dir"] or default_root_dir(values["env_name"])
        RunDirectory(root_dir).check(values["resume"])
    with InterruptGuard():
        compilation_cache.use(values["compilation_cache"])
        _stack.import_tensorflow()
        with command_line.mistakes_are_flag_errors():
            given = {**_from_gin(values), **given}
            trainer = _resume(flag_values, values, given) if values["resume"] else _begin(values, root_dir, given)
        with trainer:
            return _train(trainer, values["progress"] and (flag_values["progress"].present > 0 or _is_terminal()))


def _begin(values: Mapping[str, Any], root_dir: str | Path, given: Mapping[str, Any]) -> Trainer:
    """A new run.

    Raises:
        ValueError: a flag does not fit; nothing was written.
    """
    # Imported here: a wrong flag should not wait for TensorFlow.
    from ppo_agent.trainer import Trainer

    trainer = Trainer(values["env_name"], seed=values["seed"], root_dir=root_dir, preset=values["preset"], **given)
    if values["warm_start"]:
        loaded, skipped = _warm_start(trainer, values["warm_start"])
        reasons = f"; not {', '.join(f'{name} ({reason})' for name, reason in skipped.items())}" if skipped else ""
        say(f"Starting with {len(loaded)} variables of {values['warm_start']}{reasons}")
    if values["pretrain"]:
        say(str(trainer.pretrain(values["pretrain"])))
    return trainer


def _warm_start(trainer: Trainer, path: str) -> tuple[list[str], dict[str, str]]:
    """What is taken over of another run, and why the rest is not.

    Raises:
        ValueError: nothing is.
    """
    from ppo_agent.checkpoint import CheckpointError

    try:
        return trainer.load_parameters(path, exact_match=False)
    except (CheckpointError, ValueError) as error:
        raise FlagError(f"warm_start is {path!r}, expected a run with an agent like this one: {error}") from error


def _resume(flag_values: flags.FlagValues, values: Mapping[str, Any], given: Mapping[str, Any]) -> Trainer:
    """The run in the folder.

    Raises:
        ValueError: it is in use, or the command line asks for something that cannot change now.
        CheckpointError: there is nothing to continue from.
    """
    from ppo_agent.trainer import Trainer
    from ppo_agent.training import loading

    asked = {name: values[name] for name in ("env_name", "seed") if flag_values[name].present}
    root_dir = values["root_dir"]
    return loading.load(Trainer, root_dir, None, None, root_dir, [], {**asked, **given})


def _from_gin(values: Mapping[str, Any]) -> dict[str, Any]:
    if not values["gin_file"] and not values["gin_binding"]:
        return {}
    from ppo_agent.training import gin_settings

    return gin_settings.read(values["gin_file"], values["gin_binding"])


def _train(trainer: Trainer, progress: bool) -> int:
    from ppo_agent.callbacks import ProgressBar

    directory = trainer.recorder.directory.path if trainer.recorder else ""
    say(f"Training in {trainer.env_name} ({trainer.source}), writing to {directory}")
    status = 0
    try:
        trainer.train(callbacks=[ProgressBar()] if progress else [])
    except Interrupted as interrupt:
        status = 128 + interrupt.signal_number
    say(_summary(trainer.result or {}, directory))
    return status


def _summary(result: Mapping[str, Any], directory: Any) -> str:
    steps = f"{result['environment_steps']:,} environment steps in {result['wall_time_s']:.1f} s"
    if result["interrupted"]:
        return f"Interrupted after {steps}; what was learnt is in {directory} (--resume continues it)"
    score = f"{result['eval_return_mean']:.1f} +- {result['eval_return_std']:.1f}"
    return f"Return {score} over {result['num_eval_episodes']} episodes after {steps}; everything is in {directory}"


def _is_terminal() -> bool:
    return sys.stderr.isatty()


if __name__ == "__main__":
    cli()
