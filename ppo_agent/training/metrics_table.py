"""metrics.csv: a row per iteration."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ppo_agent.common import atomic_files
from ppo_agent.training.command_line import warn

# In front of the names that environments give to numbers in their infos.
INFO = "info/"
COLUMNS = (
    "environment_steps", "wall_time_s", "episode_return_mean", "episode_length_mean", "policy_gradient_loss",
    "value_estimation_loss", "entropy", "approx_kl", "clip_fraction", "explained_variance", "learning_rate",
    "steps_per_second", "skipped_steps", "episode_return_min", "episode_return_max", "episode_length_min",
    "episode_length_max", "episodes", "truncated_fraction", "importance_ratio_clipping", "entropy_regularization",
    "gradient_norm", "value_mean", "return_mean", "advantage_mean", "action_std", "train_step", "loss",
    "value_clipping",
)  # fmt: skip
# Evaluations, in evaluations.csv.
EVALUATION_COLUMNS = ("environment_steps", "wall_time_s", "return_mean", "return_std", "num_episodes")


class MetricsTable:
    """Appends rows to a CSV file, each on disk at once, or later if there is no room: none is lost while this lives.

    Behind its columns come those of what environments say in their infos, as far as rows have had them.
    """

    def __init__(self, path: Path, columns: Sequence[str] = COLUMNS) -> None:
        """Names the file and its columns, of which `environment_steps` is one; the first row creates it."""
        self._path, self._columns = path, tuple(columns)
        self._unwritten: list[bytes] = []
        self._knows_header = False

    def append(self, row: Mapping[str, float]) -> None:
        """Writes a row of numbers by column; unknown values are `nan`."""
        with contextlib.suppress(OSError):  # Told below, where the row cannot be written either.
            self._add_columns([name for name in row if name.startswith(INFO)])
        was_written = not self._unwritten
        if was_written and not self._path.exists():
            self._unwritten.append(_to_line(self._columns))
        self._unwritten.append(_to_line([_to_text(row.get(name, math.nan)) for name in self._columns]))
        try:
            self._write()
        except OSError as error:
            if was_written:
                warn(f"{self._path} cannot be written ({error.strerror}): its rows are kept until it can.")

    def sync(self) -> None:
        """Makes sure that all rows survive a crash of the machine.

        Raises:
            OSError: there is no room for them.
        """
        if self._unwritten:
            self._write()
        if self._path.exists():
            with atomic_files.open_to_append(self._path) as file:
                os.fsync(file.fileno())

    def read(self) -> dict[str, list[float]]:
        """Returns the columns by name."""
        rows = self._rows()
        return {name: [float(row[name]) for row in rows] for name in self._columns}

    def drop_after(self, environment_steps: int) -> None:
        """Drops the rows beyond a number of environment steps, which a resumed run writes again."""
        rows = [row for row in self._rows() if float(row["environment_steps"]) <= environment_steps]
        if rows:
            self._replace(rows)
        else:
            self._path.unlink(missing_ok=True)

    def _add_columns(self, names: Sequence[str]) -> None:
        """Adds columns behind those that there are; rows that wait for room keep theirs.

        Raises:
            OSError: the file cannot be read or written.
        """
        if not self._knows_header:
            self._rows()
        if not self._unwritten and (new := [name for name in names if name not in self._columns]):
            rows, before = self._rows(), self._columns
            self._columns = (*before, *new)
            try:
                if rows:
                    self._replace([{**dict.fromkeys(new, "nan"), **row} for row in rows])
            except OSError:
                self._columns = before
                raise

    def _replace(self, rows: Sequence[Mapping[str, str]]) -> None:
        lines = [self._columns, *([row[name] for name in self._columns] for row in rows)]
        atomic_files.replace_file(self._path, b"".join(map(_to_line, lines)))

    def _write(self) -> None:
        """Writes what is not written yet, or leaves the file as it is.

        Raises:
            OSError: there is no room for it, or the file is a link or no file at all.
        """
        with atomic_files.open_to_append(self._path) as file:
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
        """The rows whose numbers can be read; columns that an earlier version did not write are `nan`."""
        if not self._path.exists():
            self._knows_header = True
            return []
        # A crash can leave a last line that is not complete.
        text, _, _ = atomic_files.read_file(self._path).rpartition(b"\n")
        lines = io.StringIO(text.decode("utf-8", "replace").replace("\0", ""), newline="")
        reader = csv.DictReader(lines, restval="")
        rows: list[dict[str, str]] = []
        with contextlib.suppress(csv.Error):
            header = reader.fieldnames or ()
            known = dict.fromkeys((*self._columns, *(name for name in header if name.startswith(INFO))))
            self._columns, self._knows_header = tuple(known), True
            absent = dict.fromkeys(set(self._columns) - set(header), "nan")
            for row in reader:
                rows.append({**row, **absent})  # noqa: PERF401 - those before the error are kept.
        return [row for row in rows if all(_is_number(row.get(name)) for name in self._columns)]


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
