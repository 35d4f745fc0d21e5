"""What a callback is, and how several are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ppo_agent.trainer import Trainer

Hook = Callable[["Trainer"], Any]
HOOKS = (
    "on_training_start", "on_rollout_start", "on_step", "on_rollout_end", "on_update_end", "on_evaluation",
    "on_training_end",
)  # fmt: skip


class Callback:
    """Is told what a trainer does. Any object with some of these methods will do; this class has all of them.

    Each method gets the trainer. One that returns False ends the training after what is under way has been used: the
    experience of the iteration is trained on first.

    Attributes:
        passes: exceptions by which a callback leaves `Trainer.train`; all others become a `CallbackError`.
    """

    passes: tuple[type[BaseException], ...] = ()

    def on_training_start(self, trainer: Trainer) -> bool | None:
        """`Trainer.train` begins."""

    def on_rollout_start(self, trainer: Trainer) -> bool | None:
        """An iteration begins."""

    def on_rollout_end(self, trainer: Trainer) -> bool | None:
        """Experience was collected: `trainer.experience`, [B, T, ...]."""

    def on_update_end(self, trainer: Trainer) -> bool | None:
        """The agent was updated; `trainer.metrics` has the numbers of the iteration. A function is called here."""

    def on_evaluation(self, trainer: Trainer) -> bool | None:
        """The policy was evaluated: `trainer.evaluations[-1]`."""

    def on_training_end(self, trainer: Trainer) -> bool | None:
        """`Trainer.train` ends, by itself, by a callback, an error or Ctrl-C."""


class StepCallback(Callback):
    """A callback that is also told of every step of the environments, where these are stepped in Python.

    Environments that are stepped inside TensorFlow call nobody; the trainer says so in a warning. In Python each call
    takes its time, and environments in processes are all stepped together.
    """

    def on_step(self, trainer: Trainer) -> bool | None:
        """All environments were stepped once: `trainer.time_step`, arrays [B, ...]."""


class CallbackError(RuntimeError):
    """A callback raised an error, which is this one's cause; what was trained is kept."""


class Callbacks:
    """Calls callbacks one after the other.

    Errors do not interrupt what the trainer is doing: the first one is kept until `raise_error`.

    Attributes:
        stop: whether one of them has returned False or raised an error.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        """Takes callbacks and functions.

        Raises:
            TypeError: one of them is neither.
        """
        self._callbacks = [_checked(callback) for callback in callbacks]
        self._hooks = {name: [c for c in self._callbacks if callable(getattr(c, name, None))] for name in HOOKS}
        self.stop = False
        self._error: BaseException | None = None

    def has(self, hook: str) -> bool:
        """Whether any callback listens to a hook."""
        return bool(self._hooks[hook])

    def call(self, hook: str, trainer: Trainer) -> None:
        """Calls all that listen to a hook."""
        for callback in self._hooks[hook]:
            try:
                if _is_false(getattr(callback, hook)(trainer)):
                    self.stop = True
            except BaseException as error:
                self.stop = True
                if self._error is None:
                    self._error = _told(callback, hook, error)

    @property
    def has_error(self) -> bool:
        """Whether one of them has raised an error that was not told yet."""
        return self._error is not None

    def raise_error(self) -> None:
        """Raises the first error that a callback has raised."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def _is_false(returned: Any) -> bool:
    """Whether a callback returned False: Python's, or what NumPy's comparisons give."""
    return isinstance(returned, (bool, np.bool_)) and not returned


def as_list(callbacks: Any) -> list[Any]:
    """What was given as callbacks.

    Raises:
        TypeError: it is no list, or something in it is no callback.
    """
    if callable(callbacks) or isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks is {callbacks!r}, expected a list of callbacks.")
    found = list(callbacks)
    for callback in found:
        _checked(callback)
    return found


class _Function(Callback):
    """A plain function of the trainer."""

    def __init__(self, function: Hook) -> None:
        self.function = function

    def on_update_end(self, trainer: Trainer) -> bool | None:
        return self.function(trainer)


def _checked(callback: Any) -> Any:
    if isinstance(callback, type):
        raise TypeError(f"callback is the class {callback.__name__}, expected an object of it: {callback.__name__}().")
    if any(callable(getattr(callback, hook, None)) for hook in HOOKS):
        return callback
    if callable(callback):
        return _Function(callback)
    raise TypeError(f"callback is {callback!r}, expected a function or an object with any of {', '.join(HOOKS)}.")


def _told(callback: Any, hook: str, error: BaseException) -> BaseException:
    """The error that leaves `Trainer.train`."""
    if not isinstance(error, Exception) or isinstance(error, getattr(callback, "passes", ())):
        return error
    name = type(callback).__name__
    if isinstance(callback, _Function):
        name = getattr(callback.function, "__name__", repr(callback.function))
    told = CallbackError(f"callback {name} raised {type(error).__name__} in {hook}: {error}")
    told.__cause__ = error
    return told
