"""Rows that are stacked, against numpy.stack."""

import gc

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from ppo_agent.drivers.rollouts.columns import Columns


def _row(generator: np.random.Generator) -> ts.TimeStep:
    observation = {"b": generator.normal(size=(3, 2)), "a": (generator.normal(size=(3,)), ())}
    return ts.TimeStep(*(generator.integers(0, 9, size=3) for _ in range(3)), observation)


def test_stacks_nests_over_time() -> None:
    generator = np.random.default_rng(0)
    rows = [_row(generator) for _ in range(5)]
    columns = Columns()
    for row in rows:
        columns.append(row)
    stacked, expected = columns.stack(), tf.nest.map_structure(lambda *x: np.stack(x, axis=1), *rows)
    tf.nest.map_structure(np.testing.assert_array_equal, stacked, expected)
    tf.nest.assert_same_structure(stacked, expected)
    assert isinstance(stacked, ts.TimeStep)


def test_a_nest_without_leaves() -> None:
    columns = Columns()
    columns.append(())
    columns.append(())
    assert columns.stack() == ()


def test_keeps_nothing_that_the_garbage_collector_follows() -> None:
    generator, columns = np.random.default_rng(0), Columns()
    columns.append(_row(generator))
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(100):
        columns.append(_row(generator))
    gc.collect()
    assert len(gc.get_objects()) - before < 20
