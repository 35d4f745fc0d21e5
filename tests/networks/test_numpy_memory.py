"""Single steps of the recurrent layers in NumPy against the layers themselves."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ppo_agent.networks.memory import GRUMemory, LSTMMemory, Memory

BOTH = pytest.mark.parametrize("memory_class", [LSTMMemory, GRUMemory])


def _make(memory_class: Any, rng: np.random.Generator) -> Memory:
    memory = memory_class(7)
    memory(tf.zeros([1, 1, 5]), tf.zeros([1, 1], tf.bool))
    _shake(memory, rng)
    return memory


def _shake(memory: Memory, rng: np.random.Generator) -> None:
    for variable in memory.variables:
        variable.assign(rng.normal(0.0, 0.7, variable.shape))


def _assert_close(found: Any, expected: Any) -> None:
    tf.nest.assert_same_structure(found, expected)
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@BOTH
@pytest.mark.parametrize("batch_size", [1, 6])
def test_many_steps_with_resets(memory_class: Any, batch_size: int, rng: np.random.Generator) -> None:
    memory = _make(memory_class, rng)
    mirror = memory.numpy_mirror()
    features = rng.normal(0.0, 2.0, (batch_size, 200, 5)).astype(np.float32)
    is_first = rng.random((batch_size, 200)) < 0.05
    outputs, last = memory(tf.constant(features), tf.constant(is_first))
    state: Any = ()
    for t in range(200):
        output, state = mirror(features[:, t], is_first[:, t], state)
        _assert_close(output, outputs[:, t])
    _assert_close(state, last)


@BOTH
def test_refresh_takes_over_new_weights_and_nothing_else_does(memory_class: Any, rng: np.random.Generator) -> None:
    memory = _make(memory_class, rng)
    mirror = memory.numpy_mirror()
    features, is_first = rng.normal(size=(3, 5)).astype(np.float32), np.zeros(3, bool)
    before, _ = mirror(features, is_first, ())
    _shake(memory, rng)
    np.testing.assert_array_equal(mirror(features, is_first, ())[0], before)
    mirror.refresh()
    outputs, state = memory(tf.constant(features)[:, tf.newaxis], tf.constant(is_first)[:, tf.newaxis])
    _assert_close(mirror(features, is_first, ()), (outputs[:, 0], state))


@BOTH
def test_neither_arguments_nor_earlier_results_are_changed(memory_class: Any, rng: np.random.Generator) -> None:
    mirror = _make(memory_class, rng).numpy_mirror()
    features = rng.normal(size=(3, 5)).astype(np.float32)
    results = [mirror(features, np.zeros(3, bool), ())]
    for is_first in (np.zeros(3, bool), np.array([True, False, True])):
        arrays = [features, *tf.nest.flatten(results)]
        copies = [array.copy() for array in arrays]
        results.append(mirror(features, is_first, results[-1][1]))
        for array, copy in zip(arrays, copies, strict=True):
            np.testing.assert_array_equal(array, copy)


@BOTH
def test_a_first_step_forgets_even_infinities(memory_class: Any, rng: np.random.Generator) -> None:
    mirror = _make(memory_class, rng).numpy_mirror()
    features = rng.normal(size=(2, 5)).astype(np.float32)
    _, state = mirror(features, np.zeros(2, bool), ())
    bad = tf.nest.map_structure(lambda leaf: leaf * np.float32(np.inf), state)
    _assert_close(mirror(features, np.ones(2, bool), bad), mirror(features, np.zeros(2, bool), ()))
