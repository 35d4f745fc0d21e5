"""An actor that sees less than the value network, in training, on arrays, in exported policies and by `ppo-train`."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

import ppo_agent
from ppo_agent import evaluate, export, train
from ppo_agent.drivers.array_policies.array_policy import ArrayPolicy
from ppo_agent.export import actor_keys
from ppo_agent.networks import ActorNetwork, LSTMMemory, ValueNetwork

NUMBERS = tensor_spec.TensorSpec([3], tf.float32)
OBSERVATION = {
    "seen": NUMBERS,
    "hidden": tensor_spec.TensorSpec([2], tf.float32),
    "both": tensor_spec.BoundedTensorSpec([], tf.int32, 2, 4),
}
MASKED = {"observation": OBSERVATION, "action_mask": tensor_spec.BoundedTensorSpec([3], tf.int32, 0, 1)}
ACTION = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2)
OF_ACTOR, OF_VALUE = ("both", "seen"), ("hidden", "both")


class PartedCartPole(gymnasium.ObservationWrapper):
    """Positions and velocities apart."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        box = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
        self.observation_space = gymnasium.spaces.Dict({"position": box, "velocity": box})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        return {"position": observation[[0, 2]], "velocity": observation[[1, 3]]}


gymnasium.register("PartedCartPole-v0", lambda: PartedCartPole(gymnasium.make("CartPole-v1")), max_episode_steps=500)


def make_agent(observation: Any = OBSERVATION, memory: bool = False, **keywords: Any) -> ppo_agent.PPOAgent:
    memories = [LSTMMemory(4) if memory else None for _ in range(2)]
    return ppo_agent.PPOClipAgent(
        ts.time_step_spec(observation),
        ACTION,
        actor_net=ActorNetwork(observation, ACTION, (6,), memory=memories[0], observation_keys=OF_ACTOR),
        value_net=ValueNetwork(observation, (6,), memory=memories[1], observation_keys=OF_VALUE),
        num_epochs=1,
        **keywords,
    )


def observe(size: int, rng: np.random.Generator) -> dict[str, tf.Tensor]:
    return {
        "seen": tf.constant(rng.normal(size=(size, 3)), tf.float32),
        "hidden": tf.constant(rng.normal(size=(size, 2)), tf.float32),
        "both": tf.constant(rng.integers(2, 5, size), tf.int32),
    }


def test_each_network_depends_on_its_keys_alone(rng: np.random.Generator) -> None:
    agent, observation = make_agent(), observe(5, rng)
    agent.update_observation_normalizer(observe(50, rng))
    for v in agent._trained_variables():
        v.assign(rng.normal(size=v.shape))
    for key in OBSERVATION:
        other = {**observation, key: observe(5, rng)[key]}
        other[key] = (
            tf.where(other[key] == observation[key], other[key] * 0 + 3, other[key]) if key == "both" else other[key]
        )
        found = []
        for inputs in (observation, other):
            step = ts.restart(inputs, 5)
            logits = agent.collect_policy.distribution(step).action.logits_parameter().numpy()
            found.append((logits, agent._objective.predict_values(inputs, step.step_type).numpy()))
        changed = [not np.allclose(x, y, atol=1e-6) for x, y in zip(*found, strict=True)]
        assert changed == [key in OF_ACTOR, key in OF_VALUE]


