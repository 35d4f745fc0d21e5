"""The folder that a run writes into."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from pathlib import Path

from ppo_agent.common import atomic_files

_MARKS = ("settings.json", "metrics.csv", "result.json", "checkpoints")


class RunDirectory:
    """Paths of a run's files, the checks that come before anything is written, and the lock that keeps others out.

    The lock is given back at the end of a `with` block, or by the system when the process ends, however it ends.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Names the folder; nothing is made yet.

        Raises:
            TypeError: it is no path.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"the folder is {path!r}, expected a path.")
        self.path = Path(path)
        self.settings = self.path / "settings.json"
        self.result = self.path / "result.json"
        self.metrics = self.path / "metrics.csv"
        self.evaluations = self.path / "evaluations.csv"
        self.learning_curve = self.path / "learning_curve.png"
        self.checkpoints = self.path / "checkpoints"
        self.train_events, self.eval_events = self.path / "train", self.path / "eval"
        self.policy, self.policy_saver = self.path / "policy", self.path / "policy_saver"
        self._lock: int | None = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def holds_run(self) -> bool:
        """Whether a run has written into it."""
        return any((self.path / mark).exists() for mark in _MARKS)

    @property
    def has_trained(self) -> bool:
        """Whether a run has finished an iteration in it."""
        return self.metrics.exists() or self.result.exists()

    def check(self, resume: bool) -> None:
        """Checks that a run can be started here, or resumed.

        Raises:
            ValueError: it cannot be written, holds a run although a new one is to start, holds none to resume, or a
                name in it leads out of it.
        """
        if not _is_writable(self.path):
            raise ValueError(f"root_dir is {str(self.path)!r}, expected a folder that can be written.")
        if self.holds_run and not resume:
            raise ValueError(
                f"root_dir is {str(self.path)!r}, which already holds a run: expected --resume "
                "(in Python Trainer.load), or another one."
            )
        if resume and not self.holds_run:
            raise ValueError(f"root_dir is {str(self.path)!r}, expected the folder of a run, because resume is given.")
        self._check_links()

    def check_for_saving(self) -> None:
        """Checks that a trainer can be saved here.

        Raises:
            ValueError: it cannot be written, holds a run's files, or a name in it leads out of it.
        """
        if not _is_writable(self.path):
            raise ValueError(f"path is {str(self.path)!r}, expected a folder that can be written.")
        is_other = self.path.is_dir() and any(self.path.iterdir()) and not self.settings.is_file()
        if self.has_trained or is_other:
            found = "a run" if self.has_trained else "other files"
            raise ValueError(f"path is {str(self.path)!r}, which holds {found}: expected another one.")
        self._check_links()

    def _check_links(self) -> None:
        """Raises ValueError if a file of the run is a link to somewhere else, which would be read or overwritten."""
        inside = self.path.resolve()
        for path in vars(self).values():
            if not isinstance(path, Path) or path == self.path:
                continue
            if path.is_symlink() or not path.resolve().is_relative_to(inside):
                raise ValueError(f"root_dir is {str(self.path)!r}, but {path.name} in it leads to {path.resolve()}.")
            if path.suffix and path.exists() and not path.is_file():
                raise ValueError(f"root_dir is {str(self.path)!r}, but {path.name} in it is no regular file.")

    def lock(self) -> None:
        """Keeps other runs out, and deletes what earlier ones did not finish writing.

        Raises:
            ValueError: another run is using the folder, or it cannot be written.
        """
        if self._lock is not None:
            return
        try:
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise self._not_writable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise ValueError(f"root_dir is {str(self.path)!r}, which another run is using at this moment.") from error
        except OSError:
            # A file system without locks: better a run without one than none.
            pass
        self._lock = lock
        _HELD.add(lock)
        atomic_files.remove_unfinished(self.path)

    @property
    def is_lost(self) -> bool:
        """Whether the folder that was locked has been deleted or moved meanwhile."""
        if self._lock is None:
            return False
        try:
            found, held = os.stat(self.path / ".lock"), os.fstat(self._lock)
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino)

    def release(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._forget_lock()

    def _forget_lock(self) -> None:
        if self._lock is not None:
            # Not in a forked process, which has closed it.
            if self._lock in _HELD:
                _HELD.remove(self._lock)
                os.close(self._lock)
            self._lock = None

    def create(self, resume: bool = False) -> None:
        """Makes the folder and those for events, and locks it.

        Raises:
            ValueError: the system does not let it, or another run was faster.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_writable(error) from error
        self.lock()
        self.check(resume)
        try:
            for folder in (self.train_events, self.eval_events):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> ValueError:
        return ValueError(f"root_dir is {str(self.path)!r}, expected a folder that can be written: {error.strerror}.")


# Descriptors of the locks that this process holds.
_HELD: set[int] = set()


def _forget_locks() -> None:
    while _HELD:
        os.close(_HELD.pop())


# Processes of environments, which are forked, must not hold a lock when this process is gone.
os.register_at_fork(after_in_child=_forget_locks)


def default_root_dir(env_name: str) -> Path:
    """`runs/ENV/TIME`, a folder that does not exist yet."""
    name = re.sub(r"[^\w./-]", "_", env_name).strip("./")
    path = first = Path("runs", *(part for part in name.split("/") if part != ".."), time.strftime("%Y%m%d-%H%M%S"))
    number = 1
    while path.exists():
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    return path


def _is_writable(path: Path) -> bool:
    """Whether the folder exists and can be written, or can be made."""
    for folder in (path, *path.absolute().parents):
        if folder.exists():
            return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    return False
