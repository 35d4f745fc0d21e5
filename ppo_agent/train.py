"""Trains a policy with PPO in a gymnasium environment.

    ppo-train --env_name=CartPole-v1

Writes the trained policy, metrics, events, checkpoints and a learning curve into --root_dir, see the README. Known
environments are trained with tuned settings, their preset; flags on the command line beat those. The defaults that
the flags' help shows apply where a preset says nothing, or with --preset=none.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from ppo_agent import _stack, presets
from ppo_agent.common import compilation_cache
from ppo_agent.training import clock as _clock  # noqa: F401 - Looks at the clock when it is imported.
from ppo_agent.training import settings
from ppo_agent.training.command_line import FlagError, define_common_flags, mistakes_are_flag_errors, run
from ppo_agent.training.interrupts import InterruptGuard
from ppo_agent.training.progress import is_terminal
from ppo_agent.training.run_directory import RunDirectory, default_root_dir

_PROGRAM = "ppo-train"
_LARGEST_SEED = 2**31 - 1
_REQUESTED = (
    "env_name", "preset", "seed", "eval_interval", "num_eval_episodes", "checkpoint_interval", "checkpoints_kept",
    "resume",
)  # fmt: skip


def cli() -> None:
    """Runs the program and exits with its status."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Args:
        argv: command line with the program's name first; None for that of the process.

    Returns:
        The exit status: 0 done, 1 an error at run time, 2 a wrong flag, 128 + n ended by signal n.
    """
    flag_values = define_flags()
    return run(_PROGRAM, __doc__ or "", flag_values, lambda: _main(flag_values), argv)


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
    flags.DEFINE_string("preset", presets.AUTO, "auto: of the environment, or general ones; none; or a name.", **own)
    flags.DEFINE_integer("seed", 0, "Of all that is random.", lower_bound=0, upper_bound=_LARGEST_SEED, **own)
    settings.define_flags(values)
    flags.DEFINE_integer(
        "eval_interval", 0, "Iterations between evaluations; 0: only at the end.", lower_bound=0, **own
    )
    flags.DEFINE_integer("num_eval_episodes", 20, "Episodes of an evaluation.", lower_bound=1, **own)
    flags.DEFINE_integer(
        "checkpoint_interval", 20, "Iterations between checkpoints; 0: only first and last.", lower_bound=0, **own
    )
    flags.DEFINE_integer(
        "checkpoints_kept", 3, "Last checkpoints that stay; the best by evaluation stays too.", lower_bound=1, **own
    )
    flags.DEFINE_bool(
        "resume",
        False,
        "Go on with the run in root_dir, from its newest sound checkpoint and with its settings; of these "
        f"{', '.join(settings.MAY_CHANGE)} may be given anew.",
        **own,
    )
    flags.DEFINE_string(
        "compilation_cache",
        "",
        "Folder of compiled programs, which later runs load instead of compiling them; off: none; empty: "
        f"${compilation_cache.VARIABLE}, or the user's cache folder.",
        **own,
    )
    flags.DEFINE_bool("progress", True, "Show a progress bar; unless given, only on a terminal.", **own)
    define_common_flags(values)
    return values


def _main(flag_values: flags.FlagValues) -> int:
    values: dict[str, Any] = flag_values.flag_values_dict()
    given = settings.given_flags(flag_values)
    with mistakes_are_flag_errors():
        presets.check_name(values["preset"])
        settings.check_given(given)
    with InterruptGuard() as guard, _directory(values) as directory:
        compilation_cache.use(values["compilation_cache"])
        _stack.import_tensorflow()
        # Imported here: a wrong flag should not wait for TensorFlow.
        from ppo_agent.training import session

        # A bar that nobody asked for is no use in a log file.
        progress = values["progress"] and (flag_values["progress"].present > 0 or is_terminal())
        request = session.Request(
            **{name: values[name] for name in _REQUESTED},
            given=given,
            progress=progress,
            present={name for name in values if flag_values[name].present},
        )
        return session.train(request, directory, guard)


def _directory(values: Mapping[str, Any]) -> RunDirectory:
    """The folder to write into.

    Raises:
        FlagError: it cannot be used.
    """
    if values["resume"] and not values["root_dir"]:
        raise FlagError("root_dir is empty, expected the folder of the run to resume.")
    directory = RunDirectory(values["root_dir"] or default_root_dir(values["env_name"]))
    directory.check(values["resume"])
    return directory


if __name__ == "__main__":
    cli()
