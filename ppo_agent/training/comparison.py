"""Runs side by side: what their folders hold, in groups, as means and intervals over the runs of a group."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppo_agent.common import atomic_files
from ppo_agent.common.types import Array
from ppo_agent.training.metrics_table import COLUMNS, MetricsTable
from ppo_agent.training.run_directory import RunDirectory

STEPS = "environment_steps"
# Where the curves of a group are compared.
_NUM_POINTS = 200
# 97.5 % quantiles of Student's t distribution with 1, 2, ... degrees of freedom.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.960


@dataclasses.dataclass(frozen=True)
class Run:
    """What the folder of a run holds.

    Attributes:
        path: the folder.
        settings: of the run by name, with `env_name` and `seed`.
        steps: environment steps, [N].
        values: of the column that was asked for, [N], finite.
    """

    path: Path
    settings: Mapping[str, Any]
    steps: Array
    values: Array


@dataclasses.dataclass(frozen=True)
class Curve:
    """A group of runs.

    Attributes:
        label: what the runs have in common and others have not.
        num_runs: how many.
        steps: environment steps, [M], those that all runs of the group have seen.
        mean: over the runs, [M].
        low: lower bound of the mean's 95 % interval, [M]; NaN with one run.
        high: the upper bound, likewise.
    """

    label: str
    num_runs: int
    steps: Array
    mean: Array
    low: Array
    high: Array


def find_runs(folders: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The folders of runs, each once: those given, and those inside of given folders that are no runs.

    Raises:
        ValueError: in one of them there is no run.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        path = Path(folder)
        runs = [path] if RunDirectory(path).metrics.is_file() else sorted(p.parent for p in path.rglob("metrics.csv"))
        if not runs:
            raise ValueError(f"RUN is {str(folder)!r}, expected the folder of a run, or one with runs inside.")
        found.update(dict.fromkeys(runs))
    return list(found)


def read_run(path: Path, column: str, smooth: int) -> Run:
    """Reads a column of a run's metrics.csv, each value averaged over `smooth` iterations; 0 for a tenth of them.

    Raises:
        ValueError: settings.json cannot be read, or the column holds no number.
    """
    directory = RunDirectory(path)
    try:
        saved = atomic_files.read_json(directory.settings)
        settings = {**saved["settings"], "env_name": saved["env_name"], "seed": saved["seed"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"RUN is {str(path)!r}, expected a settings.json in it that can be read: {error}.") from error
    table = MetricsTable(directory.metrics).read()
    steps, values = np.asarray(table[STEPS], float), np.asarray(table[column], float)
    known = np.isfinite(values) & np.isfinite(steps)
    if not known.any():
        raise ValueError(f"RUN is {str(path)!r}, whose metrics.csv has no {column}, expected at least one.")
    return Run(path, settings, steps[known], moving_mean(values[known], smooth))


def moving_mean(values: Array, window: int) -> Array:
    """The mean of each value [N] and those before it, `window` in all; 0 for a tenth of N."""
    window = window or max(1, len(values) // 10)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def group(runs: Sequence[Run], by: str | None) -> dict[str, list[Run]]:
    """Runs by label.

    The setting `by` makes the groups, within each environment; None puts those together that differ in nothing but
    their seed.

    Raises:
        ValueError: no run has such a setting.
    """
    if by is not None and not any(by in run.settings for run in runs):
        known = sorted({name for run in runs for name in run.settings})
        raise ValueError(f"group_by is {by!r}, expected a setting of the runs: one of {', '.join(known)}.")
    names = _differing(runs, by)
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_label(run, names), []).append(run)
    return groups


def compare(runs: Sequence[Run], by: str | None) -> list[Curve]:
    """The curve of each group of runs, see `group`.

    Raises:
        ValueError: there is no such setting, or runs of a group have no environment steps in common.
    """
    return [_curve(label, members) for label, members in group(runs, by).items()]


def mean_interval(values: Array) -> tuple[Array, Array, Array]:
    """Mean and its 95 % interval by Student's t distribution, over the first axis of [K, ...]; NaN with K = 1."""
    mean = values.mean(axis=0)
    if len(values) < 2:
        return mean, np.full_like(mean, math.nan), np.full_like(mean, math.nan)
    half = t_quantile(len(values) - 1) * values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t distribution, to 0.001."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    # The first terms of its expansion around the normal distribution's.
    z = _NORMAL
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def to_rows(curves: Iterable[Curve]) -> list[list[str]]:
    """A table of curves, the names of its columns first; no value where there is none."""
    rows = [["group", "runs", STEPS, "mean", "low", "high"]]
    for curve in curves:
        for numbers in zip(curve.steps, curve.mean, curve.low, curve.high, strict=True):
            cells = ("" if math.isnan(number) else f"{number:.6g}" for number in numbers[1:])
            rows.append([curve.label, str(curve.num_runs), f"{numbers[0]:.0f}", *cells])
    return rows


def write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Writes a table, complete or not at all."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    atomic_files.replace_file(path, text.getvalue().encode())


def check_column(name: str) -> None:
    """Raises ValueError unless metrics.csv has the column and it can be drawn against environment steps."""
    if name not in COLUMNS or name == STEPS:
        raise ValueError(f"metric is {name!r}, expected one of {', '.join(column for column in COLUMNS[1:])}.")


def _curve(label: str, runs: Sequence[Run]) -> Curve:
    first, last = max(run.steps[0] for run in runs), min(run.steps[-1] for run in runs)
    if first > last:
        raise ValueError(f"the runs of {label} have no environment steps in common, expected some: give them apart.")
    steps = np.linspace(first, last, _NUM_POINTS if last > first else 1)
    values = np.stack([np.interp(steps, run.steps, run.values) for run in runs])
    return Curve(label, len(runs), steps, *mean_interval(values))


def _differing(runs: Sequence[Run], by: str | None) -> list[str]:
    """The settings that make the groups: the environment where there are several, and `by` or all that differ."""
    # Settings that only some versions of the package have make no difference.
    common = set.intersection(*(set(run.settings) for run in runs))
    names = sorted(common - {"seed"}) if by is None else [by]
    names = ["env_name", *(name for name in names if name != "env_name")]
    values = {name: {json.dumps(run.settings.get(name)) for run in runs} for name in names}
    return [name for name in names if name == by or len(values[name]) > 1]


def _label(run: Run, names: Sequence[str]) -> str:
    parts = [
        str(run.settings["env_name"]) if name == "env_name" else f"{name}={_shown(run.settings.get(name))}"
        for name in names
    ]
    return ", ".join(parts) or str(run.settings["env_name"])


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
