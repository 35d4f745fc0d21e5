"""metrics.csv: a row per iteration."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ppo_agent.common import atomic_files
from ppo_agent.training.command_line import warn

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
    "skipped_steps",
)


class MetricsTable:
    """Appends rows to a CSV file, each on disk at once, or later if there is no room: none is lost while this lives."""

    def __init__(self, path: Path) -> None:
        """Names the file; the first row creates it."""
        self._path = path
        self._unwritten: list[bytes] = []

    def append(self, row: Mapping[str, float]) -> None:
        """Writes a row; unknown values are `nan`.

        Args:
            row: a number for every column.
        """
        was_written = not self._unwritten
        if was_written and not self._path.exists():
            self._unwritten.append(_to_line(COLUMNS))
        self._unwritten.append(_to_line([_to_text(row[name]) for name in COLUMNS]))
        try:
            self._write()
        except OSError as error:
            if was_written:
                warn(f"{self._path} cannot be written ({error.strerror}): its rows are kept until it can.")

    def sync(self) -> None:
        """Sees to it that all rows survive a crash of the machine.

        Raises:
            OSError: there is no room for them.
        """
        if self._unwritten:
            self._write()
        if self._path.exists():
            with self._path.open("ab") as file:
                os.fsync(file.fileno())

    def read(self) -> dict[str, list[float]]:
        """Returns the columns by name."""
        rows = self._rows()
        return {name: [float(row[name]) for row in rows] for name in COLUMNS}

    def drop_after(self, environment_steps: int) -> None:
        """Drops the rows beyond a number of environment steps, which a resumed run writes again."""
        rows = [row for row in self._rows() if float(row["environment_steps"]) <= environment_steps]
        if rows:
            lines = [COLUMNS, *([row[name] for name in COLUMNS] for row in rows)]
            atomic_files.replace_file(self._path, b"".join(map(_to_line, lines)))
        else:
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        """Writes what is not written yet, or leaves the file as it is.

        Raises:
            OSError: there is no room for it.
        """
        with self._path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            data = b"".join(self._unwritten)
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(before)
                raise
        self._unwritten.clear()

    def _rows(self) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        # A crash can leave a last line that is not complete.
        text, _, _ = self._path.read_bytes().rpartition(b"\n")
        lines = io.StringIO(text.decode("utf-8", "replace"), newline="")
        return [row for row in csv.DictReader(lines, restval="") if all(_is_number(row.get(name)) for name in COLUMNS)]


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True


def _to_line(cells: Iterable[str]) -> bytes:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


def _to_text(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"
