"""Environments that tell which actions are allowed."""

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from ppo_agent.drivers import GymnasiumEnvironment


class Masked(gym.Env):
    """Shows masks one after the other; the episode ends with the last one."""

    def __init__(self, masks, action_space=None):
        self.masks = masks
        self.observation_space = spaces.Dict(
            {"observation": spaces.Box(-1, 1, [2]), "action_mask": spaces.MultiBinary(len(masks[0]))}
        )
        self.action_space = action_space or spaces.Discrete(3)
        self.step_index = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_index = 0
        return self._observation(), {}

    def step(self, action):
        self.step_index += 1
        return self._observation(), 0.0, self.step_index == len(self.masks) - 1, False, {}

    def _observation(self):
        return {"observation": np.zeros(2, np.float32), "action_mask": np.array(self.masks[self.step_index], np.int8)}


ALL, NONE = [1, 1, 1], [0, 0, 0]


def test_nothing_need_be_allowed_after_the_end():
    with GymnasiumEnvironment(lambda: Masked([ALL, [0, 1, 0], NONE]), num_environments=2) as env:
        env.reset()
        for step_type in (1, 2, 0, 1, 2):
            np.testing.assert_array_equal(env.step(tf.ones([2], tf.int64)).step_type, [step_type] * 2)


@pytest.mark.parametrize("in_graph", [False, True])
def test_a_mask_that_forbids_everything_names_the_environment(in_graph):
    masks = [[ALL, ALL, ALL, ALL], [ALL, ALL, NONE, ALL]]
    vector = gym.vector.SyncVectorEnv([lambda m=m: Masked(m) for m in masks])
    with GymnasiumEnvironment(vector) as env:
        env.reset()
        action = tf.zeros([2], tf.int64)
        step = tf.function(env.step) if in_graph else env.step
        step(action)
        with pytest.raises(
            (ValueError, tf.errors.InvalidArgumentError),
            match=r"action_mask of environment 1 allows no action at all, .*\[0, 0, 0\]",
        ):
            step(action)


def test_every_component_needs_a_choice():
    def make():
        return Masked([[0, 1, 0, 0, 0], [0, 1, 0, 0, 0]], spaces.MultiDiscrete([2, 3]))

    with GymnasiumEnvironment(make) as env, pytest.raises(ValueError, match="environment 0 allows no action"):
        env.reset()


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"action mask has the shape \(4,\), expected \[3\]"):
        GymnasiumEnvironment(lambda: Masked([[1, 1, 1, 1]]))
