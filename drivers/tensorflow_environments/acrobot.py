"""The two-link pendulum with a motor between its links."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import tensorflow as tf

from ppo_agent.common.types import Tensor

from . import base

Columns = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]

_GRAVITY = 9.8  # Masses, lengths and moments of inertia of the links are 1.
_CENTRE = 0.5  # distance of a link's centre of mass from its upper joint
_TIME_STEP = 0.2  # seconds
_MOST_SPEEDS = (4 * math.pi, 9 * math.pi)
_HIGH = np.array([1.0, 1.0, 1.0, 1.0, *_MOST_SPEEDS], np.float32)


class TFAcrobot(base.TensorFlowEnvironment):
    """gymnasium's Acrobot-v1 (Sutton, 1996), in TensorFlow operations.

    The state is computed in float64, as gymnasium does, and observed in float32.
    """

    max_episode_steps = 500
    observation_space = gym.spaces.Box(-_HIGH, _HIGH)
    action_space = gym.spaces.Discrete(3)

    def _initial_state(self, seed: Tensor) -> tf.Tensor:
        return self.uniform(seed, [-0.1] * 4, [0.1] * 4)

    def _advance(self, state: Tensor, action: Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        torque = tf.cast(action, tf.float64) - 1.0
        theta1, theta2, speed1, speed2 = _runge_kutta(tuple(tf.unstack(state, axis=1)), torque)
        theta1, theta2 = _wrap(theta1), _wrap(theta2)
        speed1, speed2 = (
            tf.clip_by_value(speed, -most, most) for speed, most in zip((speed1, speed2), _MOST_SPEEDS, strict=True)
        )
        terminated = -tf.cos(theta1) - tf.cos(theta1 + theta2) > 1.0
        reward = tf.where(terminated, 0.0, -1.0)
        return tf.stack([theta1, theta2, speed1, speed2], axis=1), reward, terminated

    def _observe(self, state: Tensor) -> tf.Tensor:
        theta1, theta2, speed1, speed2 = tf.unstack(state, axis=1)
        columns = [tf.cos(theta1), tf.sin(theta1), tf.cos(theta2), tf.sin(theta2), speed1, speed2]
        return tf.cast(tf.stack(columns, axis=1), tf.float32)


def _runge_kutta(state: Columns, torque: tf.Tensor) -> Columns:
    """Returns the state after a time step, by the classical method of fourth order."""

    def moved(slope: Columns, time: float) -> Columns:
        return tuple(x + time * dx for x, dx in zip(state, slope, strict=True))

    k1 = _derivatives(state, torque)
    k2 = _derivatives(moved(k1, _TIME_STEP / 2), torque)
    k3 = _derivatives(moved(k2, _TIME_STEP / 2), torque)
    k4 = _derivatives(moved(k3, _TIME_STEP), torque)
    slope = tuple(a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
    return moved(slope, _TIME_STEP / 6)


def _derivatives(state: Columns, torque: tf.Tensor) -> Columns:
    """Returns speeds and accelerations (Sutton and Barto, Reinforcement Learning, 1st edition, section 11.3)."""
    theta1, theta2, speed1, speed2 = state
    cos2, sin2 = tf.cos(theta2), tf.sin(theta2)
    d1 = _CENTRE**2 + (1 + _CENTRE**2 + 2 * _CENTRE * cos2) + 2
    d2 = _CENTRE**2 + _CENTRE * cos2 + 1
    phi2 = _CENTRE * _GRAVITY * tf.sin(theta1 + theta2)  # gymnasium: cos(x - pi / 2)
    phi1 = (
        -_CENTRE * tf.square(speed2) * sin2
        - 2 * _CENTRE * speed2 * speed1 * sin2
        + (_CENTRE + 1) * _GRAVITY * tf.sin(theta1)
        + phi2
    )
    acceleration2 = (torque + d2 / d1 * phi1 - _CENTRE * tf.square(speed1) * sin2 - phi2) / (
        _CENTRE**2 + 1 - tf.square(d2) / d1
    )
    acceleration1 = -(d2 * acceleration2 + phi1) / d1
    return speed1, speed2, acceleration1, acceleration2


def _wrap(angle: tf.Tensor) -> tf.Tensor:
    """Returns the same angle in [-pi, pi]."""
    turn = 2 * math.pi
    return tf.where(tf.abs(angle) > math.pi, angle - turn * tf.round(angle / turn), angle)
