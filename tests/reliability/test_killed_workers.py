"""Kills of Ray's workers, and of the process that started them."""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable

import pytest

from ppo_agent import Trainer

ray = pytest.importorskip("ray")

KINDS = ("ResourceWarning", "FutureWarning", "DeprecationWarning")
KILLS = 50


class Killer:
    """Kills one of the workers in each of the first iterations, at some time while the next rollout is under way."""

    def __init__(self):
        self.kills, self._rng = 0, random.Random(0)

    def __call__(self, trainer):
        if self.kills < KILLS:
            pid = self._rng.choice(trainer.env.drivers[0].processes())["pid"]
            timer = threading.Timer(self._rng.uniform(0.0, 0.05), os.kill, (pid, signal.SIGKILL))
            timer.start()
            self.kills += 1


@pytest.mark.slow
@pytest.mark.filterwarnings(*(f"ignore::{kind}" for kind in KINDS))
def test_a_worker_is_killed_in_each_of_fifty_iterations(tmp_path):
    killer = Killer()
    with Trainer("CartPole-v1", root_dir=tmp_path / "run", rollout_workers=2) as trainer:
        trainer.train(140_000, callbacks=[killer])
        assert trainer.evaluate(20).mean > 450
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert killer.kills == KILLS
    # A worker may be killed twice before it answers.
    assert KILLS - 5 <= result["worker_restarts"] <= KILLS
    assert result["environment_steps"] > 120_000


def processes_with(variable: str) -> list[int]:
    """Ids of the processes in whose environment `variable`, a text NAME=VALUE, stands; zombies have none."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # It has ended meanwhile.
            if variable.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_a_ray_that_the_run_started_ends_after_the_run_is_killed(tmp_path: pathlib.Path) -> None:
    mark, run = f"PPO_TEST_MARK={uuid.uuid4()}", tmp_path / "run"
    command = [sys.executable, "-m", "ppo_agent.train", "--env_name=CartPole-v1", "--rollout_workers=2",
               "--total_environment_steps=100000000", f"--root_dir={run}"]  # fmt: skip
    environment = {**os.environ, **dict([mark.split("=")])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: (run / "metrics.csv").exists() or process.poll() is not None, 120)
    assert len(processes_with(mark)) >= 4  # The run, two workers, and Ray's own ones.
    process.kill()
    process.wait()
    wait_until(lambda: not processes_with(mark), 120)
