"""`ppo-export`: from a run or an exported policy to files that were verified, and one sentence for each mistake."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import policy_kinds
import pytest
import tensorflow as tf

from ppo_agent import export, export_command, train
from ppo_agent.checkpoint.store import CheckpointStore, load
from ppo_agent.deployment import verification
from ppo_agent.export.formats import FORMATS
from ppo_agent.export.runners import SavedModelRunner


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with two evaluations."""
    root_dir = tmp_path_factory.mktemp("runs") / "run"
    flags = ["--total_environment_steps=1500", "--num_environments=2", "--eval_interval=1", "--num_eval_episodes=2"]
    flags += ["--preset=none", "--collect_steps_per_iteration=128", "--actor_fc_layers=8", "--value_fc_layers=8"]
    assert train.main(["ppo-train", f"--root_dir={root_dir}", "--progress=false", *flags]) == 0
    return root_dir


def call(*flags: str) -> int:
    return export_command.main(["ppo-export", "--num_observations=50", "--num_eval_episodes=2", *flags])


@pytest.mark.parametrize("format_name", FORMATS)
def test_exports_a_run(format_name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in FORMATS[format_name].packages:
        pytest.importorskip(package)
    output = tmp_path / "deep" / "policy"
    assert call(f"--root_dir={run}", f"--format={format_name}", f"--output={output}") == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    path = output / "export.json" if output.is_dir() else output.with_name("export.json")
    report = json.loads(path.read_text())
    assert report == printed
    assert (report["format"], report["environment"]) == (format_name, "CartPole-v1")
    assert report["num_observations"] >= 50
    limit = 0.05 if format_name == "tflite_int8" else 1e-6
    assert report["differences"]["distribution_logits"]["max_relative"] <= limit
    assert report["eval_return_mean"] > 5
    # What is exported is the policy of the last checkpoint, which the run has exported itself.
    observation = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    found = FORMATS[format_name].load(output)({"observation": observation})["distribution_logits"]
    expected = SavedModelRunner(run / "policy")({"observation": observation})["distribution_logits"]
    np.testing.assert_allclose(found, expected, atol=0.05 if format_name == "tflite_int8" else 1e-5)


def test_best_is_another_checkpoint_than_last(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    best = CheckpointStore(copy / "checkpoints").best()
    assert best is not None
    # A later checkpoint that is worse, with other weights.
    loaded = load(best)
    arrays = {k: v * 1.5 if k.startswith("agent/_actor_net") else v for k, v in loaded.arrays.items()}
    parameters = loaded.manifest.hyper_parameters
    CheckpointStore(copy / "checkpoints").write(
        10**6, arrays, loaded.state, evaluation=-1.0, hyper_parameters=parameters
    )
    logits = {}
    observation = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    for which in ("best", "last"):
        output = tmp_path / which
        assert call(f"--root_dir={copy}", f"--output={output}", f"--checkpoint={which}") == 0
        report = json.loads((output / "export.json").read_text())
        assert (report["checkpoint"] == best.name) == (which == "best")
        evaluation = json.loads((output / "metadata.json").read_text())["evaluation"]
        assert (evaluation["eval_return_mean"] == -1.0) == (which == "last")
        logits[which] = SavedModelRunner(output)({"observation": observation})["distribution_logits"]
    assert not np.allclose(logits["best"], logits["last"])


def test_exports_a_policy_without_its_environment(rng: np.random.Generator, tmp_path: Path) -> None:
    export.export_policy(policy_kinds.make("masked_gru", rng), tmp_path / "policy")
    for name in ("one.tflite", "two.tflite"):
        assert call(f"--policy_dir={tmp_path / 'policy'}", "--format=tflite", f"--output={tmp_path / name}") == 0
    report = json.loads((tmp_path / "export.json").read_text())
    assert (report["output"], report["observations"]) == ("two.tflite", "random")
    assert report["differences"]["distribution_logits"]["max_relative"] <= 1e-6
    assert set(report["others"]) == {"one.tflite"}


MISTAKES = {
    "neither": ([], "root_dir and policy_dir: neither is given, expected one of them"),
    "both": (["--root_dir=a", "--policy_dir=b"], "root_dir and policy_dir: both are given"),
    "no_output": (["--root_dir=RUN", "--output="], "output is empty, expected a file or a folder"),
    "format": (["--root_dir=RUN", "--format=pickle"], "pickle"),
    "checkpoint": (["--policy_dir=RUN/policy", "--checkpoint=best"], "checkpoint is given with policy_dir"),
    "policy_dir": (["--policy_dir=RUN"], "expected the folder of an exported policy"),
    "folder": (["--root_dir=RUN", "--format=tflite", "--output=RUN"], "which is a folder, expected the name of a file"),
    "holds": (["--root_dir=RUN", "--output=RUN"], "holds other files than an export's, expected an empty folder"),
    "in_file": (["--root_dir=RUN", "--output=RUN/result.json/x"], "result.json is a file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_flags(mistake: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, message = MISTAKES[mistake]
    output = [] if any(flag.startswith("--output") for flag in flags) else [f"--output={tmp_path / 'out'}"]
    assert call(*(flag.replace("RUN", str(run)) for flag in flags), *output) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_errors_at_run_time_leave_nothing(
    run: Path, rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert call(f"--root_dir={tmp_path / 'empty'}", f"--output={tmp_path / 'out'}") == 1
    assert "expected the folder of a run with checkpoints" in capsys.readouterr().err
    encoder = tf.keras.Sequential([tf.keras.layers.Lambda(lambda x: tf.math.igamma(tf.abs(x) + 1.0, 2.0))])
    policy = policy_kinds.make_policy(policy_kinds.VECTOR, policy_kinds.BOX, rng, encoder=encoder)
    export.export_policy(policy, tmp_path / "policy")
    assert call(f"--policy_dir={tmp_path / 'policy'}", "--format=numpy", f"--output={tmp_path / 'out'}") == 1
    assert "the policy holds the operation Igamma, expected one of" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "policy"]


def test_a_missing_package_is_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert call(f"--root_dir={run}", "--format=onnx", f"--output={tmp_path / 'out'}") == 2
    assert 'run pip install "ppo-agent[onnx]"' in capsys.readouterr().err


def test_differences_are_largest_ones() -> None:
    differences = verification.Differences()
    for scale, error in ((2.0, 0.1), (10.0, 0.3)):
        expected: dict[str, Any] = {"logits": np.array([[scale, -1e9], [0.0, 1.0]]), "action": np.array([1, 2])}
        found = {"logits": expected["logits"] - [[error, 500.0], [0.0, 0.0]], "action": np.array([1, 3])}
        differences.update(found, expected)
    summary = differences.summary()
    assert summary["logits"] == pytest.approx({"max_absolute": 0.3, "max_relative": 0.03})
    assert summary["action"]["differing_rows"] == 0.5
    assert differences.num_rows == 4
