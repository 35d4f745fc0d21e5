"""A worker of Ray is killed in every iteration: the run ends, learns, and counts the restarts."""

import json
import os
import random
import signal
import threading

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
