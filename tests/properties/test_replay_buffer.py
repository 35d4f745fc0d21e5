"""The replay buffer against a list, for any sequence of calls."""

import numpy as np
import pytest
import strategies
import tensorflow as tf
from hypothesis import strategies as st
from strategies import holds_for

from ppo_agent.drivers import UniformReplayBuffer

SPEC = {"x": tf.TensorSpec([2], tf.float32), "n": (tf.TensorSpec([], tf.int64),)}
BATCH = 2

CALLS = st.lists(
    st.one_of(
        st.just(("add_batch", 1)),
        st.tuples(st.just("add_rollout"), st.integers(0, 4)),
        st.tuples(st.sampled_from(["gather_all", "clear", "num_frames", "wrong"]), st.just(0)),
        st.tuples(st.just("get_next"), st.integers(1, 4)),
    ),
    max_size=25,
)


class Model:
    """The buffer and what must be in it."""

    def __init__(self, max_length):
        self.buffer = UniformReplayBuffer(SPEC, BATCH, max_length=max_length, seed=0)
        self.max_length, self.added, self.rows, self.unread = max_length, 0, [], 0

    def block(self, length):
        """The next rows [B, length, ...]; environment b's row i holds 10 i + b."""
        n = 10 * np.arange(self.added, self.added + length) + np.arange(BATCH)[:, None]
        return {"x": np.stack([n, -n], -1).astype(np.float32), "n": (n.astype(np.int64),)}

    def add(self, length, add):
        """Adds rows, or sees them refused without a change."""
        room = self.max_length - self.unread
        if length > room:
            with pytest.raises(ValueError, match="without overwriting it"):
                add()
            return
        add()
        self.rows += range(self.added, self.added + length)
        self.rows = self.rows[max(0, len(self.rows) - self.max_length) :]
        self.added += length
        self.unread += length

    def add_batch(self, _):
        row = tf.nest.map_structure(lambda x: x[:, 0], self.block(1))
        self.add(1, lambda: self.buffer.add_batch(row))

    def add_rollout(self, length):
        block = self.block(length)
        self.add(length, lambda: self.buffer.add_rollout(block))

    def wrong(self, _):
        block = self.block(1)
        for wrong in ({"x": block["x"]}, {**block, "x": block["x"][..., :1]}, {**block, "x": block["n"][0]}):
            with pytest.raises(ValueError, match="items"):
                self.buffer.add_rollout(wrong)

    def clear(self, _):
        self.buffer.clear()
        self.rows, self.unread = [], 0

    def num_frames(self, _):
        assert self.buffer.num_frames() == BATCH * len(self.rows)

    def gather_all(self, _):
        self.unread = 0
        self.check(self.buffer.gather_all(), np.tile(self.rows, (BATCH, 1)))

    def get_next(self, num_steps):
        if num_steps > len(self.rows):
            with pytest.raises(ValueError, match=f"expected at least num_steps={num_steps}"):
                self.buffer.get_next(3, num_steps)
            self.unread = 0
            return
        rows, info = self.buffer.get_next(3, num_steps)
        self.unread = 0
        assert set(info.ids.numpy().ravel()) <= set(self.rows)
        np.testing.assert_array_equal(np.diff(info.ids, axis=1), 1)
        np.testing.assert_array_equal(rows["n"][0] // 10, info.ids)

    @staticmethod
    def check(found, rows):
        n = 10 * rows + np.arange(BATCH)[:, None]
        np.testing.assert_array_equal(found["n"][0], n)
        np.testing.assert_array_equal(found["x"], np.stack([n, -n], -1))


@holds_for(max_length=st.integers(1, 7), calls=CALLS)
def test_gives_back_what_went_in_and_refuses_to_overwrite(max_length, calls):
    model = Model(max_length)
    for name, count in calls:
        getattr(model, name)(count)
    model.gather_all(0)


NUMBERS = st.one_of(st.integers(-3, 3), st.booleans(), st.none(), st.floats(), st.text(max_size=3))


@holds_for(batch_size=NUMBERS, max_length=NUMBERS)
def test_takes_positive_integers_only(batch_size, max_length):
    are_good = [type(n) is int and n > 0 for n in (batch_size, max_length)]
    if all(are_good):
        assert UniformReplayBuffer(SPEC, batch_size, max_length).capacity == batch_size * max_length
        return
    name = "max_length" if are_good[0] else "batch_size"
    with pytest.raises(ValueError, match=f"^{name} is .*, expected a positive int"):
        UniformReplayBuffer(SPEC, batch_size, max_length)


@holds_for(steps=strategies.episodes(shape=(BATCH, 6)), cut=st.integers(0, 6))
def test_rollouts_and_single_rows_are_the_same(steps, cut):
    spec = tuple(tf.TensorSpec([], x.dtype) for x in steps)
    buffer = UniformReplayBuffer(spec, BATCH, max_length=6)
    buffer.add_rollout(tuple(x[:, :cut] for x in steps))
    for t in range(cut, 6):
        buffer.add_batch(tuple(x[:, t] for x in steps))
    for found, expected in zip(buffer.gather_all(), steps, strict=True):
        np.testing.assert_array_equal(found, expected)
