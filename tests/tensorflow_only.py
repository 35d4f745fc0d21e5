"""A virtual environment with TensorFlow and nothing else, made once and kept inside the running environment."""

import fcntl
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

REQUIREMENTS = Path(__file__).parents[1] / "requirements"


def interpreter() -> Path:
    """Returns the environment's python; creates the environment first (half a minute) if its lock file changed."""
    stack = "".join(tf.__version__.split(".")[:2])
    lock = REQUIREMENTS / f"tf{stack}-tensorflow-only.txt"
    folder = Path(sys.prefix) / "tensorflow-only" / hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        return _create(folder / "venv", lock, complete=folder / "complete")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lets one process at a time in: the workers of pytest-xdist all ask for the environment."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _create(venv: Path, lock: Path, complete: Path) -> Path:
    python = venv / "bin" / "python"
    if not complete.exists():
        _run(sys.executable, "-m", "venv", "--clear", str(venv))
        pip = [str(python), "-m", "pip", "-qq", "--no-input", "install", "--no-compile"]
        _run(*pip, "--no-deps", "--require-hashes", "-r", str(lock))
        complete.touch()
    return python


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
