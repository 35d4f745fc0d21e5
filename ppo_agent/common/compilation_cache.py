"""Programs that XLA has compiled for the CPU, kept for the next process that needs them.

TensorFlow can save compiled programs in a folder, and load one whose name, signature and whole source (XLA's HLO) are
those of the program that it would compile. It does not see whether the machine code is damaged, or is another
machine's. So every process gives TensorFlow a folder of its own, fills it with the programs that are sound and were
compiled by the same versions with the same flags for the same processor, and keeps what TensorFlow adds to it, see
`program_store`.

Of use on Linux with TensorFlow 2.21 or later; XLA of TensorFlow 2.15 cannot save programs for a CPU.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ppo_agent.common.program_store import ProgramStore, make_staging, move_staging, remove_staging
from ppo_agent.common.stderr_noise import without_lines

_logger = logging.getLogger(__name__)

# Where to keep programs, in place of the user's cache folder; one of `OFF` to keep none.
VARIABLE = "PPO_AGENT_COMPILATION_CACHE"
OFF = ("0", "off", "false", "no")
_FLAGS = "TF_XLA_FLAGS"
_OLDEST_TENSORFLOW = (2, 21)
_FEWEST_FREE_BYTES = 256 * 2**20
_PROCESSOR_FIELDS = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU part", "Features")

# TensorFlow reads a program as text first. The two features steer LLVM while it compiles; no processor has them.
_LOADING_NOISE = re.compile(
    rb"E\d{4} .*(\] Error parsing text-format tensorflow\.XlaSerializedCacheEntry: "
    rb"|\] Loading XLA:CPU AOT result\. Target machine feature \+prefer-no-(gather|scatter) is not )"
)


class _Cache:
    """What this process keeps and loads."""

    def __init__(self, folder: Path, staging: Path) -> None:
        self._folder, self._staging, self._pid = folder, staging, os.getpid()
        self._store: ProgramStore | None = None
        self._filled: list[str] = []
        self._stderr = threading.Lock()
        self.is_on = True

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """As the function `call`."""
        import tensorflow as tf

        self._fill()
        try:
            result = self._call_quietly(function, arguments)
        except tf.errors.OpError as error:
            if "Serialized" in str(error) and self._store is not None:  # A program that cannot be loaded.
                self._store.drop(self._filled)
            if str(self._staging) not in str(error):
                raise
            result = self._call_elsewhere(function, arguments)
        self._keep()
        return result

    def end(self) -> None:
        """Keeps the last programs and deletes the process's folder."""
        if os.getpid() == self._pid:
            self._keep()
            remove_staging(self._staging)

    def _fill(self) -> None:
        """Hands the programs of earlier processes to TensorFlow, once."""
        if self._store is not None or not self.is_on:
            return
        try:
            # As late as this, because flags in the environment may be set until XLA is first used.
            self._store = ProgramStore(self._folder, _key())
            self._filled = self._store.fill(self._staging)
        except OSError as error:
            self.is_on = False
            _logger.info("No compiled programs are kept: %s", error)

    def _keep(self) -> None:
        """Keeps what TensorFlow has compiled."""
        if self._store is not None and self.is_on:
            self._store.take(self._staging)

    def _call_quietly(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        # One thread only: it is the process's standard error.
        if not self._filled or not self._stderr.acquire(blocking=False):
            return function(*arguments)
        try:
            with without_lines(_LOADING_NOISE):
                return function(*arguments)
        finally:
            self._stderr.release()

    def _call_elsewhere(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Calls once more where programs can be saved: the disk may be full."""
        with contextlib.suppress(OSError):
            move_staging(self._staging)
        return function(*arguments)


class _Process:
    """What there is once in a process, as TensorFlow's flags are."""

    is_started = False
    folder = ""
    cache: _Cache | None = None


_process = _Process()


def start() -> None:
    """Has TensorFlow keep and load compiled programs, where that is sound; does nothing the second time.

    To be called when TensorFlow is imported and has not looked for devices yet: that is when it reads its flags, which
    stay in the environment no longer than that. Nothing is kept if the environment variable `VARIABLE` is one of `OFF`,
    if TF_XLA_FLAGS names a folder already, or if there is no folder that nobody else can write into.
    """
    if _process.is_started:
        return
    _process.is_started = True
    folder = _folder()
    if folder is None or not _is_sound_here():
        return
    try:
        staging = make_staging(folder)
        if shutil.disk_usage(staging).free < _FEWEST_FREE_BYTES:
            raise OSError(f"{folder} has less than {_FEWEST_FREE_BYTES >> 20} MB of free space.")
    except OSError as error:
        _logger.warning("No compiled programs are kept: %s", error)
        return
    _hand_over(staging)
    _process.cache = _Cache(folder, staging)
    atexit.register(_process.cache.end)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function that XLA compiles in this call, or loads; returns what it returns.

    If a program cannot be saved where it should be, the function is called again and saves it elsewhere.
    """
    return function(*arguments) if _process.cache is None else _process.cache.call(function, arguments)


def use(folder: str) -> None:
    """Names the folder to keep programs in, before `start`: it beats the environment variable, as whose value it is."""
    _process.folder = folder


def disable() -> None:
    """Keeps and loads no programs from now on."""
    _process.is_started = True
    if _process.cache is not None:
        _process.cache.is_on = False


def _folder() -> Path | None:
    """Where to keep programs; None for nowhere."""
    given = _process.folder or os.environ.get(VARIABLE, "")
    if given.lower() in OFF:
        return None
    if given:
        return Path(given).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME", "")
    try:
        home = Path(caches) if os.path.isabs(caches) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return home / "ppo_agent" / "xla"


def _is_sound_here() -> bool:
    import tensorflow as tf

    version = tuple(int(part) for part in tf.__version__.split(".")[:2])
    named = "tf_xla_persistent_cache" in os.environ.get(_FLAGS, "")
    is_known = version >= _OLDEST_TENSORFLOW and _reader_of_flags() is not None
    return sys.platform == "linux" and is_known and not named and bool(_processor())


def _reader_of_flags() -> Callable[[], object] | None:
    """What has TensorFlow read its flags; None where a version of it has no such function."""
    from tensorflow.python.client import pywrap_tf_session

    return getattr(pywrap_tf_session, "TF_GetXlaConstantFoldingDisabled", None)


def _hand_over(staging: Path) -> None:
    """Has TensorFlow read its flags, with the folder among them."""
    read_flags = _reader_of_flags()
    if read_flags is None:
        return
    before = os.environ.get(_FLAGS)
    own = f"--tf_xla_persistent_cache_directory={staging} --tf_xla_persistent_cache_device_types=CPU"
    os.environ[_FLAGS] = f"{before} {own}" if before else own
    try:
        read_flags()
    finally:
        # Other programs that this one starts have no business in the folder.
        if before is None:
            del os.environ[_FLAGS]
        else:
            os.environ[_FLAGS] = before


def _key() -> str:
    """A name for everything that a compiled program depends on beside its source."""
    import tensorflow as tf

    parts = [
        sys.modules["ppo_agent"].__version__,
        platform.python_version(),
        tf.version.VERSION,
        tf.version.GIT_VERSION,
        tf.version.COMPILER_VERSION,
        {name: os.environ.get(name) for name in (_FLAGS, "XLA_FLAGS")},
        len(os.sched_getaffinity(0)),
        _processor(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _processor() -> dict[str, str]:
    """What the system tells of the first processor; empty if it tells nothing."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    fields = (line.partition(":") for line in first.splitlines())
    return {name.strip(): text.strip() for name, _, text in fields if name.strip() in _PROCESSOR_FIELDS}
