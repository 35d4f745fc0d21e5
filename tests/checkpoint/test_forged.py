"""Checkpoints whose sums are right and whose contents are not: nothing of them is believed, an older one is taken."""

import io
import json
import zipfile
from pathlib import Path

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ppo_agent.checkpoint import (
    CheckpointError,
    CheckpointMismatchError,
    CheckpointStore,
    TrainingCheckpoint,
    manifest,
    spec_codes,
)
from ppo_agent.drivers import EpisodeStatistics
from ppo_agent.drivers.array_policies.array_policy import ArrayPolicy


def write_all(path: Path, **changes) -> None:
    """Rewrites files of a checkpoint with right sums; `content` changes the manifest."""
    document = json.loads((path / "manifest.json").read_text())["content"]
    for name, data in changes.pop("files", {}).items():
        (path / name).write_bytes(data)
        document["files"][name] = manifest.sha256(data)
    document.update(changes)
    document = {"sha256": manifest.sha256(manifest._canonical(document)), "content": document}
    (path / "manifest.json").write_text(json.dumps(document))


def archive(name: str, data: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def sparse(name: str):
    def make(path: Path) -> None:
        with (path / name).open("r+b") as file:
            file.truncate(200 * 2**30)

    return make


def zip_bomb(path: Path) -> None:
    data = archive("a", header((2**22,)) + bytes(2**24), zipfile.ZIP_DEFLATED)
    write_all(path, files={"variables.npz": data}, variables={"a": ["float32", [2**22]]})


FORGERIES = {
    "ten trillion floats": lambda path: write_all(
        path, files={"variables.npz": archive("a", header((10**13,)))}, variables={"a": ["float32", [10**13]]}
    ),
    "a header of its own": lambda path: write_all(
        path, files={"variables.npz": archive("a", header((10**13,)))}, variables={"a": ["float32", [1]]}
    ),
    "a zip bomb": zip_bomb,
    "a sparse manifest": sparse("manifest.json"),
    "sparse variables": sparse("variables.npz"),
    "no JSON": lambda path: write_all(path, files={"state.json": b"{'a'}"}),
    "deep JSON": lambda path: write_all(path, files={"state.json": b"[" * 100_000 + b"]" * 100_000}),
    "a list as state": lambda path: write_all(path, files={"state.json": b"[1]"}),
    "an array less": lambda path: write_all(path, files={"variables.npz": archive("b", header((0,)))}),
    "objects": lambda path: write_all(path, variables={"a": ["object", [1]]}),
    "negative shape": lambda path: write_all(path, variables={"a": ["float32", [-1]]}),
    **{
        f"{name} {value!r}": lambda path, name=name, value=value: write_all(path, **{name: value})
        for name, value in [
            ("files", None), ("variables", None), ("variables", [1]), ("hyper_parameters", None), ("step", "ten"),
            ("number", True), ("evaluation", "high"), ("evaluation", [1.0]), ("specs", 3),
        ]
        if name != "files"
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_an_older_one_is_taken(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    store = CheckpointStore(tmp_path, tell=said.append)
    paths = [store.write(step, {"a": np.ones(1, np.float32)}, {"x": step}) for step in (1, 2)]
    FORGERIES[name](paths[1])
    assert store.newest_sound().path == paths[0]
    (sentence,) = said
    assert paths[1].name in sentence
    paths[0].rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=paths[1].name):
        CheckpointStore(tmp_path).newest_sound()


def test_a_later_version_is_left_alone(tmp_path: Path) -> None:
    said: list[str] = []
    store = CheckpointStore(tmp_path, kept=1, tell=said.append)
    paths = [store.write(step, {"a": np.ones(1, np.float32)}, {}, evaluation=-step) for step in (1, 2)]
    write_all(paths[1], format_version=2)
    assert store.newest_sound().path == paths[0]
    assert "later version" in said[0]
    store.write(3, {"a": np.ones(1, np.float32)}, {})
    store.write(4, {"a": np.ones(1, np.float32)}, {})
    assert paths[1].is_dir()
    assert not list(tmp_path.glob("damaged-*"))


def a_checkpoint(folder: Path) -> tuple[TrainingCheckpoint, Path]:
    agent = helpers.make_agent(minibatch_size=8)
    checkpoint = TrainingCheckpoint(folder, agent=agent, statistics=EpisodeStatistics())
    return checkpoint, checkpoint.save(1)


STATES = [{}, {"num_episodes": "many"}, {"recent": [[1]]}, {"totals": "x"}, {"num_environment_steps": None}, [1], None]


@pytest.mark.parametrize("state", STATES, ids=repr)
def test_a_state_that_does_not_fit_changes_nothing(state, tmp_path: Path) -> None:
    checkpoint, path = a_checkpoint(tmp_path)
    good = json.loads((path / "state.json").read_text())
    bad = {**good["statistics"], **state} if state and isinstance(state, dict) else state
    write_all(path, files={"state.json": json.dumps({"statistics": bad}).encode()})
    statistics = checkpoint._parts["statistics"]
    statistics.num_episodes = 7
    for variable in checkpoint._agent._trained_variables():
        variable.assign(tf.ones_like(variable))
    before, states = checkpoint.snapshot()
    with pytest.raises(CheckpointMismatchError, match="statistics"):
        checkpoint.restore()
    after, states_after = checkpoint.snapshot()
    assert states == states_after
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


@pytest.mark.parametrize("shape", [[], [2]])
@pytest.mark.parametrize("bound_shape", [-1, [1, 1], [3]])
def test_bounds_that_do_not_fit_their_spec_are_refused(shape, bound_shape) -> None:
    code = spec_codes.encode(tensor_spec.BoundedTensorSpec(shape, tf.float32, 0, 1))
    assert spec_codes.decode(code).shape == shape
    size = int(np.prod(np.abs(bound_shape)))
    code["spec"].update(maximum=[1.0] * size, maximum_shape=bound_shape)
    if shape == [2] and bound_shape == -1:
        spec_codes.decode(code)  # One bound for both.
        return
    with pytest.raises(ValueError, match="expected what encode returns"):
        spec_codes.decode(code)


GENERATOR = {"bit_generator": "PCG64", "state": {"state": 1, "inc": 3}, "has_uint32": 0, "uinteger": 0}
GOOD = {"seed": 1, "count": 0, "noise": {"2": {"generator": GENERATOR, "position": 5}}}


@pytest.mark.parametrize(
    "state",
    [
        {"seed": "x"}, {"seed": -1}, {"count": None}, {"count": 1.5}, {"noise": []}, {"noise": {"two": {}}},
        {"noise": {"2": "\n"}}, {"noise": {"2": {"generator": GENERATOR, "position": -1}}},
        {"noise": {"2": {"generator": GENERATOR, "position": 10**6}}},
        {"noise": {"2": {"generator": {**GENERATOR, "state": 5}, "position": 0}}},
        {"noise": {"2": {"generator": {**GENERATOR, "state": {"state": -1, "inc": 3}}, "position": 0}}},
        {"noise": {"2": {"generator": {**GENERATOR, "bit_generator": "MT19937"}, "position": 0}}},
    ],
    ids=repr,
)  # fmt: skip
def test_random_numbers_of_a_policy_are_checked_before_they_are_needed(state) -> None:
    policy = ArrayPolicy(helpers.make_agent().collect_policy, seed=7)
    policy.set_state(GOOD)
    before = policy.get_state()
    assert before == GOOD
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError, OverflowError)):
        policy.set_state({**GOOD, **state})
    assert policy.get_state() == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    checkpoint, _ = a_checkpoint(tmp_path)
    variable = checkpoint._agent._trained_variables()[0]
    good = variable.numpy()
    bad = good.copy()
    bad.flat[0] = value
    variable.assign(bad)
    checkpoint.save(2)
    variable.assign(good)
    with pytest.raises(CheckpointMismatchError, match="NaN or infinity"):
        checkpoint.restore()
    np.testing.assert_array_equal(variable.numpy(), good)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("_observation_normalizer/_avg/0", np.nan, "NaN or infinity, expected finite numbers"),
        ("_observation_normalizer/_count/0", 0.0, r"0\.0, expected positive numbers"),
        ("_reward_normalizer/_count/0", -4.0, r"-4\.0, expected positive numbers"),
        ("_reward_normalizer/_m2/0", -1.0, r"-1\.0, expected numbers of at least 0"),
    ],
)
def test_statistics_that_would_make_every_observation_nan_are_refused(
    name: str, value: float, message: str, tmp_path: Path
) -> None:
    checkpoint, _ = a_checkpoint(tmp_path)
    variable = checkpoint._variables()[f"agent/{name}"]
    good = variable.numpy()
    variable.assign(np.full_like(good, value))
    checkpoint.save(2)
    variable.assign(good)
    with pytest.raises(CheckpointMismatchError, match=f"holds agent/{name} with {message}"):
        checkpoint.restore()
    np.testing.assert_array_equal(variable.numpy(), good)
