"""How far a training is, for those who watch."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from ppo_agent.callbacks.base import Callback

if TYPE_CHECKING:
    from ppo_agent.trainer import Trainer


class ProgressBar(Callback):
    """Shows the steps done, the mean return, steps per second and the time left: on standard error, or in a notebook.

    `ppo-train` shows one on a terminal.
    """

    def __init__(self) -> None:
        self._bar: Any = None

    def on_training_start(self, trainer: Trainer) -> None:
        """Shows the bar."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # That a notebook without ipywidgets shows a bar of characters.
            from tqdm.auto import tqdm

        total, done = trainer.target_steps, trainer.environment_steps
        self._bar = tqdm(total=total, initial=done, unit=" steps", unit_scale=True, dynamic_ncols=True)

    def on_update_end(self, trainer: Trainer) -> None:
        """Moves the bar."""
        if not math.isnan(trainer.mean_return):
            self._bar.set_postfix_str(f"return {trainer.mean_return:.1f}", refresh=False)
        self._bar.update(trainer.environment_steps - self._bar.n)

    def on_training_end(self, _: Trainer) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
