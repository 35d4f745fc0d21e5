"""Summaries behind one condition, compared with those of tf.summary."""

import numpy as np
import pytest
import tensorflow as tf
from test_summaries import written

from ppo_agent import summaries
from ppo_agent.common import scalar_summaries, summary_groups

HISTOGRAMS = {
    "normal": np.linspace(-2, 3, 100) ** 3,
    "equal": np.ones(5),
    "none": np.zeros(0),
    "whole": np.arange(7) % 3,
}


def record(folder, function):
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        function()
    writer.close()
    return written(folder)


def write_as_tensorflow_does():
    for name, values in HISTOGRAMS.items():
        tf.summary.histogram(name, values, 3)
    tf.summary.scalar("count", 7, 3)


@pytest.mark.parametrize("in_graph", [True, False])
def test_what_is_written_is_what_tensorflow_writes(tmp_path, in_graph):
    def write():
        summaries.write_histograms(3, **{name: tf.constant(values) for name, values in HISTOGRAMS.items()})
        scalar_summaries.write_scalars(3, count=lambda: tf.constant(7))

    expected = record(tmp_path / "expected", write_as_tensorflow_does)
    found = record(tmp_path / "found", tf.function(write, autograph=False) if in_graph else write)
    assert found.keys() == expected.keys()
    for tag in expected:
        assert found[tag][0][0] == 3
        np.testing.assert_allclose(found[tag][0][1], expected[tag][0][1], rtol=1e-6)


def test_nothing_is_computed_where_nothing_is_recorded(tmp_path):
    computed = tf.Variable(0)

    def value():
        with tf.control_dependencies([computed.assign_add(1)]):
            return tf.constant(1.0)

    is_recorded = tf.Variable(False)

    @tf.function(autograph=False)
    def write():
        with summaries.recording(tf.constant(True), tf.constant(5, tf.int64)):
            summaries.write_histograms(5, a=value)
            scalar_summaries.write_scalars(5, b=value)

    def run():
        with tf.summary.record_if(lambda: tf.identity(is_recorded)):
            write()
            assert int(computed) == 0
            is_recorded.assign(True)
            write()

    assert record(tmp_path, run).keys() == {"a", "b"}
    assert int(computed) == 2


def test_a_group_has_one_condition(tmp_path):
    def write(x):
        with summaries.recording(x > 0, tf.constant(0, tf.int64)):
            for name in "abcdef":
                summaries.write_histograms(0, **{name: x})

    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        graph = tf.function(write, autograph=False).get_concrete_function(tf.TensorSpec([], tf.float32)).graph
    types = [op.type for op in graph.get_operations()]
    assert types.count("If") + types.count("StatelessIf") == 1


def test_what_is_off_leaves_no_trace(tmp_path):
    def write():
        with summary_groups.off():
            summaries.write_histograms(0, a=tf.constant(1.0))

    assert not record(tmp_path, write)
    assert not summary_groups.are_off()
