"""What keywords that are off in the presets are worth: table and picture of the runs of `benchmarks.learning.FEATURES`.

`benchmarks.learning_report` puts both into docs/results.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import learning
from benchmarks.estimates import Estimate, described, interquartile_estimate, probability_of_improvement

Means = Mapping[str, Mapping[str, Sequence[float]]]  # Evaluations of the runs, by feature and environment.
_NOTHING = "nothing"
_ALL = "probability that it helps"


def means_of(rows: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> dict[str, dict[str, list[float]]]:
    """The evaluations in rows of results.csv, by feature and environment."""
    return {
        variant.removeprefix(learning.WITH): {
            environment: [run["eval_return_mean"] for run in runs] for environment, runs in environments.items()
        }
        for variant, environments in rows.items()
        if variant.startswith(learning.WITH)
    }


def table(means: Means) -> list[list[str]]:
    """Cells of the table: a row for each feature, a column for each environment, and one for all of them."""
    columns = _environments(means)
    rows = [["turned on", *columns, _ALL]]
    for name, found in means.items():
        estimate = _improvement(means, name)
        cells = [described(found.get(column, ())) for column in columns]
        last = "" if estimate is None else f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
        rows.append([_words(name), *cells, last])
    return rows


def draw(means: Means, path: pathlib.Path) -> None:
    """Draws a panel for each environment and one for all: a point and its interval for each feature."""
    columns, names = _environments(means), list(means)
    figure = Figure(figsize=(11, 6.5), dpi=110, layout="constrained")
    panels = figure.subplots(2, (len(columns) + 2) // 2, sharey=True, squeeze=False).flat
    for axes, column in zip(panels, columns, strict=False):
        found = {name: interquartile_estimate(runs[column]) for name, runs in means.items() if column in runs}
        _draw_panel(axes, column, names, found, found[_NOTHING].value if _NOTHING in found else None)
        axes.set_xlabel("mean return, 20 greedy episodes")
    compared = {name: estimate for name in means if (estimate := _improvement(means, name)) is not None}
    _draw_panel(panels[len(columns)], "all of them", names, compared, 0.5)
    panels[len(columns)].set_xlabel(_ALL)
    for axes in panels[len(columns) + 1 :]:
        axes.set_visible(False)
    panels[0].set_yticks(range(len(means)), [_words(name) for name in means])
    panels[0].invert_yaxis()
    figure.savefig(path)


def _draw_panel(
    axes: Axes, title: str, places: Sequence[str], found: Mapping[str, Estimate], same: float | None
) -> None:
    """Points with intervals, and a line where nothing changes."""
    if same is not None:
        axes.axvline(same, color="gray", linestyle=":")
    for name, estimate in found.items():
        color = "gray" if name == _NOTHING else "C0"
        place = places.index(name)
        axes.plot([estimate.low, estimate.high], [place, place], color=color, linewidth=2)
        axes.plot(estimate.value, place, "o", color=color)
    axes.set_title(title)
    axes.grid(axis="x", alpha=0.3)


def _environments(means: Means) -> list[str]:
    return sorted({environment for found in means.values() for environment in found})


def _improvement(means: Means, name: str) -> Estimate | None:
    """Over the environments that have several runs with the feature and without it."""
    without = means.get(_NOTHING, {})
    pairs = [(runs, without[column]) for column, runs in means[name].items() if len(without.get(column, ())) > 1]
    if name == _NOTHING or not pairs or min(len(runs) for runs, _ in pairs) < 2:
        return None
    return probability_of_improvement(pairs)


def _words(name: str) -> str:
    return name.replace("_", " ")
