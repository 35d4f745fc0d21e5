"""What there is once in a process: generators of random numbers, and TensorFlow's threads."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import tensorflow as tf


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and TensorFlow's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - environments written for it use the global generator.
    tf.random.set_seed(seed)


class GlobalGenerators:
    """The state of Python's and NumPy's global generators, for checkpoints.

    A run draws from TensorFlow's only while its parts are made, and what they drew is saved with them.
    """

    def get_state(self) -> dict[str, Any]:
        """Both states."""
        version, numbers, gauss = random.getstate()
        name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - as in `seed_everything`.
        return {"python": [version, list(numbers), gauss], "numpy": [name, np.asarray(keys), *rest]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over what `get_state` returned."""
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
        np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002 - as in `seed_everything`.


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
