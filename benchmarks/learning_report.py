"""Makes the report of what `benchmarks.learning` trained: docs/results.

    python -m benchmarks.learning_report

Writes `results.csv` (a row for each run), the tables in `README.md` (between its markers) and a picture of learning
curves for each environment that was run. Rows of earlier reports stay, but for environments that were run anew. The
interquartile mean and its bootstrapped interval come from `benchmarks.estimates`, table and picture of what can be
turned on from `benchmarks.feature_report`.
"""

from __future__ import annotations

import csv
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.integrate
from matplotlib.figure import Figure

from benchmarks import feature_report, learning, published
from benchmarks.estimates import described, interquartile_mean, interval

DOCS = learning.ROOT / "docs" / "results"
_LABELS = {learning.PRESETS: "ppo_agent", learning.PEER: "stable-baselines3, rl-zoo's settings"}
_SMOOTHED_EPISODES = 100
# Of a short run: whether anything was learnt.
_FEW_EPISODES = 20


class Run(NamedTuple):
    """A finished run.

    Attributes:
        environment: its name.
        result: contents of result.json, what the run was made with, and the best of its evaluations.
        steps: environment steps after each iteration in which an episode ended.
        returns: mean return of the training episodes of each of these.
    """

    environment: str
    result: dict[str, Any]
    steps: np.ndarray
    returns: np.ndarray


Runs = Mapping[str, Sequence[Run]]  # By environment, in the order of their seeds.
Row = Mapping[str, Any]  # Of results.csv.
Rows = Mapping[str, Sequence[Row]]
COLUMNS = ("variant", "env_name", "seed", "environment_steps", "eval_return_mean", "eval_return_std",
           "num_eval_episodes", "best_eval_return_mean", "final_train_return_mean", "wall_time_s", "steps_per_second",
           "commit", "versions")  # fmt: skip
_TEXTS = ("variant", "env_name", "commit", "versions")


def read_runs(folder: pathlib.Path) -> dict[str, list[Run]]:
    """Returns the finished runs."""
    runs: dict[str, list[Run]] = {}
    for path in sorted(folder.glob("*/*/result.json")):
        run = _read_run(path.parent)
        if run.result.get("finished", True):
            runs.setdefault(run.environment, []).append(run)
    return runs


def _read_run(folder: pathlib.Path) -> Run:
    result = {**json.loads((folder / "result.json").read_text()), **_origin(folder), **_best(folder)}
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["episode_return_mean"] not in ("", "nan")]
    steps = np.array([float(row["environment_steps"]) for row in rows])
    return Run(result["env_name"], result, steps, np.array([float(row["episode_return_mean"]) for row in rows]))


def _origin(folder: pathlib.Path) -> dict[str, str]:
    path = folder / learning.ORIGIN
    return json.loads(path.read_text()) if path.exists() else {}


def _best(folder: pathlib.Path) -> dict[str, float]:
    """The best evaluation of a training; nothing where there was only one."""
    path = folder / "evaluations.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        means = [float(row["return_mean"]) for row in csv.DictReader(file)]
    return {"best_eval_return_mean": max(means)} if len(means) > 1 else {}


def numbers(rows: Iterable[Row], column: str) -> list[float]:
    """The numbers of a column, without those that are missing."""
    return [row[column] for row in rows if row.get(column) is not None]


def results_table(presets: Rows, peer: Rows) -> list[str]:
    """Lines of the table of presets, a row for each environment."""
    lines = _head("environment", "steps", "seeds", "mean ± std over seeds", "interquartile mean [95 %]",
                  "best of a training", "minutes a run", "Tianshou (10 runs, best of a training)", "rl-zoo (1 run)",
                  "TF-Agents (3 runs)", "stable-baselines3 here (seeds)")  # fmt: skip
    for environment, rows in sorted(presets.items()):
        means, best = numbers(rows, "eval_return_mean"), numbers(rows, "best_eval_return_mean")
        low, high = interval(means)
        theirs = published.of(environment)
        others = numbers(peer.get(environment, ()), "eval_return_mean")
        cells = [
            *_trained(environment, rows),
            f"{interquartile_mean(means):,.1f} [{low:,.1f}, {high:,.1f}]",
            _plus_minus(best) if len(best) == len(rows) else "",
            _minutes(rows),
            _known(theirs.tianshou),
            "" if theirs.zoo is None else f"{theirs.zoo:,.1f} ± {theirs.zoo_std:,.1f}",
            _known(theirs.tf_agents),
            f"{_plus_minus(others)} ({len(others)})" if others else "",
        ]
        lines.append(_row(*cells))
    return lines


