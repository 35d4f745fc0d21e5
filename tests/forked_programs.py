"""Programs that start where `import ppo_agent, tensorflow` has ended, without the seconds that this takes.

A process that has imported both and computed nothing forks for each of them. What TensorFlow reads from the environment
at its first operation, flags of XLA among it, is the program's own.
"""

from __future__ import annotations

import atexit
import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

_SERVER = """
import atexit, json, os, sys, traceback
import ppo_agent
import tensorflow as tf
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ.clear()
        os.environ.update(job["environment"])
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT), number)
        status = 0
        try:
            exec(compile(job["code"], "program", "exec"), {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            status = 1
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Done(NamedTuple):
    """What a program left."""

    returncode: int
    stdout: str
    stderr: str


class _Server:
    """The process that forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(self._process.communicate)

    def run(self, code: str, environment: dict[str, str]) -> Done:
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            job = {"code": code, "environment": environment, "out": str(out), "err": str(err)}
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            status = self._process.stdout.readline()
            return Done(int(status), out.read_text(), err.read_text())


_server = functools.cache(lambda index: _Server())


def run(code: str, environment: dict[str, str], index: int = 0) -> Done:
    """Runs Python code with an environment and waits for its end.

    Args:
        code: of the program.
        environment: all variables that it has.
        index: of the process that forks: programs with the same one run one after the other.
    """
    return _server(index).run(code, environment)
