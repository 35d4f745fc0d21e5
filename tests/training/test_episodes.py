"""Recorded episodes: what is read of them, and what is wrong with those that are not read."""

import pickle
import re
import types
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import Trajectory

from ppo_agent.training.action_encoding import ActionEncoding
from ppo_agent.training.episodes import Episodes, read_episodes

N = 12
OBSERVATION = tf.TensorSpec([3], tf.float32)
ACTION = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2)


@pytest.fixture
def arrays(rng):
    return {
        "observations": rng.normal(size=(N, 3)).astype(np.float32), "actions": rng.integers(0, 3, N),
        "rewards": rng.normal(size=N), "terminations": np.arange(N) % 5 == 4,
    }  # fmt: skip


def read(source):
    return read_episodes(source, OBSERVATION, ACTION)


def test_arrays_may_be_lists_columns_and_numbers(arrays):
    expected = read(arrays)
    np.testing.assert_array_equal(np.flatnonzero(expected.is_first), [0, 5, 10])
    np.testing.assert_allclose(expected.rewards, arrays["rewards"], rtol=1e-6)
    variants = [
        {name: array.tolist() for name, array in arrays.items()},
        {name: array[:, None] for name, array in arrays.items() if name != "observations"},
        {"actions": arrays["actions"].astype(np.float64), "terminations": arrays["terminations"].astype(np.float32)},
        {"actions": arrays["actions"].astype(np.uint8), "observations": arrays["observations"].astype(np.float64)},
    ]
    for variant in variants:
        tf.nest.map_structure(np.testing.assert_array_equal, read({**arrays, **variant}), expected)


def test_parts_of_a_list_begin_episodes(arrays):
    del arrays["terminations"]
    found = read([arrays, arrays])
    np.testing.assert_array_equal(np.flatnonzero(found.is_first), [0, N])
    assert len(found.rewards) == 2 * N
    del arrays["rewards"]
    assert read([found, arrays]).rewards is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": np.ones(5)}, r"rewards of the episodes has shape \(5,\), expected \(12,\)\."),
        ({"rewards": np.ones((N, 2))}, r"rewards of the episodes has shape \(12, 2\), expected \(12,\)\."),
        ({"rewards": np.full(N, np.nan)}, "rewards of the episodes holds NaN or infinity, expected finite numbers."),
        ({"rewards": np.full(N, 1e39)}, "rewards of the episodes holds 1e.39, expected numbers that float32 can hold."),
        ({"rewards": np.array(["1"] * N)}, "rewards of the episodes has dtype <U1, expected float32."),
        ({"terminations": np.zeros(3, bool)}, r"terminations of the episodes has shape \(3,\), expected \(12,\)\."),
        ({"terminations": np.full(N, np.nan)}, "terminations of the episodes holds NaN or infinity, expected"),
        ({"truncations": np.full(N, 0.5)}, "truncations of the episodes holds 0.5, expected whole numbers."),
        ({"episode_starts": np.full(N, 2)}, "episode_starts of the episodes goes from 2 to 2, expected 0 to 1."),
        ({"is_first": np.ones(2 * N, bool)}, r"episode_starts of the episodes has shape \(24,\), expected \(12,\)\."),
        ({"actions": np.full(N, 1.7)}, "actions of the episodes holds 1.7, expected whole numbers."),
        ({"actions": np.full(N, 2**64 - 1, np.uint64)}, "actions of the episodes goes from .* expected 0 to 2."),
        ({"actions": 1}, r"actions of the episodes is array\(1\), expected an array with a row for each step."),
        ({"actions": {"a": np.zeros(N)}}, "actions is a dict, expected an array of numbers."),
        ({"observations": np.full((N, 3), -1e39)}, "observations of the episodes holds -1e.39, expected numbers that"),
        ({"observations": [[1, 2], [3]]}, "observations is a list that makes no array, expected an array of numbers."),
    ],
)  # fmt: skip
def test_faults_in_arrays_are_told(arrays, change, message):
    with pytest.raises(ValueError, match=message):
        read({**arrays, **change})


def test_no_step_and_no_episodes(arrays):
    with pytest.raises(ValueError, match="episodes holds no step, expected at least one"):
        read({"observations": np.zeros((0, 3)), "actions": np.zeros(0, int)})
    with pytest.raises(TypeError, match="episodes is an empty list, expected"):
        read([])
    with pytest.raises(ValueError, match=r"episodes holds \[3, 'actions'\], expected observations"):
        read({3: 1, "actions": arrays["actions"]})


def minari_episode(arrays, extra=1, **changes):
    observations = np.concatenate([arrays["observations"], np.zeros((extra, 3))])
    found = {"observations": observations, "actions": arrays["actions"], "rewards": arrays["rewards"], **changes}
    return types.SimpleNamespace(**found)


