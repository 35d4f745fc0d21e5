"""The SavedModel's further signatures: what the policy itself would answer, with TensorFlow alone."""

import json
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import policy_kinds
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.trajectories import time_step as ts

from ppo_agent import export
from ppo_agent.export import naming
from ppo_agent.maths import distributions


def _step(policy: Any, observation: Any) -> ts.TimeStep:
    size = len(tf.nest.flatten(observation)[0])
    return ts.transition(tf.nest.map_structure(tf.constant, observation), tf.zeros(size))


def _call(loaded: Any, name: str, **inputs: Any) -> dict[str, np.ndarray]:
    found = loaded.signatures[name](**tf.nest.map_structure(tf.constant, inputs))
    return {key: value.numpy() for key, value in found.items()}


@pytest.mark.parametrize("kind", policy_kinds.KINDS)
def test_answers_as_the_policy_does(kind: str, rng: np.random.Generator, tmp_path: Path) -> None:
    policy = policy_kinds.make(kind, rng)
    drawn = policy.wrapped_policy
    export.export_policy(policy, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    for batch_size in (1, 5):
        observation = policy_kinds.sample(policy.time_step_spec.observation, rng, batch_size)
        step = _step(policy, observation)
        state = policy.get_initial_state(batch_size)
        # Another state than the first one.
        state = policy.action(step, state).state
        expected = drawn.distribution(step, state)
        inputs = {**naming.flat("observation", observation), **naming.flat("policy_state", state)}

        sampled = _call(loaded, "sample", seed=[3, 4], **inputs)
        actions = {name: value for name, value in sampled.items() if name.startswith("action")}
        log_prob = _call(loaded, "log_prob", **inputs, **actions)["log_prob"]
        nested = tf.nest.pack_sequence_as(
            policy.action_spec, [actions[n] for n in naming.flat("action", policy.action_spec)]
        )
        np.testing.assert_allclose(
            log_prob, distributions.log_probability(expected.action, nested, 1), rtol=1e-4, atol=1e-5
        )
        assert log_prob.shape == (batch_size,)

        value_state = drawn.get_initial_value_state(batch_size)
        value_inputs = {**naming.flat("observation", observation), **naming.flat("value_state", value_state)}
        value, _ = drawn.apply_value_network(step.observation, step.step_type, value_state)
        found = _call(loaded, "value", **value_inputs)
        np.testing.assert_allclose(found["value"], value, rtol=1e-5, atol=1e-6)
        assert {name for name in found if name != "value"} == set(naming.flat("value_state", value_state))


def test_samples_follow_the_seed_and_the_distribution(rng: np.random.Generator, tmp_path: Path) -> None:
    policy = policy_kinds.make("nested", rng)
    export.export_policy(policy, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    observation = tf.nest.map_structure(
        lambda x: np.repeat(x, 4000, axis=0), policy_kinds.sample(policy.time_step_spec.observation, rng, 1)
    )
    inputs = naming.flat("observation", observation)
    one, again, other = (_call(loaded, "sample", seed=seed, **inputs) for seed in ([1, 2], [1, 2], [1, 3]))
    parameters = _call(loaded, "distribution", **inputs)
    for name, value in one.items():
        np.testing.assert_array_equal(value, again[name])
        assert not np.array_equal(value, other[name])
    frequencies = [(one["action_gear"] == gear).mean() for gear in (1, 2, 3)]
    np.testing.assert_allclose(frequencies, tf.nn.softmax(parameters["distribution_gear_logits"][0]), atol=0.04)
    # Clipped to the bounds, as the greedy policy clips.
    low, high = [-1, -1], [1, 2]
    loc, scale = (parameters[f"distribution_wheels_0_{name}"][0] for name in ("loc", "scale"))
    expected = np.clip(rng.normal(size=(200_000, 2)) * scale + loc, low, high)
    np.testing.assert_allclose(one["action_wheels_0"].mean(0), expected.mean(0), atol=0.08)


def test_metadata_tells_kinds_and_specs(rng: np.random.Generator, tmp_path: Path) -> None:
    policy = policy_kinds.make("nested", rng)
    export.export_policy(policy, tmp_path, environment="Car-v0", evaluation={"eval_return_mean": 1.5})
    document = json.loads((tmp_path / "metadata.json").read_text())
    assert document["environment"] == "Car-v0"
    assert document["evaluation"] == {"eval_return_mean": 1.5}
    assert document["packages"]["tensorflow"] == tf.__version__
    assert document["observation"]["observation_gear"] == {"shape": [], "dtype": "int32", "minimum": 0, "maximum": 4}
    gear = document["distribution"]["distribution_gear"]
    assert gear == {"kind": "categorical", "parameters": ["logits"], "constants": {"offset": 1}}
    assert document["distribution"]["distribution_wheels_0"]["kind"] == "normal"
    loaded = tf.saved_model.load(tmp_path)
    for name, signature in document["signatures"].items():
        inputs = loaded.signatures[name].structured_input_signature[1]
        assert signature["inputs"].keys() == inputs.keys()
        outputs = loaded.signatures[name].structured_outputs
        assert {k: v["shape"] for k, v in signature["outputs"].items()} == {
            k: v.shape.as_list() for k, v in outputs.items()
        }


def test_bounds_of_squashed_actions_are_told(rng: np.random.Generator, tmp_path: Path) -> None:
    export.export_policy(policy_kinds.make("squashed", rng), tmp_path)
    told = json.loads((tmp_path / "metadata.json").read_text())["distribution"]["distribution"]
    assert told["kind"] == "squashed_normal"
    np.testing.assert_allclose(told["constants"]["high"], [1, 2])


def test_all_signatures_work_with_tensorflow_alone(
    tensorflow_only_python: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    kinds = ("masked_gru", "squashed")
    for kind in kinds:
        export.export_policy(policy_kinds.make(kind, rng), tmp_path / kind)
    script = """
        import importlib.util, sys
        assert not any(map(importlib.util.find_spec, ("tf_agents", "tensorflow_probability", "tf_keras")))
        import tensorflow as tf
        x, seed = tf.ones([3, 4]), tf.constant([1, 2])
        plain = tf.saved_model.load(f"{sys.argv[1]}/squashed")
        action = plain.sample(x, seed)
        assert action.shape == (3, 2) and plain.log_prob(x, action).shape == (3,) and plain.value(x).shape == (3,)
        assert set(plain.distribution(x)) == {"loc", "scale"}
        memory = tf.saved_model.load(f"{sys.argv[1]}/masked_gru")
        x = {"observation": x, "action_mask": tf.constant([[True, False, False]] * 3)}
        action, state = memory.sample(x, seed, memory.initial_state(3))
        assert action.numpy().tolist() == [1, 1, 1]
        log_prob, _ = memory.log_prob(x, action, state)
        parameters, state = memory.distribution(x, memory.reset_state(state, tf.constant([True] * 3)))
        value, value_state = memory.value(x, memory.initial_value_state(3))
        memory.reset_value_state(value_state, tf.constant([True, False, True]))
        print(abs(log_prob.numpy()).tolist(), parameters["logits"].shape, value.shape)
    """
    command = [str(tensorflow_only_python), "-c", textwrap.dedent(script), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[:3] == ["[0.0,", "0.0,", "0.0]"]


def test_kinds_of_other_peoples_distributions() -> None:
    from ppo_agent.export.distribution_kinds import kind_of, parameters_of

    distribution = tfp.distributions.MultivariateNormalDiag(tf.zeros([2, 3]), tf.ones([2, 3]))
    assert kind_of(distribution).kind == "multivariate_normal_diag"
    assert set(parameters_of(distribution)) == {"loc", "scale_diag"}


@pytest.mark.parametrize("name", ["action", "sample", "distribution", "log_prob", "value", "serving_default"])
def test_observations_without_a_batch_dimension_are_named(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    export.export_policy(helpers.make_agent().policy, tmp_path)
    signature = tf.saved_model.load(tmp_path).signatures[name]
    more = {"sample": {"seed": tf.constant([1, 2])}, "log_prob": {"action": tf.zeros([1, 2])}}.get(name, {})
    for wrong in (tf.zeros([3]), tf.zeros([2, 3, 1]), tf.zeros([1, 4])):
        shape = ",".join(map(str, wrong.shape))
        message = rf"Shape of tensor observation \[{shape}\] is not compatible with expected shape \[\?,3\]"
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            signature(observation=wrong, **more)
