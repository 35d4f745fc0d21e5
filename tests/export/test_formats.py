"""Every format computes what the SavedModel does, for every kind of policy and any batch size."""

import functools
import json
import re
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import policy_kinds
import pytest
import tensorflow as tf
from tf_agents.networks import actor_distribution_rnn_network, value_rnn_network
from tf_agents.policies import greedy_policy, random_tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ppo_agent import export
from ppo_agent.export import naming, numpy_policy
from ppo_agent.export.formats import FORMATS
from ppo_agent.export.program.steps import UnsupportedError
from ppo_agent.export.runners import SavedModelRunner
from ppo_agent.export.sources import MissingPackageError
from ppo_agent.policy import PPOPolicy

OTHERS = [name for name in FORMATS if name not in ("saved_model", "tflite_int8")]


@pytest.fixture(params=OTHERS)
def format_name(request: pytest.FixtureRequest) -> str:
    for package in FORMATS[request.param].packages:
        pytest.importorskip(package)
    return request.param


def available() -> list[str]:
    """The formats whose packages are installed; numpy and tflite always are."""
    return [name for name in OTHERS if all(map(util.find_spec, FORMATS[name].packages))]


@functools.lru_cache(maxsize=1)
def reference_of(source: Path) -> SavedModelRunner:
    """Loading one takes as long as a format's whole export."""
    return SavedModelRunner(source)


def compare(source: Path, output: Path, name: str, observations: list[Any]) -> dict[str, Any]:
    """Acts for some steps with both, each with its own state; returns the last outputs."""
    reference, run = reference_of(source), FORMATS[name].load(output)
    batch_size = len(tf.nest.flatten(observations[0])[0])
    states = reference.initial_state(batch_size), reference.initial_state(batch_size)
    for observation in observations:
        inputs = naming.flat("observation", observation)
        expected, found = reference({**inputs, **states[0]}), run({**inputs, **states[1]})
        assert set(found) == set(expected)
        for key, value in expected.items():
            assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape)
            largest = max(1.0, np.abs(value[np.abs(value) < 1e8]).max())
            np.testing.assert_allclose(found[key], value, rtol=1e-6, atol=5e-6 * largest, err_msg=key)
        states = tuple({key: outputs[key] for key in states[0]} for outputs in (expected, found))
    return expected


@pytest.mark.parametrize("kind", policy_kinds.KINDS)
def test_acts_as_the_saved_model(kind: str, rng: np.random.Generator, tmp_path: Path) -> None:
    policy = policy_kinds.make(kind, rng)
    export.export_policy(policy, tmp_path / "saved")
    for format_name in available():
        FORMATS[format_name].export(tmp_path / "saved", tmp_path / format_name)
        for batch_size in (1, 7):
            observations = [policy_kinds.sample(policy.time_step_spec.observation, rng, batch_size) for _ in range(3)]
            outputs = compare(tmp_path / "saved", tmp_path / format_name, format_name, observations)
        parameters = next(value for key, value in outputs.items() if "distribution" in key)
        assert len(np.unique(parameters, axis=0)) > 1


@pytest.mark.parametrize(
    ("dtype", "low", "high", "shape"),
    [
        (tf.int8, -100, 100, []),
        (tf.uint8, 1, 250, [2]),
        (tf.int16, 0, 5, []),
        (tf.uint16, 7, 9, [2]),
        (tf.int8, 0, 1, [3]),
    ],
)
def test_actions_of_small_whole_numbers(
    dtype: tf.DType, low: int, high: int, shape: list[int], rng: np.random.Generator, tmp_path: Path
) -> None:
    """Files were written that ONNX Runtime does not load, and TFLite refused them."""
    policy = policy_kinds.make_policy(policy_kinds.VECTOR, policy_kinds.Bounded(shape, dtype, low, high), rng)
    export.export_policy(policy, tmp_path / "saved")
    observation = policy_kinds.sample(policy_kinds.VECTOR, rng, 50)
    for name in available():
        FORMATS[name].export(tmp_path / "saved", tmp_path / name)
        outputs = compare(tmp_path / "saved", tmp_path / name, name, [observation])
    logits = outputs["distribution_logits"]
    np.testing.assert_array_equal(outputs["action"], low + logits.argmax(-1))
    assert len(np.unique(outputs["action"])) > 1


def test_keys_of_any_letters(rng: np.random.Generator, tmp_path: Path) -> None:
    spec = {
        "a/b": policy_kinds.VECTOR,
        "größe": policy_kinds.Bounded([2], tf.float32, -1, 1),
        "x y": policy_kinds.VECTOR,
    }
    policy = policy_kinds.make_policy(spec, policy_kinds.DISCRETE, rng)
    export.export_policy(policy, tmp_path / "saved")
    export.export_numpy(tmp_path / "saved", tmp_path / "numpy")
    compare(tmp_path / "saved", tmp_path / "numpy", "numpy", [policy_kinds.sample(spec, rng, 4)])


