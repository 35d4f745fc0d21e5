"""Seeds that follow from `tf.random.set_seed`."""

from __future__ import annotations

import tensorflow as tf

from ppo_agent.common.limits import LARGEST_INT32


def draw_seed(limit: int = LARGEST_INT32) -> int:
    """Draws a seed from TensorFlow's global generator, outside of any graph that is being built.

    Args:
        limit: the seed is below it; `LARGEST_INT64` for as many bits as a seed can have.
    """
    dtype = tf.int32 if limit <= LARGEST_INT32 else tf.int64
    with tf.init_scope():
        # Not int(), of which AutoGraph would make an operation.
        seed: int = tf.random.uniform([], maxval=limit, dtype=dtype).numpy().item()
        return seed
