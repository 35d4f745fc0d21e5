"""Takes the policy of a run to where it is needed.

    ppo-export --root_dir=runs/CartPole-v1/20250101-120000 --format=tflite --output=cartpole.tflite

Compares what it writes with the SavedModel in episodes of the environment; export.json tells the differences and the
returns. Prints the same in one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from ppo_agent import _stack
from ppo_agent.common.limits import LARGEST_INT32
from ppo_agent.training import command_line, setting_flags
from ppo_agent.training.command_line import FlagError, say
from ppo_agent.training.interrupts import InterruptGuard

_PROGRAM = "ppo-export"
_FORMATS = ["saved_model", "tflite", "tflite_int8", "onnx", "numpy"]


def cli() -> None:
    """Runs the program and exits with its status."""
    command_line.find_modules_here()
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; command line and exit status are those of `command_line.run`."""
    flag_values = define_flags()
    with InterruptGuard():
        return command_line.run(_PROGRAM, __doc__ or "", flag_values, lambda: _main(flag_values), argv)


def define_flags() -> flags.FlagValues:
    """The program's flags, apart from those of other programs in this process."""
    values = flags.FlagValues()
    own: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_string("root_dir", "", "Folder of a run, whose checkpoint is exported.", **own)
    flags.DEFINE_string("policy_dir", "", "Folder of an exported policy instead, such as ROOT/policy.", **own)
    flags.DEFINE_enum("format", "saved_model", _FORMATS, "What to write.", **own)
    flags.DEFINE_string("output", "", "File to write; for saved_model and numpy a folder.", **own)
    flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which one of a run.", **own)
    flags.DEFINE_string("env_name", "", "Environment to verify in; empty: that of the run or the policy.", **own)
    setting_flags.define_integer(values, "num_observations", 10_000, "Of episodes, to compare on.", lower_bound=1)
    setting_flags.define_integer(values, "num_eval_episodes", 20, "To reach a return in.", lower_bound=1)
    setting_flags.define_integer(values, "seed", 0, "Of the episodes.", lower_bound=0, upper_bound=LARGEST_INT32)
    command_line.define_common_flags(values)
    return values


def _main(flag_values: flags.FlagValues) -> int:
    values: dict[str, Any] = flag_values.flag_values_dict()
    root_dir, policy_dir = values["root_dir"], values["policy_dir"]
    if bool(root_dir) == bool(policy_dir):
        found = "both are given" if root_dir else "neither is given"
        raise FlagError(f"root_dir and policy_dir: {found}, expected one of them.")
    if policy_dir and flag_values["checkpoint"].present:
        raise FlagError("checkpoint is given with policy_dir, expected it with root_dir only.")
    if not values["output"]:
        raise FlagError("output is empty, expected a file or a folder to write.")
    _stack.import_tensorflow()
    # Imported here: a wrong flag should not wait for TensorFlow.
    from ppo_agent.deployment import exporting, runs
    from ppo_agent.export.formats import FORMATS
    from ppo_agent.export.sources import MissingPackageError, check_packages

    chosen = FORMATS[values["format"]]
    with contextlib.ExitStack() as stack:
        with command_line.mistakes_are_flag_errors():
            try:
                check_packages(chosen.packages, chosen.extra)
            except MissingPackageError as error:
                raise FlagError(f"format is {values['format']}: {error}") from error
            output = chosen.check_target(values["output"], "output")
            if policy_dir:
                source = runs.from_policy_dir(Path(policy_dir), values["env_name"])
            else:
                source = stack.enter_context(runs.from_run(Path(root_dir), values["checkpoint"]))
                source = source._replace(environment=values["env_name"] or source.environment)
        report = exporting.export(
            source,
            values["format"],
            output,
            seed=values["seed"],
            num_observations=values["num_observations"],
            num_episodes=values["num_eval_episodes"],
        )
    say(json.dumps(report))
    return command_line.OK


if __name__ == "__main__":
    cli()
