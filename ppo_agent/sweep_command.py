"""Trains with several seeds, and tells means and intervals.

    ppo-sweep --seeds=5 --jobs=2 -- --env_name=CartPole-v1 --learning_rate=1e-3

Everything behind `--` are flags of ppo-train. Each seed is a run in a folder of its own in --root_dir, which ppo-plot
draws; the table that is printed at the end, with 95 % intervals of the means by Student's t distribution, is in
sweep.csv there. The same command continues a sweep that was ended: runs that are done are not done again.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from ppo_agent import train
from ppo_agent.training import command_line, setting_flags
from ppo_agent.training.command_line import FlagError, Interrupted, RunError, say, warn
from ppo_agent.training.interrupts import InterruptGuard
from ppo_agent.training.run_directory import default_root_dir

_PROGRAM = "ppo-sweep"
# Flags of ppo-train that the sweep sets itself.
_OWN = ("seed", "root_dir", "resume", "progress")


def cli() -> None:
    """Runs the program and exits with its status."""
    command_line.find_modules_here()
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; command line and exit status are those of `command_line.run`."""
    flag_values = define_flags()
    train_flags: list[str] = []
    with InterruptGuard(watched=False):
        return command_line.run(
            _PROGRAM, __doc__ or "", flag_values, lambda: _main(flag_values, train_flags), argv, train_flags
        )


def define_flags() -> flags.FlagValues:
    """The program's flags, apart from those of other programs in this process."""
    values = flags.FlagValues()
    setting_flags.define_integer(values, "seeds", 5, "How many seeds.", lower_bound=1)
    setting_flags.define_integer(values, "first_seed", 0, "The smallest of them.", lower_bound=0)
    setting_flags.define_integer(values, "jobs", 1, "Runs at the same time.", lower_bound=1)
    flags.DEFINE_string("root_dir", "", "Folder to write into; empty: runs/ENV/sweep.", flag_values=values)
    command_line.define_common_flags(values)
    return values


def _main(flag_values: flags.FlagValues, train_flags: Sequence[str]) -> int:
    values: dict[str, Any] = flag_values.flag_values_dict()
    env_name = _check(train_flags)
    # Imported here: a wrong flag should not wait for NumPy.
    from ppo_agent.training import comparison, sweep

    root_dir = Path(values["root_dir"] or default_root_dir(env_name).with_name("sweep"))
    first = values["first_seed"]
    made = sweep.Sweep(root_dir, train_flags, range(first, first + values["seeds"]), values["jobs"])
    with command_line.mistakes_are_flag_errors():
        made.prepare()
    say(f"Training in {env_name} with {values['seeds']} seeds, writing to {root_dir}")
    results: dict[int, dict[str, Any]] = {}
    try:
        with contextlib.closing(made.run()) as ended:
            for seed, result in ended:
                _tell(seed, result, results)
    except Interrupted as interrupt:
        say(f"Interrupted with {len(results)} of {values['seeds']} runs done; the same command continues.")
        return 128 + interrupt.signal_number
    if results:
        rows = sweep.to_rows(results)
        comparison.write_csv(root_dir / "sweep.csv", rows)
        say(f"{sweep.to_text(rows)}\nThe table is in {root_dir / 'sweep.csv'}")
    if failed := values["seeds"] - len(results):
        raise RunError(f"{failed} of {values['seeds']} runs failed; the same command tries them again.")
    return command_line.OK


def _tell(seed: int, result: dict[str, Any] | str, results: dict[int, dict[str, Any]]) -> None:
    """Tells how a run has ended, and keeps what it has reached."""
    if isinstance(result, str):
        warn(f"seed {seed}: {result} (seed-{seed}.log has the rest)")
        return
    results[seed] = result
    say(f"seed {seed}: return {result['eval_return_mean']:.4g} +- {result['eval_return_std']:.4g}")


def _check(train_flags: Sequence[str]) -> str:
    """The environment's name.

    Raises:
        FlagError: the flags are not those of ppo-train, or the sweep sets them itself.
    """
    parsed = train.define_flags()
    try:
        rest = parsed(["ppo-train", *train_flags])[1:]
    except flags.UnrecognizedFlagError as error:
        raise FlagError(f"--{error.flagname} behind -- is no flag of ppo-train.") from error
    except flags.Error as error:
        raise FlagError(str(error)) from error
    if rest:
        raise FlagError(f"found the argument {rest[0]!r}, expected flags of ppo-train behind --.")
    for name in _OWN:
        if parsed[name].present:
            raise FlagError(f"{name} is given behind --, expected it as no flag of ppo-train: the sweep sets it.")
    return str(parsed["env_name"].value)


if __name__ == "__main__":
    cli()