def long_table(presets: Rows) -> list[str]:
    """Lines of the table of three million steps, a row for each environment."""
    lines = _head("environment", "steps", "seeds", "mean ± std over seeds", "best of a training", "minutes a run",
                  "Tianshou (10 runs, best of a training)")  # fmt: skip
    for environment, rows in sorted(presets.items()):
        theirs = published.of(environment).tianshou_long
        best = _plus_minus(numbers(rows, "best_eval_return_mean"))
        lines.append(_row(*_trained(environment, rows), best, _minutes(rows), _known(theirs)))
    return lines


def _trained(environment: str, rows: Sequence[Row]) -> list[str]:
    """The first cells of a row: environment, steps, seeds, mean and deviation."""
    steps = max(numbers(rows, "environment_steps"))
    return [environment, f"{steps:,.0f}", str(len(rows)), _plus_minus(numbers(rows, "eval_return_mean"))]


def _minutes(rows: Sequence[Row]) -> str:
    return f"{np.median(numbers(rows, 'wall_time_s')) / 60:.1f}"


def _known(number: float | None) -> str:
    return "" if number is None else f"{number:,.1f}"


def ablation_table(variants: Mapping[str, Runs]) -> list[str]:
    """Lines of the table of corrections, a row for each of them and a column for each environment."""
    cells = {
        name.removeprefix(learning.WITHOUT): {environment: _mean_over_run(group) for environment, group in runs.items()}
        for name, runs in variants.items()
    }
    return _by_environment("taken back", cells)


def velocities_table(variants: Mapping[str, Rows]) -> list[str]:
    """Lines of the table of who sees the velocities, a row for each possibility and a column for each environment."""
    cells = {
        name: {
            environment.rpartition(":")[2]: described(numbers(group, "eval_return_mean"))
            for environment, group in rows.items()
        }
        for name, rows in variants.items()
    }
    return _by_environment("velocities", cells)


def _by_environment(title: str, cells: Mapping[str, Mapping[str, str]]) -> list[str]:
    environments = sorted({environment for row in cells.values() for environment in row})
    rows = ([name.replace("_", " "), *(row.get(key, "") for key in environments)] for name, row in cells.items())
    return _lines([[title, *environments], *rows])


def _mean_over_run(runs: Sequence[Run]) -> str:
    """Of the training returns from start to end, which tells how fast a run learns as well as how far."""
    means = [float(scipy.integrate.trapezoid(run.returns, run.steps) / np.ptp(run.steps)) for run in runs]
    return described(means)


def progress_table(runs: Runs) -> list[str]:
    """Lines of the table of short runs: whether the last episodes are better than the first ones."""
    few = f"{_FEW_EPISODES} iterations that ended an episode"
    lines = _head("game", "seed", "steps", f"first {few}", f"last {few}", "evaluation", "steps/s")
    for run in (run for _, group in sorted(runs.items()) for run in group):
        result = run.result
        numbers = (run.returns[:_FEW_EPISODES].mean(), run.returns[-_FEW_EPISODES:].mean(), result["eval_return_mean"])
        cells = [run.environment, str(result["seed"]), f"{result['environment_steps']:,}"]
        lines.append(_row(*cells, *(f"{number:.2f}" for number in numbers), f"{result['steps_per_second']:.0f}"))
    return lines


