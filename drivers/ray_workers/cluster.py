"""Joins a Ray cluster, or starts one on this machine."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

# What Ray itself and its processes read.
_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
MISSING = "ray is not installed, expected for workers of Ray: run `pip install 'ppo-agent[ray]'`."


def load_ray() -> Any:
    """Imports ray.

    Raises:
        ImportError: It is not installed; the message is one sentence that says what to install.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError(MISSING, name="ray") from error


def connect(address: str | None, num_workers: int) -> tuple[Any, bool]:
    """Returns ray, connected, and whether it was started here.

    Args:
        address: Of a cluster, as `ray.init` takes it; None for the one that this process is connected to, else for one
            on this machine, without a dashboard and bound to loopback.
        num_workers: How many cores a new one offers at least.

    Raises:
        ImportError: See `load_ray`.
        ValueError: There is no cluster at that address.
    """
    ray = load_ray()
    if ray.is_initialized():
        return ray, False
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address is not None:
        try:
            _check_listens(address)
            with _own_signal_handlers():
                ray.init(address=address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            hint = " with this machine's token (RAY_AUTH_TOKEN_PATH)" if "token" in repr(error.__cause__) else ""
            raise ValueError(f"ray_address is {address!r}, expected that of a running Ray cluster{hint}.") from error
        return ray, True
    cores = max(num_workers, os.cpu_count() or 1)
    with _on_loopback(), _own_signal_handlers():
        ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
    return ray, True


def _check_listens(address: str) -> None:
    """Raises OSError if nothing listens at host:port: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Inside, Ray takes this machine's address to be 127.0.0.1, as it does on Windows and macOS."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before = constants.ENABLE_RAY_CLUSTER, os.environ.get(_CLUSTERS)
    constants.ENABLE_RAY_CLUSTER, os.environ[_CLUSTERS] = False, "0"
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before[0]
        os.environ.pop(_CLUSTERS)
        if before[1] is not None:
            os.environ[_CLUSTERS] = before[1]


@contextlib.contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Gives the process back the handlers of signals that Ray replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
