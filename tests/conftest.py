"""Fixtures that all tests share; importing ppo_agent first lets it choose the Keras of TensorFlow."""

import gc
import os
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # One thread for each worker, or the workers fight for the cores.
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PPO_AGENT_COMPILATION_CACHE", "off")  # Tests know nothing of one another.

from ppo_agent import _stack

_stack.import_tensorflow()

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_only

# Tensors of new shapes trace new graphs: few examples, no deadline, the same ones in every run.
hypothesis.settings.register_profile("ppo_agent", max_examples=20, deadline=None, derandomize=True)
# Thousands of cases, others in every run: make properties.
hypothesis.settings.register_profile("thorough", max_examples=200, deadline=None, print_blob=True)
hypothesis.settings.load_profile("ppo_agent")


def _seed(node_id: str) -> int:
    return zlib.crc32(node_id.encode())


@pytest.fixture(autouse=True)
def _seed_tensorflow(request: pytest.FixtureRequest) -> None:
    """Gives each test its own seed, whatever ran before it in the same process; Keras draws from Python's."""
    tf.random.set_seed(_seed(request.node.nodeid))
    random.seed(_seed(request.node.nodeid))


@pytest.fixture(autouse=True, scope="module")
def _keep_collections_short() -> Iterator[None]:
    """Leaves what outlives a module's tests, imports among it, out of later collections, which take seconds otherwise.

    TensorFlow and Keras keep a thousand objects of each test.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _do_not_wait_for_disks() -> Iterator[None]:
    """Lets `os.fsync` do nothing: no test cuts the power, and a small training waits for 50 of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A NumPy generator with a seed of the test's own."""
    return np.random.default_rng(_seed(request.node.nodeid))


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test in an empty folder, so that relative paths that it writes do not end up in the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tensorflow_only_python() -> Path:
    """The interpreter of a virtual environment that has the running stack's TensorFlow and nothing else."""
    return tensorflow_only.interpreter()
