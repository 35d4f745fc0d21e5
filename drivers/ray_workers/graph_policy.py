"""A policy inside a worker that NumPy cannot carry out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppo_agent.common import array_nests
from ppo_agent.common.types import Array, Nest


class GraphPolicy:
    """Calls a graph of TensorFlow at each step.

    Args:
        files: Of a SavedModel, by path.
        structure: Nest of (action, policy info, policy state), without arrays.
        seed: Of the random numbers.
    """

    def __init__(self, files: dict[str, bytes], structure: Nest, seed: np.random.SeedSequence) -> None:
        # A worker has one core.
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ.setdefault(name, "1")
        import tensorflow as tf

        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self._module: Any = tf.saved_model.load(folder)
        self._pack = array_nests.packer(structure)
        self._seed, self._count = int(seed.generate_state(1)[0]) % 2**31, 0

    def put(self, values: Sequence[Array]) -> None:
        """Takes the weights of an iteration."""
        for variable, value in zip(self._module.variables_in_order, values, strict=True):
            variable.assign(value)

    def act(self, time_step: Nest, state: Nest) -> tuple[Nest, Nest, Nest]:
        """Returns arrays (action, policy info, next policy state)."""
        leaves = [*array_nests.flatten(time_step), *array_nests.flatten(state)]
        step = self._module.act(*leaves, np.array([self._count, self._seed], np.int32))
        self._count += 1
        packed: tuple[Nest, Nest, Nest] = self._pack(iter([tensor.numpy() for tensor in step]))
        return packed
