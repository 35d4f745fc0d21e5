"""`rollout_workers`: a run whose environments are stepped by actors of Ray."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import space_environments

from ppo_agent import Trainer
from ppo_agent.drivers.ray_workers import cluster
from ppo_agent.training import named_environments, settings

ray = pytest.importorskip("ray")

KINDS = ("ResourceWarning", "FutureWarning", "DeprecationWarning")
pytestmark = pytest.mark.filterwarnings(*(f"ignore::{kind}" for kind in KINDS))

SMALL = {
    "rollout_workers": 2,
    "num_environments": 4,
    "collect_steps_per_iteration": 32,
    "minibatch_size": 32,
    "num_epochs": 2,
    "actor_fc_layers": (8,),
    "value_fc_layers": (8,),
    "num_eval_episodes": 1,
}


@pytest.fixture(scope="module")
def connected():
    cluster.connect(None, 2)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.shutdown()


def parameters(trainer):
    return np.concatenate([v.numpy().ravel() for v in trainer.agent._trained_variables()])


def test_runs_are_equal_and_a_saved_one_continues(connected, tmp_path):
    found = []
    for root in ("a", "b"):
        with Trainer("CartPole-v1", seed=3, root_dir=tmp_path / root, **SMALL) as trainer:
            trainer.train(384)
            found.append(parameters(trainer))
            assert 256 < trainer.environment_steps <= 384
    np.testing.assert_array_equal(*found)
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert (result["worker_restarts"], result["stale_rollouts"]) == (0, 0)
    with Trainer.load(tmp_path / "a") as trainer:
        np.testing.assert_array_equal(parameters(trainer), found[0])
        before = trainer.environment_steps
        trainer.train(before + 256)
        assert trainer.environment_steps > before
        assert np.isfinite(parameters(trainer)).all()
        assert trainer.predict(np.zeros(4, np.float32))[0] in (0, 1)


KINDS_OF_SPACES = [
    (("dict", "tuple", True), {}),
    pytest.param(("tuple", "multi", True), {"recurrent": True, "memory": "gru"}, marks=pytest.mark.slow),
    pytest.param(("image", "box", False), {"squash_actions": True}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "given"), KINDS_OF_SPACES)
def test_environments_of_all_kinds_of_spaces(connected, kind, given):
    """Masks, nests, pictures and memory; the environments themselves check the actions."""
    ray.cloudpickle.register_pickle_by_value(space_environments)
    with Trainer(functools.partial(space_environments.AnySpaces, *kind), seed=1, **SMALL, **given) as trainer:
        trainer.train(80)
        assert trainer.environment_steps > 40
        assert np.isfinite(parameters(trainer)).all()


class Dying(gym.Wrapper):
    """Kills its process in its 50th step, unless there is a file."""

    def __init__(self, path):
        super().__init__(gym.make("CartPole-v1"))
        self._path, self._count = path, 0

    def step(self, action):
        self._count += 1
        if self._count == 50:
            with contextlib.suppress(FileExistsError):  # The first of all that come here dies, and no other.
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


def test_the_result_counts_restarts(connected, tmp_path):
    path = str(tmp_path / "died")
    with Trainer(lambda: Dying(path), root_dir=tmp_path / "run", **SMALL) as trainer:
        trainer.train(384)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["worker_restarts"] == 1


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"rollout_workers": 3, "num_environments": 4},
            "num_environments is 4, expected a multiple of rollout_workers",
        ),
        ({"rollout_workers": -1}, "rollout_workers is -1, expected an integer of at least 0"),
        ({"ray_address": "auto"}, "ray_address is given without rollout_workers"),
        (
            {"rollout_workers": 2, "collect_episodes_per_iteration": 3},
            "collect_episodes_per_iteration is given with rollout_workers",
        ),
    ],
)
def test_settings_that_do_not_fit(given, text):
    with pytest.raises(ValueError, match=text):
        settings.combine({}, given)


def test_presets_that_collect_episodes_collect_steps_with_workers():
    found = settings.combine({"collect_episodes_per_iteration": 8}, {"rollout_workers": 2})
    assert (found.collect_episodes_per_iteration, found.collect_steps_per_iteration) == (None, 256)


def test_classes_of_environments_are_recipes():
    class Own(gym.Wrapper):
        def __init__(self):
            super().__init__(gym.make("CartPole-v1"))

    assert [named_environments.is_recipe(like) for like in (Own, Own(), "CartPole-v1")] == [True, False, True]
    env = named_environments.make_remote_environments(Own, 2)
    assert (env.batch_size, env.observation_spec().shape) == (2, (4,))


def test_atari_games_come_with_their_preprocessing():
    pytest.importorskip("ale_py")
    env = named_environments.make_remote_environments("ALE/Pong-v5", 2)
    assert env.observation_spec().shape == (84, 84, 4)


@pytest.mark.parametrize("env", ["TFCartPole", "envpool:CartPole-v1"])
def test_environments_that_workers_do_not_step(env):
    with pytest.raises(ValueError, match="with rollout_workers: they do not step environments that are vectorised"):
        Trainer(env, preset="none", **SMALL)


def test_without_ray_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"^ray is not installed, .* run `pip install 'ppo-agent\[ray\]'`\.$"):
        Trainer("CartPole-v1", **SMALL)


def test_a_cluster_that_is_not_there(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for address in ("127.0.0.1:1", "nobody.invalid:6379"):
        with pytest.raises(ValueError, match=f"ray_address is '{address}', expected that of a running Ray"):
            Trainer("CartPole-v1", **SMALL, ray_address=address)


def train(root, *flags):
    program = [sys.executable, "-m", "ppo_agent.train", f"--root_dir={root}", "--checkpoint_interval=1", *flags]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(root).parent)


@pytest.mark.slow
def test_a_run_whose_process_was_killed_resumes_and_leaves_no_process(tmp_path):
    root = tmp_path / "run"
    process = train(root, "--env_name=CartPole-v1", "--rollout_workers=2", "--total_environment_steps=10000000")
    table = root / "metrics.csv"
    deadline = time.monotonic() + 120
    while not table.exists() or len(table.read_text().splitlines()) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    import psutil

    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    # Ray looks five times whether its daemon is there before it gives up.
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive
    rows = len(table.read_text().splitlines())
    resumed = train(root, "--resume", "--total_environment_steps=60000")
    _, err = resumed.communicate(timeout=180)
    assert resumed.returncode == 0, err
    result = json.loads((root / "result.json").read_text())
    assert result["environment_steps"] > 50000
    assert len(table.read_text().splitlines()) > rows
