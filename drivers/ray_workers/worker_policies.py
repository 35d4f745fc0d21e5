"""Policies inside a worker: a policy that consists of NumPy's operations needs no TensorFlow."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_agent.common import array_nests
from ppo_agent.common.types import Array, Nest

from ..array_policies.numpy_code import NumpyCode, PortableCode


class NumpyPolicyMaker(NamedTuple):
    """Makes a policy in NumPy.

    Attributes:
        code: What it consists of.
    """

    code: PortableCode

    def __call__(self, seed: np.random.SeedSequence) -> NumpyCode:
        """Returns the policy, whose random numbers have a seed."""
        return NumpyCode(self.code, seed)


class GraphPolicyMaker(NamedTuple):
    """Makes a policy from a SavedModel.

    Attributes:
        files: Of the SavedModel, by path.
        structure: Nest of (action, policy info, policy state), without arrays.
    """

    files: dict[str, bytes]
    structure: Nest

    def __call__(self, seed: np.random.SeedSequence) -> GraphPolicy:
        """Returns the policy, whose random numbers have a seed."""
        return GraphPolicy(self.files, self.structure, seed)


class GraphPolicy:
    """Calls a graph of TensorFlow at each step."""

    def __init__(self, files: dict[str, bytes], structure: Nest, seed: np.random.SeedSequence) -> None:
        """Loads TensorFlow and the graph."""
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
