"""Exported policies: the actions of the original, in this process and in one that has TensorFlow alone."""

import importlib.util
import json
import pathlib
import subprocess
import textwrap
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from tf_agents.networks import actor_distribution_rnn_network, value_rnn_network
from tf_agents.policies import greedy_policy, random_tf_policy, tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import tensor_normalizer

from ppo_agent import export
from ppo_agent.networks import ActorNetwork, ValueNetwork
from ppo_agent.policy import PPOPolicy

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "serve_saved_model.py"

VECTOR = tensor_spec.BoundedTensorSpec([4], tf.float32, -2, 2)
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 1, 3)
BOX = tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)
NESTED_OBSERVATION = {"lidar": VECTOR, "map": (tensor_spec.BoundedTensorSpec([2, 2], tf.float32, -1, 1),)}
NESTED_ACTION = {"gear": DISCRETE, "wheels": [BOX, tensor_spec.BoundedTensorSpec([2], tf.int32, 0, [1, 3])]}


def _randomize(variables: Any, rng: np.random.Generator) -> None:
    for variable in variables:
        variable.assign(rng.normal(size=variable.shape) * 0.5)


def _policy(observation: Any, action: Any, rng: np.random.Generator, **kwargs: Any) -> PPOPolicy:
    normalizer = tensor_normalizer.StreamingTensorNormalizer(observation)
    normalizer.update(tensor_spec.sample_spec_nest(observation, outer_dims=(30,)))
    actor = ActorNetwork(observation, action, fc_layers=(8,))
    settings = {"clip": False, "collect": False, **kwargs}
    policy = PPOPolicy(ts.time_step_spec(observation), action, actor, ValueNetwork(observation), normalizer, **settings)
    _randomize(actor.variables, rng)
    return policy


def _recurrent_policy(rng: np.random.Generator) -> tf_policy.TFPolicy:
    actor = actor_distribution_rnn_network.ActorDistributionRnnNetwork(VECTOR, DISCRETE0, lstm_size=(5,))
    value = value_rnn_network.ValueRnnNetwork(VECTOR, lstm_size=(5,))
    policy = PPOPolicy(ts.time_step_spec(VECTOR), DISCRETE0, actor, value, clip=False, collect=False)
    _randomize(actor.variables, rng)
    return greedy_policy.GreedyPolicy(policy)


DISCRETE0 = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2)
CASES = {"discrete": (VECTOR, DISCRETE), "box": (VECTOR, BOX), "nested": (NESTED_OBSERVATION, NESTED_ACTION)}