@pytest.mark.filterwarnings("ignore:Encoding a StructuredValue")
@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("spec", [OBSERVATION, MASKED], ids=["plain", "masked"])
def test_an_exported_policy_asks_for_the_keys_of_the_actor(
    tmp_path: Path, rng: np.random.Generator, spec: Any, memory: bool
) -> None:
    agent = make_agent(spec, memory)
    seen = observe(50, rng)
    if spec is MASKED:
        seen = {"observation": seen, "action_mask": tf.ones([50, 3], tf.int32)}
    agent.update_observation_normalizer(seen)
    for v in agent.actor_net.trainable_weights:
        v.assign(rng.normal(size=v.shape) * (2.0 if "kernel" in v.name else 0.0))
    export.export_policy(agent.policy, tmp_path / "policy")
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    observation = observe(40, rng)
    if spec is MASKED:
        observation = {"observation": observation, "action_mask": tf.constant([[1, 0, 1]] * 40)}
    asked = actor_keys.select(observation, OF_ACTOR)
    state = (loaded.initial_state(40),) if memory else ()
    action = loaded.action(asked, *state)
    action = action[0] if memory else action
    step = ts.TimeStep(tf.ones([40], tf.int32), tf.zeros([40]), tf.ones([40]), observation)
    expected = agent.policy.action(step, agent.policy.get_initial_state(40)).action
    np.testing.assert_array_equal(action, expected)
    assert len(set(expected.numpy())) > 1
    assert not hasattr(loaded, "value")
    inputs = loaded.signatures["action"].structured_input_signature[1]
    assert not any(name.startswith("observation") and name.endswith("hidden") for name in inputs)
    export.export_policy_saver(agent.policy, tmp_path / "saver")
    saved = tf.saved_model.load(str(tmp_path / "saver"))
    found = saved.action(step._replace(observation=asked), saved.get_initial_state(40)).action
    np.testing.assert_array_equal(found, expected)


def test_a_policy_on_arrays_is_that_in_tensorflow(rng: np.random.Generator) -> None:
    agent, observation = make_agent(), observe(6, rng)
    step = ts.restart(observation, 6)
    arrays = tf.nest.map_structure(lambda tensor: tensor.numpy(), step)
    policy = ArrayPolicy(agent.policy)
    policy.refresh()
    np.testing.assert_array_equal(policy.act(arrays, ())[0], agent.policy.action(step).action)


def test_keys_that_are_not_there() -> None:
    with pytest.raises(ValueError, match=r"observation_keys is \('seen', 'x'\), expected some of seen, hidden, both"):
        ActorNetwork(OBSERVATION, ACTION, observation_keys=("seen", "x"))
    with pytest.raises(ValueError, match=r"observation_keys is \('x',\), expected None: the observation is no mapping"):
        ValueNetwork(NUMBERS, observation_keys=("x",))
    with pytest.raises(ValueError, match=r"observation_keys is \(\), expected some of"):
        ValueNetwork(OBSERVATION, observation_keys=())


def test_a_run_by_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {
        "env_name": "PartedCartPole-v0", "root_dir": tmp_path, "total_environment_steps": 128, "minibatch_size": 32,
        "num_environments": 2, "collect_steps_per_iteration": 32, "num_epochs": 1, "num_eval_episodes": 2,
        "actor_observation_keys": "position", "value_observation_keys": "position,velocity", "progress": "false",
    }  # fmt: skip
    assert train.main(["ppo-train", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    signature = tf.saved_model.load(str(tmp_path / "policy")).signatures["action"].structured_input_signature[1]
    assert list(signature) == ["observation_position"]
    capsys.readouterr()
    of_policy = (f"--policy_dir={tmp_path / 'policy'}", "--env_name=PartedCartPole-v0", "--num_episodes=2")
    assert evaluate.main(["ppo-eval", *of_policy]) == 0
    assert json.loads(capsys.readouterr().out)["num_eval_episodes"] == 2


def test_predictions_need_what_the_actor_sees() -> None:
    keys = {"actor_observation_keys": "position", "value_observation_keys": "velocity,position"}
    with ppo_agent.Trainer("PartedCartPole-v0", num_environments=2, **keys) as trainer:
        observation = {"position": np.array([[0.1, 0.2], [0.3, -0.2]], np.float32)}
        actions, _ = trainer.predict(observation)
        whole = {**observation, "velocity": np.ones((2, 2), np.float32)}
        np.testing.assert_array_equal(actions, trainer.predict(whole)[0])
        assert trainer.predict({"position": np.zeros(2)})[0].shape == ()
        assert trainer.action_probability(observation).shape == (2, 2)
        assert trainer.value(whole).shape == (2,)
        with pytest.raises(ValueError, match="observation is a mapping with the keys"):
            trainer.value(observation)
