"""ppo-eval."""

import json
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from ppo_agent import evaluate
from ppo_agent.training import videos


class _BangBang(tf.Module):
    """Pushes CartPole to the side it leans to, which keeps it up for some steps."""

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
    def action(self, observation: tf.Tensor) -> tf.Tensor:
        return tf.cast(observation[:, 2] > 0, tf.int64)


@pytest.fixture(scope="module")
def policy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("policy")
    module = _BangBang()
    signature = module.action.get_concrete_function()
    tf.saved_model.save(module, str(directory), signatures={"action": signature})
    return directory


def run(*arguments: str) -> int:
    return evaluate.main(["ppo-eval", *arguments])


def expected_return(seed: int) -> float:
    """The return of the policy in gymnasium's own environment."""
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(int(observation[2] > 0))
        total, ended = total + float(reward), terminated or truncated
    return total


def test_prints_one_line_of_json(policy_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"--policy_dir={policy_dir}", "--num_episodes=3", "--seed=4") == 0
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    returns = report.pop("episode_returns")
    assert len(returns) == report.pop("num_eval_episodes") == 3
    assert report == {"eval_return_mean": np.mean(returns), "eval_return_std": np.std(returns)}
    assert min(returns) >= 20


def test_episodes_follow_from_the_seed(policy_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = [expected_return(seed) for seed in (7, 8, 9)]
    assert len(set(expected)) > 1
    for seed in (7, 8, 9):
        assert run(f"--policy_dir={policy_dir}", "--num_episodes=1", f"--seed={seed}") == 0
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [report["episode_returns"] for report in reports] == [[value] for value in expected]


def test_records_videos(policy_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = []

    class Recorder(gymnasium.Wrapper):
        def __init__(self, env: gymnasium.Env, folder: str, **_: object) -> None:
            super().__init__(env)
            self.folder = folder

        def reset(self, **arguments: object) -> tuple:
            recorded.append((self.render_mode, self.folder))
            return super().reset(**arguments)

    monkeypatch.setattr(videos, "Recorder", Recorder)
    monkeypatch.setattr(evaluate.util, "find_spec", lambda _: object())
    assert run(f"--policy_dir={policy_dir}", "--num_episodes=2", f"--video_dir={tmp_path}") == 0
    assert recorded == [("rgb_array", str(tmp_path))] * 2


WRONG_FLAGS = {
    "no folder": (["--policy_dir=/no/such/folder"], ["policy_dir", "/no/such/folder"]),
    "no policy": ([], ["policy_dir"]),
    "episodes": (["--num_episodes=0"], ["num_episodes", "0"]),
    "environment": (["--policy_dir={}", "--env_name=NoSuch-v0"], ["env_name", "NoSuch"]),
    "observations": (["--policy_dir={}", "--env_name=Pendulum-v1"], ["policy_dir", "observations"]),
    "actions": (["--policy_dir={}", "--env_name=Wide-v0"], ["policy_dir", "actions"]),
}


@pytest.mark.parametrize("name", WRONG_FLAGS)
def test_wrong_flags_are_told_in_one_line(name: str, policy_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from toy_environments import Spaces

    box = gymnasium.spaces.Box(-1.0, 1.0, [4], np.float32)
    gymnasium.register("Wide-v0", entry_point=lambda **_: Spaces(box, box))
    arguments, words = WRONG_FLAGS[name]
    assert run(*(argument.format(policy_dir) for argument in arguments)) == 2
    gymnasium.registry.pop("Wide-v0")
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words)


def test_names_the_extra_that_videos_need(
    policy_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate.util, "find_spec", lambda _: None)
    assert run(f"--policy_dir={policy_dir}", f"--video_dir={tmp_path / 'videos'}") == 2
    assert "ppo-agent[video]" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_damaged_policy_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"nonsense")
    assert run(f"--policy_dir={tmp_path}") == 2
    assert "cannot be loaded" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["link", "asset"])
def test_names_that_lead_out_of_the_folder_are_refused(
    way: str, policy_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "policy"
    shutil.copytree(policy_dir, directory)
    (tmp_path / "secret").write_text("x")
    if way == "link":
        (index,) = (directory / "variables").glob("*.index")
        index.unlink()
        index.symlink_to(tmp_path / "secret")
    else:
        graphs = saved_model_pb2.SavedModel()
        graphs.ParseFromString((directory / "saved_model.pb").read_bytes())
        graphs.meta_graphs[0].asset_file_def.add(filename="../../secret")
        (directory / "saved_model.pb").write_bytes(graphs.SerializeToString())
    assert run(f"--policy_dir={directory}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"leads to {tmp_path / 'secret'}" in line
