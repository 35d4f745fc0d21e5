"""Weight initialisation: orthogonal kernels, zero biases, one independent seed for every layer."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ppo_agent.common.limits import LARGEST_INT32
from ppo_agent.common.seeds import draw_seed

HIDDEN_GAIN = math.sqrt(2.0)
POLICY_GAIN = 0.01
VALUE_GAIN = 1.0


class SeedSource:
    """Hands out one seed after another, each for an independent random stream.

    Args:
        seed: where the sequence starts. `None` draws it from TensorFlow's global generator, so that
            `tf.random.set_seed` decides; Keras' own default would not listen to it.
        salt: name that keeps two networks with the same seed apart.
    """

    def __init__(self, seed: int | None, salt: str) -> None:
        if seed is None:
            seed = draw_seed()
        self._sequence = np.random.SeedSequence([seed, zlib.crc32(salt.encode())])

    def __call__(self) -> int:
        """Returns the next seed, in [0, 2**31 - 1)."""
        return int(self._sequence.spawn(1)[0].generate_state(1)[0]) % LARGEST_INT32


def dense(
    units: int,
    gain: float,
    seed: int,
    activation: str | Callable[[tf.Tensor], tf.Tensor] | None = None,
    name: str | None = None,
    bias: float = 0.0,
) -> tf.keras.layers.Dense:
    """A fully connected layer with an orthogonal kernel scaled by `gain` and a constant bias."""
    return tf.keras.layers.Dense(
        units,
        activation=activation,
        kernel_initializer=tf.keras.initializers.Orthogonal(gain, seed=seed),
        bias_initializer=tf.keras.initializers.Constant(bias),
        name=name,
    )


def conv(filters: int, kernel_size: int, stride: int, gain: float, seed: int, name: str) -> tf.keras.layers.Conv2D:
    """A convolution with ReLU, without padding, its kernel orthogonal and scaled by `gain`, its bias zero."""
    return tf.keras.layers.Conv2D(
        filters,
        kernel_size,
        stride,
        activation="relu",
        kernel_initializer=tf.keras.initializers.Orthogonal(gain, seed=seed),
        name=name,
    )
