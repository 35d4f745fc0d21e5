"""Tables and pictures of a run: results.csv, table.md, speed.png and scaling.png."""

from __future__ import annotations

import csv
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cases
from benchmarks.cases import CASES, Case
from benchmarks.workloads import ALL, Workload

Record = Mapping[str, Any]

_COLUMNS = (
    "case", "peer", "round", "changed", "value", "steps_per_second", "collect_s", "update_s", "startup_s",
    "first_iteration_s", "seconds_to_475", "steps_to_475", "peak_memory_mb", "memory_growth_mb", "iterations",
    "gradient_steps", "return_mean", "other_cores", "error",
)  # fmt: skip
_UNITS = {
    "steps_per_second": ("steps/s", 0),
    "update_s": ("update, s", 4),
    "first_iteration_s": ("first call, s", 1),
    "startup_s": ("start-up, s", 2),
    "seconds_to_475": ("seconds to 475", 1),
    "peak_memory_mb": ("peak memory, MB", 0),
    "memory_growth_mb": ("growth, MB", 1),
}
_DARK, _LIGHT = "#1f4e79", "#9db8d2"


def write(data: Mapping[str, Any], folder: Path) -> None:
    """Writes everything into a folder.

    Args:
        data: `date`, `machine` and `records`, as in results.json.
        folder: exists.
    """
    records = data["records"]
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(records)
    (folder / "table.md").write_text(markdown(data), encoding="utf-8")
    _draw_speed(records, folder / "speed.png")
    _draw_scaling([record for record in records if "changed" in record], folder / "scaling.png")


def markdown(data: Mapping[str, Any]) -> str:
    """The tables of a run."""
    machine, records = data["machine"], data["records"]
    busiest = max((record.get("other_cores", 0.0) for record in records), default=0.0)
    head = (
        f"{data['date']}, {machine['processor']}, {machine['cores']} cores, {machine['system']}. Medians of the runs, "
        f"which took turns, with [least, most]. Other processes used at most {busiest:.1f} cores."
    )
    parts = [head, _versions(records)]
    for name, case in CASES.items():
        chosen = [record for record in records if record["case"] == name]
        if chosen:
            parts.append(_case_table(name, case, chosen))
    scaling = [record for record in records if "changed" in record]
    if scaling:
        parts.append(_scaling_table(scaling))
    return "\n\n".join(parts) + "\n"