def test_numbers_that_tflite_does_not_have_are_one_sentence(rng: np.random.Generator, tmp_path: Path) -> None:
    policy = policy_kinds.make_policy(policy_kinds.VECTOR, policy_kinds.Bounded([2], tf.float64, -1, 1), rng)
    with pytest.raises(
        UnsupportedError, match=r"^the policy holds tfl?\.\w+[^:]*, expected built-in operations of TFLite"
    ):
        export.export_tflite(policy, tmp_path / "policy.tflite")


def test_other_peoples_memory(rng: np.random.Generator, tmp_path: Path) -> None:
    vector, action = policy_kinds.VECTOR, tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2)
    actor = actor_distribution_rnn_network.ActorDistributionRnnNetwork(vector, action, lstm_size=(5,))
    value = value_rnn_network.ValueRnnNetwork(vector, lstm_size=(5,))
    policy = greedy_policy.GreedyPolicy(
        PPOPolicy(ts.time_step_spec(vector), action, actor, value, clip=False, collect=False)
    )
    for variable in actor.variables:
        variable.assign(rng.normal(size=variable.shape) * 0.5)
    export.export_policy(policy, tmp_path / "saved")
    for format_name in available():
        FORMATS[format_name].export(tmp_path / "saved", tmp_path / format_name)
        compare(tmp_path / "saved", tmp_path / format_name, format_name, [policy_kinds.sample(vector, rng, 3)] * 2)


ENCODERS = {
    "normalised": lambda: [tf.keras.layers.Dense(9), tf.keras.layers.LayerNormalization(), tf.nn.gelu],
    "activations": lambda: [tf.nn.elu, tf.nn.selu, tf.nn.leaky_relu, tf.nn.relu6, tf.nn.softmax],
    "softsign": lambda: [tf.nn.softsign],
    "arithmetic": lambda: [lambda x: tf.concat([tf.square(x), tf.math.log1p(tf.abs(x)), tf.math.expm1(x)], -1)],
    "shapes": lambda: [lambda x: tf.reduce_max(tf.stack([x[:, ::2], x[:, -2:]], axis=1), axis=2)],
    "ellipsis": lambda: [
        lambda x: tf.concat(
            [x[..., 1:3], x[..., -1:], x[:, tf.newaxis, ..., ::2][..., 0, :], x[..., tf.newaxis, 2]], -1
        )
    ],
    "logits": lambda: [tf.nn.log_softmax, lambda x: tf.where(x != 0.0, x, -x), lambda x: tf.math.rsqrt(1.0 + x * x)],
    "products": lambda: [lambda x: tf.einsum("bi,bj->bij", x, x), lambda x: tf.reshape(x @ x, [-1, 16])],
}


def _encoder(layers: list[Any]) -> tf.keras.layers.Layer:
    lambdas = [x if isinstance(x, tf.keras.layers.Layer) else tf.keras.layers.Lambda(x) for x in layers]
    return tf.keras.Sequential([*lambdas, tf.keras.layers.Dense(5)])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_networks_of_ones_own(encoder: str, rng: np.random.Generator, tmp_path: Path) -> None:
    vector = policy_kinds.VECTOR
    policy = policy_kinds.make_policy(vector, policy_kinds.BOX, rng, encoder=_encoder(ENCODERS[encoder]()))
    export.export_policy(policy, tmp_path / "saved")
    for name in available():
        if encoder == "softsign" and name == "tflite" and tf.__version__.startswith("2.15"):
            continue  # The converter of that version does not have it.
        FORMATS[name].export(tmp_path / "saved", tmp_path / name)
        compare(tmp_path / "saved", tmp_path / name, name, [policy_kinds.sample(vector, rng, 6)])


