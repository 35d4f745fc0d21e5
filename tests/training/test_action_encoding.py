"""Predicted actions are those that the environment takes, whatever its action space."""

import functools
import json

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from reliability import corruptions

from ppo_agent import Trainer
from ppo_agent.drivers import TFPendulum
from ppo_agent.training.action_encoding import ActionEncoding

SETTINGS = {
    "preset": "none", "num_environments": 2, "collect_steps_per_iteration": 8, "minibatch_size": 8, "num_epochs": 1,
    "actor_fc_layers": (4,), "value_fc_layers": (), "initial_log_std": 2.0,
}  # fmt: skip
SPACES = {
    "from 0": spaces.Discrete(4),
    "from 3": spaces.Discrete(4, start=3),
    "from -2": spaces.Discrete(3, start=-2),
    "several": spaces.MultiDiscrete([2, 3], start=[1, -4]),
    "binary": spaces.MultiBinary(3),
    "bounded": spaces.Box(np.array([-0.1, 2.0], np.float32), np.array([0.3, 2.5], np.float32)),
    "double": spaces.Box(-0.1, 0.1, (2,), np.float64),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "half bounded": spaces.Box(np.array([0.0, -np.inf]), np.array([np.inf, 0.7]), (2,), np.float64),
    "whole": spaces.Box(3, 6, (2,), np.int8),
    "bools": spaces.Box(0, 1, (2,), bool),
    "half": spaces.Box(-0.1, 0.1, (2,), np.float16),
    "dict": spaces.Dict({"b": spaces.Discrete(2, start=5), "a": spaces.Box(-1, 1, (1,), np.float64)}),
    "tuple": spaces.Tuple([spaces.Discrete(3, start=1), spaces.MultiBinary(2)]),
}


@pytest.fixture(autouse=True)
def _without_compilation():
    with corruptions.without_compilation():
        yield


class Picky(gym.Env):
    """Takes actions of its space alone."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        done = self.np_random.random() < 0.2
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), 0.0, done, False, {}


def assert_equal(actual, expected):
    tf.nest.map_structure(np.testing.assert_array_equal, actual, expected)


def assert_close(actual, expected):
    """The same up to the order in which NumPy and TensorFlow add."""
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    tf.nest.map_structure(close, actual, expected)


@pytest.mark.parametrize("kind", SPACES)
def test_predictions_are_the_environments(kind, rng, tmp_path):
    space = SPACES[kind]
    observations = rng.uniform(-1, 1, (20, 3)).astype(np.float32)
    with Trainer(lambda: Picky(space), **SETTINGS) as trainer:
        env = trainer.env
        trainer.train(16)
        trainer.save(tmp_path / "saved")
        greedy, _ = trainer.predict(observations)
        policy_step = trainer.agent.policy.action(
            tf.nest.map_structure(lambda x: tf.repeat(x[:1], 20, axis=0), env.current_time_step())._replace(
                observation=tf.constant(observations)
            )
        )
        assert_close(greedy, env.encode_action(tf.nest.map_structure(np.asarray, policy_step.action)))
        sampled = [trainer.predict(x, deterministic=False)[0] for x in observations]
        log_probs = trainer.action_probability(observations, greedy, logp=True)
    assert all(space.contains(action) for action in sampled)
    assert np.isfinite(log_probs).all()
    if kind.startswith("from"):
        probabilities = trainer.action_probability(observations)
        assert_equal(greedy, probabilities.argmax(-1) + space.start)
        np.testing.assert_allclose(np.exp(log_probs), probabilities.max(-1), rtol=1e-5)
        assert {int(action) for action in sampled} <= set(range(space.start, space.start + space.n))
    loaded = Trainer.load(tmp_path / "saved")
    assert_equal(loaded.predict(observations)[0], greedy)
    assert tf.nest.map_structure(lambda x: x.dtype, loaded.predict(observations)[0]) == tf.nest.map_structure(
        lambda x: x.dtype, greedy
    )
    single, _ = loaded.predict(observations[0], deterministic=False)
    assert space.contains(single)
    np.testing.assert_allclose(loaded.action_probability(observations, greedy, logp=True), log_probs, rtol=1e-5)
    with pytest.raises(ValueError, match="actions is"):
        loaded.action_probability(observations, {"unknown": greedy})


def test_environments_in_tensorflow_take_what_their_specs_say():
    env = TFPendulum(num_environments=2)
    encoding = ActionEncoding.of_environment(env, env.action_spec())
    assert_equal(encoding.encode(np.array([[-9.0], [0.5]], np.float32)), np.array([[-2.0], [0.5]], np.float32))


DAMAGES = {
    "no list": lambda leaves: {},
    "too few": lambda leaves: leaves[1:],
    "dtype": lambda leaves: [{**leaves[0], "dtype": "object"}, *leaves[1:]],
    "other kind": lambda leaves: [{**leaves[0], "dtype": "int64"}, *leaves[1:]],
    "shape": lambda leaves: [{**leaves[0], "low": [0.0, 1.0]}, *leaves[1:]],
    "not finite": lambda leaves: [{**leaves[0], "high": [float("nan")]}, *leaves[1:]],
    "text": lambda leaves: [{**leaves[0], "high": ["x"]}, *leaves[1:]],
    "missing": lambda leaves: [{"dtype": "float32"}, *leaves[1:]],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_saved_is_checked(damage):
    env = Trainer(lambda: Picky(SPACES["dict"]), **SETTINGS).env
    encoding = ActionEncoding.of_environment(env, env.action_spec())
    document = json.loads(json.dumps(encoding.to_json()))
    again = ActionEncoding.from_json(env.action_spec(), document)
    action = {"a": np.array([[0.25]], np.float32), "b": np.array([1])}
    assert_equal(again.encode(action), encoding.encode(action))
    with pytest.raises(ValueError, match="action_encoding holds"):
        ActionEncoding.from_json(env.action_spec(), DAMAGES[damage](document))
