"""How many threads TensorFlow uses."""

from __future__ import annotations

import tensorflow as tf


def use_threads(number: int) -> None:
    """Sets the number of threads of TensorFlow's operations; 0 leaves it as it is.

    Raises:
        ValueError: TensorFlow runs with another number already.
    """
    threading = tf.config.threading
    if number and number != threading.get_intra_op_parallelism_threads():
        try:
            threading.set_intra_op_parallelism_threads(number)
            threading.set_inter_op_parallelism_threads(number)
        except RuntimeError as error:
            raise ValueError(
                f"num_threads is {number}, expected it before TensorFlow's first operation in this process."
            ) from error