def test_unsupported_operations_are_named(format_name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    encoder = _encoder([lambda x: tf.math.igamma(tf.abs(x) + 1.0, 2.0)])
    policy = policy_kinds.make_policy(policy_kinds.VECTOR, policy_kinds.BOX, rng, encoder=encoder)
    with pytest.raises(UnsupportedError, match=r"the policy holds .*Igamma, expected") as info:
        FORMATS[format_name].export(policy, tmp_path / "exported")
    assert "\n" not in str(info.value)
    assert not list(tmp_path.iterdir())


def test_what_looks_at_other_rows_is_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    encoder = _encoder([lambda x: x / tf.cast(tf.shape(x)[0], tf.float32)])
    policy = policy_kinds.make_policy(policy_kinds.VECTOR, policy_kinds.BOX, rng, encoder=encoder)
    with pytest.raises(UnsupportedError, match="expected each row to be computed by itself"):
        export.export_numpy(policy, tmp_path / "exported")


def test_int8_is_smaller_and_nearly_the_same(rng: np.random.Generator, tmp_path: Path) -> None:
    policy = policy_kinds.make_policy(policy_kinds.IMAGE, policy_kinds.BOX, rng)
    export.export_policy(policy, tmp_path / "saved")
    export.export_tflite(policy, tmp_path / "float")
    export.export_tflite(policy, tmp_path / "int8", quantize=True)
    assert (tmp_path / "int8").stat().st_size < 0.8 * (tmp_path / "float").stat().st_size
    inputs = {"observation": policy_kinds.sample(policy_kinds.IMAGE, rng, 9)}
    found, expected = (
        FORMATS["tflite_int8"].load(tmp_path / "int8")(inputs),
        SavedModelRunner(tmp_path / "saved")(inputs),
    )
    scale = np.abs(expected["distribution_loc"]).max()
    assert 0 < np.abs(found["distribution_loc"] - expected["distribution_loc"]).max() < 0.1 * scale


def test_onnx_tells_what_it_is(rng: np.random.Generator, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    export.export_onnx(policy_kinds.make("gru", rng), tmp_path / "policy.onnx")
    model = onnx.load(tmp_path / "policy.onnx")
    document = json.loads({p.key: p.value for p in model.metadata_props}["metadata"])
    assert document["distribution"]["distribution"]["kind"] == "normal"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    state = "policy_state_actor_network_state"
    assert {value.name for value in model.graph.output} >= {"action", f"next_{state}"}


def test_the_numpy_reader_is_short_and_needs_numpy_alone(rng: np.random.Generator, tmp_path: Path) -> None:
    policy = policy_kinds.make("lstm", rng)
    export.export_policy(policy, tmp_path / "saved")
    export.export_numpy(policy, tmp_path / "exported")
    assert len(Path(numpy_policy.__file__).read_text().splitlines()) < 100
    observation = policy_kinds.sample(policy_kinds.VECTOR, rng, 5)
    np.save(tmp_path / "observation.npy", observation)
    script = """
import sys, json, numpy as np
from numpy_policy import NumpyPolicy
policy = NumpyPolicy(".")
outputs = policy(observation=np.load("../observation.npy"), **policy.initial_state(5))
assert not {name.split(".")[0] for name in sys.modules} & {"tensorflow", "ppo_agent", "tf_agents"}
print(json.dumps({name: value.tolist() for name, value in outputs.items()}))
"""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=tmp_path / "exported", capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    reference = SavedModelRunner(tmp_path / "saved")
    expected = reference({"observation": observation, **reference.initial_state(5)})
    for name, value in json.loads(result.stdout).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)


def test_policies_without_a_distribution(format_name: str, tmp_path: Path) -> None:
    policy = random_tf_policy.RandomTFPolicy(ts.time_step_spec(policy_kinds.VECTOR), policy_kinds.DISCRETE)
    export.export_policy(policy, tmp_path / "saved")
    assert set(SavedModelRunner(tmp_path / "saved")({"observation": np.zeros([2, 4], np.float32)})) == {"action"}
    if format_name != "tflite":
        with pytest.raises(UnsupportedError, match="Random"):
            FORMATS[format_name].export(policy, tmp_path / "exported")


@pytest.mark.parametrize("name", ["saved_model", *OTHERS])
def test_what_a_policy_does_not_take_is_one_sentence(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    if name not in ("saved_model", *available()):
        pytest.skip("its packages are not installed")
    policy = policy_kinds.make("discrete", rng)
    FORMATS[name].export(policy, tmp_path / "policy")
    run, right = FORMATS[name].load(tmp_path / "policy"), rng.normal(size=[3, 4]).astype(np.float32)
    expected = "expected [B, 4] with a batch dimension in front and dtype float32."
    for wrong in (right[0], right[:, :3], right[None], np.array("up"), np.array([["1", "2", "3", "4"]])):
        if name in ("tflite", "numpy") and wrong.shape in ((4,), (1, 3, 4)):
            continue  # These two take a single observation for what it is, and more batch dimensions.
        found = f"observation is of shape {wrong.shape} and dtype {wrong.dtype}, "
        with pytest.raises(ValueError, match=f"^{re.escape(found + expected)}$"):
            run({"observation": wrong})
    with pytest.raises(ValueError, match=r"^observation is missing, expected arrays for observation\.$"):
        run({"observations": right})
    assert run({"observation": right})["action"].shape == (3,)


def test_missing_packages_are_named(
    format_name: str, rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policy_kinds.make("discrete", rng)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if format_name == "onnx":
        with pytest.raises(
            MissingPackageError, match=r'onnx is not installed, expected it: run pip install "ppo-agent'
        ):
            export.export_onnx(policy, tmp_path / "policy.onnx")
        assert not list(tmp_path.iterdir())
    else:  # These need nothing.
        FORMATS[format_name].export(policy, tmp_path / "policy")


@pytest.mark.parametrize("exporter", [export.export_tflite, export.export_onnx])
def test_bad_arguments_are_refused(exporter: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    if exporter is export.export_onnx:
        pytest.importorskip("onnx")
    policy = policy_kinds.make("discrete", rng)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"file is .*, which is a folder"):
        exporter(policy, tmp_path)
    with pytest.raises(ValueError, match=r"file is .*, but .*file is a file"):
        exporter(policy, tmp_path / "file" / "policy")
    with pytest.raises(ValueError, match="expected a policy or the folder of an exported one"):
        exporter(tmp_path / "nothing", tmp_path / "policy")
    with pytest.raises(TypeError, match="policy is a int, expected a tf_agents TFPolicy"):
        exporter(3, tmp_path / "policy")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
