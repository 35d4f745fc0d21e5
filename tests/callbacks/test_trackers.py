"""Trackers of experiments, offline: what they write into folders is read back."""

import json
import math
import struct
import time
import types
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from PIL import Image
from reliability import corruptions

from ppo_agent import Trainer, callbacks

TINY = {
    "num_environments": 2, "collect_steps_per_iteration": 20, "minibatch_size": 20, "num_epochs": 1,
    "actor_fc_layers": (4,), "value_fc_layers": (4,), "preset": "none", "num_eval_episodes": 2, "eval_interval": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _without_compilation():
    with corruptions.without_compilation():
        yield


def train(callback: callbacks.Callback) -> dict:
    """Trains for three iterations; returns the numbers of the last one."""
    with Trainer("CartPole-v1", callbacks=[callback], **TINY) as trainer:
        trainer.train(120)
        (steps, evaluation) = trainer.evaluations[-1]
        return {**trainer.metrics, "eval_return_mean": evaluation.mean, "evaluated_at": steps}


def records_of(data: bytes) -> Iterator[bytes]:
    """The records of a run's file, which is a LevelDB log: blocks of 32 KB, a header of 7 bytes before each part."""
    record, position, block = b"", 7, 2**15
    while position < len(data):
        if (left := block - position % block) < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in {1, 4}:  # A whole record, or its last part.
            yield record
            record = b""


def values_of(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def complete_records(file: Path, kind: Any) -> list[Any]:
    """The records up to that of the exit, which another process may write a moment after the run has ended."""
    deadline = time.monotonic() + 30
    records = []
    while time.monotonic() < deadline and not any(record.HasField("exit") for record in records):
        time.sleep(0.05)
        records = [kind.FromString(data) for data in records_of(file.read_bytes())]
    return records


def check_policy(folder: Path) -> None:
    policy = tf.saved_model.load(str(folder))
    assert policy.action(tf.zeros([3, 4])).shape == (3,)


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of wandb's own.
        numbers = train(callbacks.WandbCallback(project="p", mode="offline"))
    assert wandb.run is None
    (file,) = tmp_path.rglob("run-*.wandb")
    records = complete_records(file, wandb_internal_pb2.Record)
    config, rows, artifacts = {}, [], []
    for record in records:
        config |= values_of(record.run.config.update)
        rows.append(values_of(record.history.item))
        artifacts += [record.artifact] if record.HasField("artifact") else []
    assert config["num_environments"] == 2
    assert config["env_name"] == "CartPole-v1"
    logged = [row for row in rows if row.get("environment_steps") == numbers["environment_steps"]]
    assert logged[0]["entropy"] == pytest.approx(numbers["entropy"])
    assert any(row.get("eval_return_mean") == pytest.approx(numbers["eval_return_mean"]) for row in rows)
    assert any("learning_curve" in name for row in rows for name in row)
    (artifact,) = artifacts
    assert artifact.type == "model"
    assert (
        "saved_model.pb" in {entry.path for entry in artifact.manifest.contents} or artifact.manifest.manifest_file_path
    )
    (picture,) = tmp_path.rglob("learning_curve*.png")
    Image.open(picture).verify()


def test_mlflow_into_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of MLflow's own.
        numbers = train(callbacks.MLflowCallback(run_name="r"))
        assert mlflow.active_run() is None
        (run,) = mlflow.MlflowClient((tmp_path / "mlruns").as_uri()).search_runs(["0"])
    assert run.data.params["num_environments"] == "2"
    assert run.data.params["actor_fc_layers"] == "(4,)"
    assert run.data.metrics["entropy"] == pytest.approx(numbers["entropy"])
    assert run.data.metrics["eval_return_mean"] == pytest.approx(numbers["eval_return_mean"])
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    check_policy(folder / "policy")
    Image.open(folder / "learning_curve.png").verify()


def test_without_results_and_into_a_run_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = []
    config = types.SimpleNamespace(update=lambda settings, **_: logged.append(settings))
    wandb = types.SimpleNamespace(run=object(), config=config, log=lambda numbers, step: logged.append((numbers, step)))
    monkeypatch.setitem(__import__("sys").modules, "wandb", wandb)
    train(callbacks.WandbCallback(results=False))  # Calls nothing else: neither init, Image nor finish.
    assert logged[0]["num_environments"] == 2
    assert [step for _, step in logged[1:]] == sorted(step for _, step in logged[1:])
    assert not any(math.isnan(value) for numbers, _ in logged[1:] for value in numbers.values())
