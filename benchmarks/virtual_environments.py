"""A virtual environment for each peer, made from a lock file of its own."""

# ruff: noqa: S603 - The commands here are not a user's text.
from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
_FOLDER = HERE / ".venvs"
_BUILD_TOOLS = ROOT / "requirements" / "build.txt"
_VERSION = (3, 11)


class UnavailableError(Exception):
    """A peer cannot be installed; the message says why, in one line."""


def python_of(name: str) -> str:
    """The interpreter of a peer's environment, which is made if there is none or its lock file has changed.

    Args:
        name: of the lock file in `requirements/`; empty for the environment of this process.

    Raises:
        UnavailableError: it cannot be made.
    """
    if not name:
        return sys.executable
    folder, lock = _FOLDER / name, HERE / "requirements" / f"{name}.txt"
    stamp, recipe = folder / ".complete", hashlib.sha256(lock.read_bytes() + _BUILD_TOOLS.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != recipe:
        _make(folder, lock)
        stamp.write_text(recipe, encoding="utf-8")
    return str(folder / "bin" / "python")


def _make(folder: Path, lock: Path) -> None:
    print(f"benchmark: {lock.relative_to(ROOT)} into {folder.relative_to(ROOT)}, a minute or two", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run(_interpreter(), "-m", "venv", str(folder))
    pip = (str(folder / "bin" / "python"), "-m", "pip", "-qq", "--disable-pip-version-check", "--no-input", "install")
    hashed = ("--no-deps", "--require-hashes")
    _run(*pip, *hashed, "-r", str(_BUILD_TOOLS))
    _run(*pip, *hashed, "--no-build-isolation", "-r", str(lock))


def _interpreter() -> str:
    """The first Python of the locked version that runs."""
    names = [sys.executable, "python{}.{}".format(*_VERSION), "python3"]
    for path in filter(None, map(shutil.which, names)):
        check = f"import sys, ensurepip; sys.exit(sys.version_info[:2] != {_VERSION})"
        if subprocess.run([path, "-c", check], capture_output=True, check=False).returncode == 0:
            # The base interpreter: an environment made inside another one would lean on that.
            code = "import sys; print(sys._base_executable)"
            return subprocess.run([path, "-c", code], capture_output=True, check=True, text=True).stdout.strip()
    raise UnavailableError("no Python {}.{} with venv was found".format(*_VERSION))


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, check=False, text=True)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or [result.stderr.strip()]
        raise UnavailableError(f"not installed: {lines[-1][:200]}")
