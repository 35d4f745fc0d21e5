"""A whole rollout written into TF-Agents' buffer leaves it as rows added one after the other do."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.replay_buffers import table, tf_uniform_replay_buffer

from ppo_agent.drivers.replay_buffer import tf_agents_rows

BATCH, MOST = 3, 7
SPEC = {"a": tf.TensorSpec([2], tf.float32, "a"), "b": tf.TensorSpec([], tf.int64, "b")}


def make_buffer(kind=tf_uniform_replay_buffer.TFUniformReplayBuffer, **keywords):
    return kind(SPEC, BATCH, max_length=MOST, **keywords)


def rows(rng, length):
    return {
        "a": rng.normal(size=(BATCH, length, 2)).astype(np.float32),
        "b": rng.integers(0, 1000, (BATCH, length)),
    }


@pytest.mark.parametrize("lengths", [(3,), (7,), (3, 3, 3), (5, 4, 1, 6), (12,), (2, 20, 3)])
@pytest.mark.parametrize("traced", [False, True])
def test_rows_and_ids_are_those_of_add_batch(rng, lengths, traced):
    ours, theirs = make_buffer(), make_buffer()
    write = tf_agents_rows.writer_of(ours.add_batch)
    if traced:
        spec = {k: tf.TensorSpec([BATCH, None, *s.shape], s.dtype) for k, s in SPEC.items()}
        write = tf.function(write, input_signature=[spec], autograph=False)
    for length in lengths:
        rollout = rows(rng, length)
        write(rollout)
        for t in range(length):
            theirs.add_batch({k: tf.constant(v[:, t]) for k, v in rollout.items()})
    for found, expected in zip(ours.variables(), theirs.variables(), strict=True):
        np.testing.assert_array_equal(found, expected)
    for found, expected in zip(*(tf.nest.flatten(b.gather_all()) for b in (ours, theirs)), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert int(ours.num_frames()) == BATCH * min(sum(lengths), MOST)


def test_rows_of_another_structure_are_refused_before_anything_is_written(rng):
    buffer = make_buffer()
    with pytest.raises((TypeError, ValueError)):
        tf_agents_rows.writer_of(buffer.add_batch)({"a": rows(rng, 2)["a"]})
    assert int(buffer.num_frames()) == 0


def test_what_may_do_more_than_store_gets_row_after_row():
    class Own(tf_uniform_replay_buffer.TFUniformReplayBuffer):
        pass

    class OwnTable(table.Table):
        pass

    assert tf_agents_rows.writer_of(make_buffer().add_batch) is not None
    for observer in (
        make_buffer(Own).add_batch,
        make_buffer(table_fn=OwnTable).add_batch,
        make_buffer().clear,
        lambda row: row,
        print,
    ):
        assert tf_agents_rows.writer_of(observer) is None
