"""The pendulum that is swung up."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Tensor

from . import base

_GRAVITY = 10.0  # Mass and length are 1.
_MOST_SPEED = 8.0
_MOST_TORQUE = 2.0
_TIME_STEP = 0.05  # seconds


class TFPendulum(base.TensorFlowEnvironment):
    """gymnasium's Pendulum-v1, in TensorFlow operations.

    The state is computed in float64, as gymnasium does, and observed in float32.
    """

    max_episode_steps = 200
    observation_space = gym.spaces.Box(
        np.array([-1.0, -1.0, -_MOST_SPEED], np.float32), np.array([1.0, 1.0, _MOST_SPEED], np.float32)
    )
    action_space = gym.spaces.Box(-_MOST_TORQUE, _MOST_TORQUE, [1], np.float32)

    def _initial_state(self, seed: Tensor) -> tf.Tensor:
        return self.uniform(seed, [-math.pi, -1.0], [math.pi, 1.0])

    def _advance(self, state: Tensor, action: Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        angle, speed = tf.unstack(state, axis=1)
        torque = tf.cast(tf.clip_by_value(action[:, 0], -_MOST_TORQUE, _MOST_TORQUE), tf.float64)
        from_top = tf.math.floormod(angle + math.pi, 2 * math.pi) - math.pi
        cost = tf.square(from_top) + 0.1 * tf.square(speed) + 0.001 * tf.square(torque)
        speed += (3 * _GRAVITY / 2 * tf.sin(angle) + 3.0 * torque) * _TIME_STEP
        speed = tf.clip_by_value(speed, -_MOST_SPEED, _MOST_SPEED)
        angle += speed * _TIME_STEP
        return tf.stack([angle, speed], axis=1), -cost, tf.zeros_like(angle, tf.bool)

    def _observe(self, state: Tensor) -> tf.Tensor:
        angle, speed = tf.unstack(state, axis=1)
        return tf.cast(tf.stack([tf.cos(angle), tf.sin(angle), speed], axis=1), tf.float32)