def _assert_equal(found: Any, expected: Any) -> None:
    tf.nest.assert_same_structure(found, expected, check_types=False)
    for found_leaf, expected_leaf in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert found_leaf.dtype == expected_leaf.dtype
        np.testing.assert_allclose(found_leaf, expected_leaf, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_greedy_policy_acts_as_before_with_any_batch_size(
    case: Any, rng: np.random.Generator, tmp_path: pathlib.Path
) -> None:
    policy = greedy_policy.GreedyPolicy(_policy(*case, rng))
    export.export_policy(policy, tmp_path / "deep" / "policy")
    loaded = tf.saved_model.load(tmp_path / "deep" / "policy")
    for batch_size in (1, 64):
        observation = tensor_spec.sample_spec_nest(case[0], outer_dims=(batch_size,))
        expected = policy.action(ts.restart(observation, batch_size)).action
        _assert_equal(loaded.action(observation), expected)
        assert len({x.tobytes() for x in tf.nest.flatten(expected)[-1].numpy()}) > batch_size // 64


def test_signatures_are_flat_and_named(rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    policy = greedy_policy.GreedyPolicy(_policy(NESTED_OBSERVATION, NESTED_ACTION, rng))
    export.export_policy(policy, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    assert set(loaded.signatures) == {"serving_default", "action", "sample", "distribution", "log_prob", "value"}
    observation = tensor_spec.sample_spec_nest(NESTED_OBSERVATION, outer_dims=(5,))
    inputs = {"observation_lidar": observation["lidar"], "observation_map_0": observation["map"][0]}
    expected = policy.action(ts.restart(observation, 5)).action
    flat = {
        "action_gear": expected["gear"],
        "action_wheels_0": expected["wheels"][0],
        "action_wheels_1": expected["wheels"][1],
    }
    for name in ("serving_default", "action"):
        assert set(loaded.signatures[name].structured_input_signature[1]) == set(inputs)
        _assert_equal(loaded.signatures[name](**inputs), flat)


def test_single_tensors_have_the_plain_names(rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    export.export_policy(greedy_policy.GreedyPolicy(_policy(VECTOR, DISCRETE, rng)), tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    assert set(loaded.signatures["action"](observation=tf.zeros([2, 4]))) == {"action"}


def test_names_that_collide_are_refused(rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    spec = {"a_b": VECTOR, "a": {"b": VECTOR}}
    with pytest.raises(ValueError, match="expected keys that are unique when joined by _"):
        export.export_policy(greedy_policy.GreedyPolicy(_policy(spec, DISCRETE, rng)), tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


def test_sampling_policy_samples_unclipped(rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    policy = _policy(VECTOR, BOX, rng, collect=True)
    export.export_policy(policy, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    observation = tf.repeat(tf.constant(rng.normal(size=(1, 4)), tf.float32), 5000, axis=0)
    actions = loaded.action(observation).numpy()
    distribution = policy.distribution(ts.restart(observation[:1], 1)).action
    np.testing.assert_allclose(actions.mean(0), distribution.mode()[0], atol=0.1)
    np.testing.assert_allclose(actions.std(0), distribution.stddev()[0], rtol=0.1)
    assert np.abs(actions).max() > 1.0
    assert not np.array_equal(actions, loaded.action(observation))


def test_later_training_does_not_reach_the_export(rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    policy = greedy_policy.GreedyPolicy(_policy(VECTOR, BOX, rng))
    export.export_policy(policy, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    observation = tensor_spec.sample_spec_nest(VECTOR, outer_dims=(3,))
    before = loaded.action(observation)
    _randomize(policy.variables()[:2], rng)
    np.testing.assert_array_equal(loaded.action(observation), before)
    assert not np.allclose(policy.action(ts.restart(observation, 3)).action, before)


def test_observation_normalizer_is_inside(rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    export.export_policy(greedy_policy.GreedyPolicy(_policy(VECTOR, BOX, rng)), tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    far, farther = loaded.action(tf.fill([1, 4], 1e3)), loaded.action(tf.fill([1, 4], 1e6))
    np.testing.assert_array_equal(far, farther)  # both clipped at 5


def test_recurrent_policy_carries_its_state(rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    policy = _recurrent_policy(rng)
    export.export_policy(policy, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    act = loaded.signatures["action"]
    expected_state, state = policy.get_initial_state(6), loaded.initial_state(tf.constant(6))
    flat_state = loaded.signatures["initial_state"](batch_size=tf.constant(6))
    is_first = tf.constant([True] * 6)
    for _ in range(4):
        observation = tf.constant(rng.normal(size=(6, 4)) * 3, tf.float32)
        step_type = tf.where(is_first, ts.StepType.FIRST, ts.StepType.MID)
        step = policy.action(ts.TimeStep(step_type, tf.zeros(6), tf.ones(6), observation), expected_state)
        expected_state = step.state
        outputs = dict(act(observation=observation, **_reset(flat_state, is_first)))
        action, state = loaded.action(observation, loaded.reset_state(state, is_first))
        _assert_equal(action, step.action)
        _assert_equal(state, dict(expected_state))
        _assert_equal(outputs.pop("action"), step.action)
        flat_state = outputs
        is_first = tf.constant(rng.random(6) < 0.5)
    assert all(name.startswith("policy_state_actor_network_state") for name in flat_state)
    assert np.abs(tf.nest.flatten(state)[0]).max() > 0.01


def _reset(state: dict[str, tf.Tensor], is_first: tf.Tensor) -> dict[str, tf.Tensor]:
    """What a service does where an episode starts."""
    return {name: tf.where(is_first[:, tf.newaxis], 0.0, value) for name, value in state.items()}


def test_any_tf_policy_can_be_exported(tmp_path: pathlib.Path) -> None:
    policy = random_tf_policy.RandomTFPolicy(ts.time_step_spec(VECTOR), DISCRETE)
    export.export_policy(policy, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    assert set(loaded.action(tf.zeros([200, 4])).numpy()) == {1, 2, 3}


def test_nothing_but_functions_and_their_variables_is_saved(rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    policy = greedy_policy.GreedyPolicy(_policy(VECTOR, DISCRETE, rng))
    export.export_policy(policy, tmp_path)
    content = (tmp_path / "saved_model.pb").read_bytes()
    for foreign in (b"keras_metadata", b"_tf_keras", b"TypeSpec\x12", b"tfp.distributions", b"ACTTypeSpec"):
        assert foreign not in content
    loaded = tf.saved_model.load(tmp_path)
    # The networks' kernels and biases; count, mean and squared deviations of the normaliser.
    assert len(loaded.all_variables) == 4 + 6 + 3


def test_loads_and_acts_with_tensorflow_alone(
    tensorflow_only_python: pathlib.Path, rng: np.random.Generator, tmp_path: pathlib.Path
) -> None:
    flat = greedy_policy.GreedyPolicy(_policy(VECTOR, DISCRETE, rng))
    nested = greedy_policy.GreedyPolicy(_policy(NESTED_OBSERVATION, NESTED_ACTION, rng))
    recurrent = _recurrent_policy(rng)
    for name, policy in (("flat", flat), ("nested", nested), ("recurrent", recurrent)):
        export.export_policy(policy, tmp_path / name)
    observation = rng.normal(size=(5, 4)).astype(np.float32)
    np.save(tmp_path / "observation.npy", observation)
    script = """
        import importlib.util, json, sys
        assert not any(map(importlib.util.find_spec, ("tf_agents", "tensorflow_probability", "tf_keras")))
        import numpy as np, tensorflow as tf
        names = ("flat", "nested", "recurrent")
        flat, nested, recurrent = (tf.saved_model.load(f"{sys.argv[1]}/{name}") for name in names)
        x = tf.constant(np.load(f"{sys.argv[1]}/observation.npy"))
        action, state = recurrent.action(x, recurrent.initial_state(5))
        again, _ = recurrent.action(x, state)
        gear = nested.action({"lidar": x, "map": (tf.reshape(x, [5, 2, 2]),)})["gear"]
        actions = flat.action(x), flat.signatures["action"](observation=x)["action"], gear, action, again
        print(json.dumps([a.numpy().tolist() for a in actions]))
    """
    output = _run(tensorflow_only_python, "-c", textwrap.dedent(script), str(tmp_path))
    found = json.loads(output.splitlines()[-1])

    tensor = tf.constant(observation)
    nest = {"lidar": tensor, "map": (tf.reshape(tensor, [5, 2, 2]),)}
    first = recurrent.action(ts.restart(tensor, 5), recurrent.get_initial_state(5))
    second = recurrent.action(ts.transition(tensor, tf.zeros(5)), first.state)
    expected = flat.action(ts.restart(tensor, 5)).action
    gear = nested.action(ts.restart(nest, 5)).action["gear"]
    assert found == [a.numpy().tolist() for a in (expected, expected, gear, first.action, second.action)]


def test_the_serving_example_with_tensorflow_alone(
    tensorflow_only_python: pathlib.Path, rng: np.random.Generator, tmp_path: pathlib.Path
) -> None:
    policy = greedy_policy.GreedyPolicy(_policy(VECTOR, BOX, rng))
    export.export_policy(policy, tmp_path / "policy")
    observation = rng.normal(size=(3, 4)).astype(np.float32)
    np.save(tmp_path / "observations.npy", observation)
    arguments = [f"--policy_dir={tmp_path / 'policy'}", f"--observations={tmp_path / 'observations.npy'}"]
    name, action = _run(tensorflow_only_python, str(EXAMPLE), *arguments).strip().split(": ")
    assert name == "action"
    np.testing.assert_allclose(json.loads(action), policy.action(ts.restart(observation, 3)).action, atol=1e-6)


def test_the_serving_example_with_nests_and_states(
    rng: np.random.Generator, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("serve_saved_model", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    nested = greedy_policy.GreedyPolicy(_policy(NESTED_OBSERVATION, NESTED_ACTION, rng))
    for policy, lines in ((nested, 6), (_recurrent_policy(rng), 2)):
        export.export_policy(policy, tmp_path / "policy")
        flags.FLAGS([str(EXAMPLE), f"--policy_dir={tmp_path / 'policy'}", "--steps=2", "--batch_size=3"])
        example.main([])
        output = capsys.readouterr().out.splitlines()
        assert len(output) == lines
        assert all(len(json.loads(line.split(": ")[1])) == 3 for line in output)


def _run(python: pathlib.Path, *arguments: str) -> str:
    result = subprocess.run([str(python), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_an_earlier_export_is_replaced(rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    observation = tensor_spec.sample_spec_nest(VECTOR, outer_dims=(3,))
    for _ in range(2):
        policy = greedy_policy.GreedyPolicy(_policy(VECTOR, BOX, rng))
        export.export_policy(policy, tmp_path / "policy")
        loaded = tf.saved_model.load(tmp_path / "policy")
        _assert_equal(loaded.action(observation), policy.action(ts.restart(observation, 3)).action)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


@pytest.mark.parametrize("exporter", [export.export_policy, export.export_policy_saver])
def test_a_failed_export_leaves_the_earlier_one(
    exporter: Any, rng: np.random.Generator, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = greedy_policy.GreedyPolicy(_policy(VECTOR, BOX, rng))
    export.export_policy(policy, tmp_path / "policy")
    before = (tmp_path / "policy" / "saved_model.pb").read_bytes()

    def fail(module: Any, path: str, **kwargs: Any) -> None:
        pathlib.Path(path).mkdir()
        pathlib.Path(path, "half").touch()
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    monkeypatch.setattr("tf_agents.policies.policy_saver.PolicySaver.save", fail)
    with pytest.raises(OSError, match="disk full"):
        exporter(policy, tmp_path / "policy")
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    assert (tmp_path / "policy" / "saved_model.pb").read_bytes() == before


@pytest.mark.parametrize("exporter", [export.export_policy, export.export_policy_saver])
def test_bad_arguments_are_refused(exporter: Any, rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    policy = greedy_policy.GreedyPolicy(_policy(VECTOR, DISCRETE, rng))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    with pytest.raises(TypeError, match="policy is a ActorNetwork, expected a tf_agents TFPolicy"):
        exporter(ActorNetwork(VECTOR, DISCRETE), tmp_path / "policy")
    with pytest.raises(ValueError, match=r"directory is .*file is a file"):
        exporter(policy, tmp_path / "file")
    with pytest.raises(ValueError, match=r"directory is .*folder.*holds other files"):
        exporter(policy, tmp_path / "folder")
    with pytest.raises(ValueError, match=r"directory is .*file is a file"):
        exporter(policy, tmp_path / "file" / "policy")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "thesis.tex"]


@pytest.mark.filterwarnings("ignore:Encoding a StructuredValue")
@pytest.mark.parametrize("kind", ["nested", "recurrent"])
def test_policy_saver_artifact(kind: str, rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    recurrent = kind == "recurrent"
    policy: Any = (
        _recurrent_policy(rng)
        if recurrent
        else greedy_policy.GreedyPolicy(_policy(NESTED_OBSERVATION, NESTED_ACTION, rng))
    )
    export.export_policy_saver(policy, tmp_path / "policy_saver")
    loaded = tf.saved_model.load(tmp_path / "policy_saver")
    time_step = ts.restart(tensor_spec.sample_spec_nest(policy.time_step_spec.observation, outer_dims=(3,)), 3)
    state = loaded.get_initial_state(3) if recurrent else ()
    _assert_equal(loaded.action(time_step, state).action, policy.action(time_step, state).action)
