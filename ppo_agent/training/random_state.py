"""The global generators of random numbers."""

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
