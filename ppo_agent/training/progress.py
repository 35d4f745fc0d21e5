"""The progress bar."""

from __future__ import annotations

import math
import sys
from typing import Any


class ProgressBar:
    """Shows the steps done, the mean return, steps per second and the time left on standard error; or nothing."""

    def __init__(self, shown: bool, total: int, done: int = 0) -> None:
        """Shows the bar.

        Args:
            shown: whether there is anything to see.
            total: environment steps of the whole run.
            done: those done before.
        """
        self._bar: Any = None
        if shown:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit=" steps", unit_scale=True, dynamic_ncols=True)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: int, mean_return: float) -> None:
        """Moves the bar to `done` environment steps."""
        if self._bar is None:
            return
        if not math.isnan(mean_return):
            self._bar.set_postfix_str(f"return {mean_return:.1f}", refresh=False)
        self._bar.update(done - self._bar.n)


def is_terminal() -> bool:
    """Whether somebody may be watching standard error."""
    return sys.stderr.isatty()
