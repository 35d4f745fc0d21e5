"""Draws learning curves of several runs into one picture, with their 95 % intervals over seeds.

    ppo-plot runs/CartPole-v1 --output=cartpole.png
    ppo-plot runs/a runs/b --group_by=learning_rate --metric=approx_kl --output=comparison.png

RUN is the folder of a run, or one with runs inside. Those that differ in nothing but their seed, or have the same value
of --group_by, make one curve: the mean of the runs, over the environment steps that all of them have seen, and its
interval by Student's t distribution. The same numbers go into a CSV file beside the picture.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from ppo_agent.training import setting_flags
from ppo_agent.training.command_line import OK, FlagError, define_common_flags, mistakes_are_flag_errors, run, say

_PROGRAM = "ppo-plot"
_RETURN = "episode_return_mean"


def cli() -> None:
    """Runs the program and exits with its status."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; command line and exit status are those of `command_line.run`."""
    flag_values = define_flags()
    runs: list[str] = []
    return run(_PROGRAM, __doc__ or "", flag_values, lambda: _main(flag_values, runs), argv, runs)


def define_flags() -> flags.FlagValues:
    """The program's flags, apart from those of other programs in this process; they may stand behind the runs."""
    values = flags.FlagValues()
    values.set_gnu_getopt(gnu_getopt=True)
    own: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_string("output", "", "PNG file to write; the CSV file has its name.", **own)
    flags.DEFINE_string("group_by", "", "Setting whose values make the curves; empty: all that differ.", **own)
    flags.DEFINE_string("metric", _RETURN, "Column of metrics.csv to draw.", **own)
    setting_flags.define_integer(
        values, "smooth", 0, "Iterations that each value is averaged over; 0: a tenth of a run's.", lower_bound=0
    )
    flags.DEFINE_string("title", "", "Above the picture.", **own)
    define_common_flags(values)
    return values


def _main(flag_values: flags.FlagValues, folders: Sequence[str]) -> int:
    values: dict[str, Any] = flag_values.flag_values_dict()
    output, metric = Path(values["output"]), values["metric"]
    if output.suffix != ".png":
        raise FlagError(f"output is {values['output']!r}, expected the name of a .png file.")
    if not output.parent.is_dir():
        raise FlagError(f"output is {values['output']!r}, expected a file in a folder that exists.")
    if not folders:
        raise FlagError("RUN is missing, expected the folders of runs.")
    # Imported here: a wrong flag should not wait for NumPy and matplotlib.
    from ppo_agent.training import comparison, plotting

    with mistakes_are_flag_errors():
        comparison.check_column(metric)
        runs = [comparison.read_run(path, metric, values["smooth"]) for path in comparison.find_runs(folders)]
        curves = comparison.compare(runs, values["group_by"] or None)
    environments = sorted({str(run.settings["env_name"]) for run in runs})
    plotting.plot_curves(output, values["title"] or ", ".join(environments), metric.replace("_", " "), curves)
    comparison.write_csv(output.with_suffix(".csv"), comparison.to_rows(curves))
    found = f"{_count(len(runs), 'run')} in {_count(len(curves), 'curve')}"
    say(f"{found}: {output} and {output.with_suffix('.csv')}")
    return OK


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


if __name__ == "__main__":
    cli()
