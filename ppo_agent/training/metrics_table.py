"""metrics.csv: a row per iteration."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

COLUMNS = (
    "environment_steps",
    "wall_time_s",
    "episode_return_mean",
    "episode_length_mean",
    "policy_gradient_loss",
    "value_estimation_loss",
    "entropy",
    "approx_kl",
    "clip_fraction",
    "explained_variance",
    "learning_rate",
    "steps_per_second",
)


class MetricsTable:
    """Appends rows to a CSV file, each on disk at once."""

    def __init__(self, path: Path) -> None:
        """Names the file; the first row creates it."""
        self._path = path

    def append(self, row: Mapping[str, float]) -> None:
        """Writes a row; unknown values are `nan`.

        Args:
            row: a number for every column.
        """
        is_new = not self._path.exists()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(COLUMNS)
            writer.writerow([_to_text(row[name]) for name in COLUMNS])

    def read(self) -> dict[str, list[float]]:
        """Returns the columns by name."""
        rows = self._rows()
        return {name: [float(row[name]) for row in rows] for name in COLUMNS}

    def drop_after(self, environment_steps: int) -> None:
        """Drops the rows beyond a number of environment steps, which a resumed run writes again."""
        rows = [row for row in self._rows() if float(row["environment_steps"]) <= environment_steps]
        self._path.unlink(missing_ok=True)
        for row in rows:
            self.append({name: float(row[name]) for name in COLUMNS})

    def _rows(self) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            # A crash can leave a last line that is not complete.
            return [row for row in csv.DictReader(file) if None not in row.values()]


def _to_text(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"