def test_an_episode_of_minari_is_told_by_its_contents(arrays):
    found = read(minari_episode(arrays))
    np.testing.assert_array_equal(found.observations, arrays["observations"])
    assert found.is_first.tolist() == [True] + [False] * (N - 1)
    with pytest.raises(ValueError, match="episodes is an episode of 12 rewards and 12 observations, expected 13"):
        read(minari_episode(arrays, extra=0))
    with pytest.raises(ValueError, match="episodes is an episode of 12 rewards and 3 actions, expected 12"):
        read(minari_episode(arrays, actions=np.zeros(3, int)))
    for changes in ({"rewards": 3.0}, {"rewards": None}, {"actions": 3}, {"observations": None}):
        with pytest.raises(TypeError, match="episodes is SimpleNamespace, whose"):
            read(minari_episode(arrays, **changes))


def test_a_data_set_that_cannot_be_read(arrays):
    def episodes():
        yield minari_episode(arrays)
        raise OSError("file signature not found. Ask somebody.")

    with pytest.raises(ValueError, match=r"^episodes is 'x-v0', which cannot be read: file signature not found\.$"):
        read(types.SimpleNamespace(id="x-v0", iterate_episodes=episodes))


def test_recorded_bools_and_small_whole_numbers_are_decoded():
    """An action that cannot be decoded is an error; it was taken for one of the agent's."""
    spec = {
        "flag": tensor_spec.BoundedTensorSpec([2], tf.int8, 0, 1),
        "n": tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2),
    }

    class Env:
        def encode_action(self, action):
            return {"flag": action["flag"].astype(bool), "n": (action["n"] + 5).astype(np.uint8)}

    encoding = ActionEncoding.of_environment(Env(), spec)
    actions = {"flag": np.array([[True, False], [False, False]]), "n": np.array([7, 5], np.uint8)}
    arrays = {"observations": np.zeros((2, 3)), **{f"actions/{name}": array for name, array in actions.items()}}
    found = read_episodes(arrays, OBSERVATION, spec, encoding)
    np.testing.assert_array_equal(found.actions["n"], [2, 0])
    np.testing.assert_array_equal(found.actions["flag"], [[1, 0], [0, 0]])
    for wrong in ({"actions/n": np.array([0, 2])}, {"actions/n": np.array([4, 5], np.uint8)}):
        with pytest.raises(ValueError, match="n in actions of the episodes goes from"):
            read_episodes({**arrays, **wrong}, OBSERVATION, spec, encoding)


def forged(path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("observations.npy", b"\x93NUMPY\x01\x00v\x00" + header)


def one_array(path, _):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def cut(path, arrays):
    np.savez_compressed(path, **arrays)
    path.write_bytes(path.read_bytes()[:-300])


def flipped(path, arrays):
    np.savez_compressed(path, **arrays)
    data = bytearray(path.read_bytes())
    data[150] ^= 255
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "write",
    [
        lambda path, _: path.write_text("hello"),
        lambda path, _: path.write_bytes(b""),
        lambda path, arrays: path.write_bytes(pickle.dumps(arrays)),
        one_array,
        lambda path, arrays: np.savez(path, **{**arrays, "actions": np.array([None] * N)}),
        lambda path, _: forged(path, "(10000000000000, 4)"),
        lambda path, _: forged(path, "(1, 2, 3"),
        cut,
        flipped,
        lambda path, _: path.mkdir(),
    ],
    ids=["text", "empty", "pickle", "one array", "objects", "forged", "header", "cut", "flipped", "folder"],
)
def test_files_that_cannot_be_read(tmp_path, arrays, write):
    path = tmp_path / "episodes.npz"
    write(path, arrays)
    one_sentence = rf"^episodes is {re.escape(repr(str(path)))}, which cannot be read: ([^.]|\.[^ ]|\. TiB)*\.$"
    with pytest.raises(ValueError, match=one_sentence):
        read(path)


@pytest.mark.parametrize("name", ["episodes.npz", "EPISODES.NPZ", "episodes"])
def test_files_by_any_name_with_anything_else_in_them(tmp_path, arrays, name):
    extra = {"metadata": np.array([{"a": 1}], object), "notes": np.array("hello")}
    with (tmp_path / name).open("wb") as file:
        np.savez(file, **arrays, **extra)
    tf.nest.map_structure(np.testing.assert_array_equal, read(tmp_path / name), read(arrays))


def test_trajectories_whose_parts_differ_in_length(arrays):
    def trajectory(length):
        steps = np.ones([1, N], np.int32)
        return Trajectory(
            steps, arrays["observations"][np.newaxis], arrays["actions"][np.newaxis, :length], (), steps,
            arrays["rewards"][np.newaxis], np.ones([1, N], np.float32),
        )  # fmt: skip

    assert isinstance(read(trajectory(N)), Episodes)
    with pytest.raises(ValueError, match=r"step_type of shape \(1, 12\) and an array of shape \(1, 5\), expected"):
        read(trajectory(5))
