"""Lines on standard error that a library writes and nobody needs."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps back the warnings of Python, and those that TensorFlow's modules log through absl."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def without_lines(pattern: re.Pattern[bytes]) -> Iterator[None]:
    """Holds back what is written to file descriptor 2, and writes the lines that do not match at the end.

    Args:
        pattern: matched from the beginning of a line.
    """
    try:
        descriptor = os.dup(2)
    except OSError:  # It is closed: nobody reads it.
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(descriptor, 2)
            os.close(descriptor)
            captured.seek(0)
            _write_all(2, b"".join(line for line in captured if not pattern.match(line)))


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