def _case_table(name: str, case: Case, records: Sequence[Record]) -> str:
    """One row for each peer."""
    unit, digits = _UNITS[case.quantity]
    lines = [
        f"**{name}**: {ALL[case.workload].description}. {_settings(ALL[case.workload])}",
        "",
        f"| | {unit} | ratio | wanted | collect, ms | update, ms | start-up, s | memory, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    first = _values(records, case.peers[0], case.quantity)
    for peer in dict.fromkeys(record["peer"] for record in records):
        own = [record for record in records if record["peer"] == peer]
        errors = [record["error"] for record in own if "error" in record]
        if errors:
            lines.append(f"| {peer} | {errors[0]} | | | | | | |")
            continue
        values = _values(records, peer, case.quantity)
        cells = [
            peer,
            _spread(values, digits),
            _ratio(case, peer, first, values),
            _wanted(case, peer),
            _median(own, "collect_s", 1000, 1),
            _median(own, "update_s", 1000, 1),
            _median(own, "startup_s", 1, 1),
            _median(own, "peak_memory_mb", 1, 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _settings(workload: Workload) -> str:
    """The settings of a workload in words."""
    layers = "x".join(map(str, workload.hidden)) + (
        f" and an LSTM of {workload.lstm_units}" * bool(workload.lstm_units)
    )
    return (
        f"{workload.num_steps} steps each, {workload.num_epochs} epochs, minibatches of {workload.minibatch_size:,}, "
        f"layers of {layers}, Adam {workload.learning_rate:g}."
    )


def _values(records: Iterable[Record], peer: str, quantity: str) -> list[float]:
    """Results of a peer, in order of the rounds."""
    return [record[quantity] for record in records if record["peer"] == peer and quantity in record]


def _spread(values: Sequence[float], digits: int) -> str:
    if len(values) < 2:
        return "".join(f"{value:,.{digits}f}" for value in values)
    return f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f}, {max(values):,.{digits}f}]"


def _ratio(case: Case, peer: str, first: Sequence[float], values: Sequence[float]) -> str:
    """Ratio of the first peer's median to that of another one; in brackets those of the single rounds."""
    if peer == case.peers[0] or not first or not values:
        return ""
    rounds = [own / other for own, other in zip(first, values, strict=False)]
    return f"{statistics.median(first) / statistics.median(values):.2f} [{min(rounds):.2f}, {max(rounds):.2f}]"


def _wanted(case: Case, peer: str) -> str:
    if peer not in case.targets:
        return ""
    return f"{'at most' if case.less_is_better else 'at least'} {case.targets[peer]:g}"


def _median(records: Sequence[Record], key: str, factor: float, digits: int) -> str:
    values = [record[key] for record in records if key in record]
    return f"{factor * statistics.median(values):,.{digits}f}" if values else ""


def _versions(records: Iterable[Record]) -> str:
    """Versions and threads of every peer."""
    found = {record["peer"]: record for record in records if "versions" in record}
    lines = ["| | versions | threads |", "|---|---|---|"]
    for peer, record in found.items():
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        lines.append(f"| {peer} | {versions} | {record.get('threads') or 'its own choice'} |")
    return "\n".join(lines)


def _scaling_table(records: Sequence[Record]) -> str:
    lines = ["**scaling**: this package in W1 with one quantity changed.", "", "| | | steps/s | update, ms |"]
    lines.append("|---|---|---|---|")
    for record in records:
        if "error" in record:
            lines.append(f"| {record['changed']} | {record['value']:,} | {record['error']} | |")
        else:
            cells = (f"{record['value']:,}", f"{record['steps_per_second']:,.0f}", f"{1000 * record['update_s']:,.1f}")
            lines.append(f"| {record['changed']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _draw_speed(records: Sequence[Record], path: Path) -> None:
    """Bars of steps per second, one panel for each case."""
    names = [name for name in ("W1", "W2", "W3s", "W3l") if any(record["case"] == name for record in records)]
    if not names:
        return
    plt = _pyplot()
    rows = -(-len(names) // 2)
    figure, panels = plt.subplots(rows, 2, figsize=(8.2, 2.5 * rows), squeeze=False)
    for unused in panels.flat[len(names) :]:
        unused.set_visible(False)
    for name, axes in zip(names, panels.flat, strict=False):
        case = CASES[name]
        own = [record for record in records if record["case"] == name]
        bars = {peer: statistics.median(values) for peer in case.peers if (values := _values(own, peer, case.quantity))}
        colors = [_DARK if peer == cases.OURS else _LIGHT for peer in bars]
        axes.barh(list(bars), list(bars.values()), color=colors)
        axes.invert_yaxis()
        axes.set_title(textwrap.fill(f"{name}: {ALL[case.workload].description}", 44), fontsize=8)
        axes.xaxis.set_major_locator(plt.MaxNLocator(4))
        axes.set_xlabel("environment steps per second", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _draw_scaling(records: Sequence[Record], path: Path) -> None:
    """Steps per second against each quantity."""
    if not records:
        return
    plt = _pyplot()
    names = list(dict.fromkeys(record["changed"] for record in records))
    figure, panels = plt.subplots(1, len(names), figsize=(3.4 * len(names), 2.8), squeeze=False, sharey=True)
    for name, axes in zip(names, panels[0], strict=True):
        points = [(r["value"], r["steps_per_second"]) for r in records if r["changed"] == name and "error" not in r]
        axes.plot(*zip(*points, strict=True), "o-", color=_DARK)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel(name.replace("_", " "), fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("environment steps per second", fontsize=8)
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
