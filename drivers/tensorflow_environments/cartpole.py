"""The cart and the pole."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Tensor

from . import base

_GRAVITY = 9.8
_POLE_MASS = 0.1
_TOTAL_MASS = 1.0 + _POLE_MASS
_HALF_LENGTH = 0.5
_FORCE = 10.0
_TIME_STEP = 0.02  # seconds
_MOST_ANGLE = 12 * 2 * math.pi / 360
_MOST_POSITION = 2.4


class TFCartPole(base.TensorFlowEnvironment):
    """gymnasium's CartPole-v1 (Barto, Sutton and Anderson, 1983), in TensorFlow operations.

    The state is computed in float64, as gymnasium does, and observed in float32.
    """

    max_episode_steps = 500
    observation_space = gym.spaces.Box(
        np.array([-2 * _MOST_POSITION, -np.inf, -2 * _MOST_ANGLE, -np.inf], np.float32),
        np.array([2 * _MOST_POSITION, np.inf, 2 * _MOST_ANGLE, np.inf], np.float32),
    )
    action_space = gym.spaces.Discrete(2)

    def _initial_state(self, seed: Tensor) -> tf.Tensor:
        return self.uniform(seed, [-0.05] * 4, [0.05] * 4)

    def _advance(self, state: Tensor, action: Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        x, x_dot, theta, theta_dot = tf.unstack(state, axis=1)
        force = tf.where(tf.equal(action, 1), tf.constant(_FORCE, tf.float64), -_FORCE)
        cos, sin = tf.cos(theta), tf.sin(theta)
        push = (force + _POLE_MASS * _HALF_LENGTH * tf.square(theta_dot) * sin) / _TOTAL_MASS
        theta_acceleration = (_GRAVITY * sin - cos * push) / (
            _HALF_LENGTH * (4.0 / 3.0 - _POLE_MASS * tf.square(cos) / _TOTAL_MASS)
        )
        x_acceleration = push - _POLE_MASS * _HALF_LENGTH * theta_acceleration * cos / _TOTAL_MASS
        x, theta = x + _TIME_STEP * x_dot, theta + _TIME_STEP * theta_dot
        x_dot, theta_dot = x_dot + _TIME_STEP * x_acceleration, theta_dot + _TIME_STEP * theta_acceleration
        terminated = (tf.abs(x) > _MOST_POSITION) | (tf.abs(theta) > _MOST_ANGLE)
        return tf.stack([x, x_dot, theta, theta_dot], axis=1), tf.ones_like(x), terminated

    def _observe(self, state: Tensor) -> tf.Tensor:
        return tf.cast(state, tf.float32)