def _head(*names: str) -> list[str]:
    return [_row(*names), f"|{'---|' * len(names)}"]


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *others = rows
    return [*_head(*head), *(_row(*cells) for cells in others)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _plus_minus(means: Sequence[float]) -> str:
    return f"{np.mean(means):,.1f} ± {np.std(means):,.1f}"


def draw(environment: str, groups: Mapping[str, Sequence[Run]], path: pathlib.Path) -> None:
    """Draws the mean over the seeds of each group with a band from the worst to the best."""
    figure = Figure(figsize=(6, 3.5), dpi=110, layout="tight")
    axes = figure.subplots()
    for label, runs in groups.items():
        steps = np.linspace(max(run.steps[0] for run in runs), min(run.steps[-1] for run in runs), 300)
        returns = np.array([np.interp(steps, run.steps, _smooth(run.returns)) for run in runs])
        seeds = f"{len(runs)} seed" + "s" * (len(runs) > 1)
        (line,) = axes.plot(steps, returns.mean(0), label=f"{label}, {seeds}")
        axes.fill_between(steps, returns.min(0), returns.max(0), color=line.get_color(), alpha=0.25, linewidth=0)
    theirs = published.of(environment).zoo
    if theirs is not None:
        axes.axhline(theirs, color="gray", linestyle=":", label="published by rl-zoo")
    axes.legend()
    axes.set(title=environment, xlabel="environment steps", ylabel="mean return, training")
    figure.savefig(path)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Means of neighbouring iterations, a hundredth of the run wide."""
    width = max(1, len(values) // _SMOOTHED_EPISODES)
    kernel = np.ones(width)
    return np.convolve(values, kernel, mode="same") / np.convolve(np.ones(len(values)), kernel, mode="same")


def rows_of(variants: Mapping[str, Runs]) -> dict[str, dict[str, list[Row]]]:
    """The rows of results.csv by variant and environment."""
    return {
        variant: {name: [{"variant": variant, **run.result} for run in runs] for name, runs in environments.items()}
        for variant, environments in variants.items()
    }


def read_csv(path: pathlib.Path) -> dict[str, dict[str, list[Row]]]:
    """The rows of an earlier report; an empty cell is None."""
    found: dict[str, dict[str, list[Row]]] = {}
    if not path.exists():
        return found
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            typed = {name: _typed(name, cell) for name, cell in row.items()}
            found.setdefault(row["variant"], {}).setdefault(row["env_name"], []).append(typed)
    return found


def _typed(name: str, cell: str) -> Any:
    if name in _TEXTS or not cell:
        return cell or None
    return int(cell) if cell.isdigit() else float(cell)


def merged(
    earlier: Mapping[str, Mapping[str, list[Row]]], runs: Mapping[str, Mapping[str, list[Row]]]
) -> dict[str, dict[str, list[Row]]]:
    """The rows of earlier reports with those of new runs in place of all earlier ones of the same environment."""
    names = [name for name in learning.VARIANTS if name in earlier or name in runs]
    return {name: dict(sorted({**earlier.get(name, {}), **runs.get(name, {})}.items())) for name in names}


def write_csv(variants: Mapping[str, Rows], path: pathlib.Path) -> None:
    """Writes a row for each run."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for environments in variants.values():
            for rows in environments.values():
                writer.writerows(rows)


def put_between_markers(text: str, name: str, lines: Sequence[str]) -> str:
    """Puts lines between `<!-- name -->` and `<!-- end -->`; a text without these stays as it is."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda match: match[1] + "\n".join(["", *lines, "", match[2]]), text, flags=re.DOTALL)


def main() -> None:
    """Writes the report."""
    variants = {name: found for name in learning.VARIANTS if (found := read_runs(learning.RUNS / name))}
    if not variants and not (DOCS / "results.csv").exists():
        raise SystemExit(f"there is no finished run in {learning.RUNS}, expected some: run benchmarks.learning first.")
    presets, peer = (variants.get(name, {}) for name in (learning.PRESETS, learning.PEER))
    games = {name: runs for name, runs in presets.items() if name.startswith("ALE/")}
    ablations = {name: runs for name, runs in variants.items() if name.startswith(learning.WITHOUT)}
    DOCS.mkdir(parents=True, exist_ok=True)
    rows = merged(read_csv(DOCS / "results.csv"), rows_of(variants))
    of_presets, of_peer = (rows.get(name, {}) for name in (learning.PRESETS, learning.PEER))
    no_games = {name: group for name, group in of_presets.items() if not name.startswith("ALE/")}
    features = feature_report.means_of(rows)
    tables = {
        "results": results_table(no_games, of_peer),
        "long": long_table(rows.get(learning.LONG, {})),
        "games": progress_table(games),
        "ablations": ablation_table(ablations),
        "velocities": velocities_table({name: rows[name] for name in learning.VELOCITIES if name in rows}),
        "features": _lines(feature_report.table(features)),
    }
    write_csv(rows, DOCS / "results.csv")
    for environment, runs in presets.items():
        groups = {_LABELS[learning.PRESETS]: runs}
        if environment in peer:
            groups[_LABELS[learning.PEER]] = peer[environment]
        draw(environment, groups, DOCS / f"{environment.replace('/', '_')}.png")
    if features:
        feature_report.draw(features, DOCS / "features.png")
    readme = DOCS / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    for name, lines in tables.items():
        if len(lines) == len(_head()):  # Nothing was run.
            continue
        text = put_between_markers(text, name, lines)
        print(*lines, sep="\n")
    if text:
        readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
