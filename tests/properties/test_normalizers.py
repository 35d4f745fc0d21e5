"""Running statistics do not depend on how the rows arrive."""

import numpy as np
import oracles
import strategies
import tensorflow as tf
from hypothesis import strategies as st
from strategies import generators, holds_for

from ppo_agent.normalizers import StreamingNormalizer

SPEC = {"a": tf.TensorSpec([3], tf.float32), "b": (tf.TensorSpec([], tf.int32),)}


def updated(chunks):
    normalizer = StreamingNormalizer(SPEC)
    for rows in chunks:
        normalizer.update(rows)
    return normalizer


def random_rows(rng, count):
    scale = 10.0 ** rng.uniform(-2, 2)
    a = rng.normal(rng.uniform(-3, 3) * scale, scale, (count, 3)).astype(np.float32)
    return {"a": a, "b": (rng.integers(-50, 50, count).astype(np.int32),)}


@holds_for(rng=generators(), sizes=st.lists(st.sampled_from([0, 1, 2, 7]), min_size=1, max_size=5))
def test_equal_the_moments_of_all_rows_in_any_order_and_any_chunks(rng, sizes):
    count = sum(sizes)
    rows = random_rows(rng, count)
    order = rng.permutation(count)
    cuts = np.cumsum(sizes)[:-1]
    shuffled = tf.nest.map_structure(lambda x: np.split(x[order], cuts), rows)
    parts = zip(shuffled["a"], shuffled["b"][0], strict=True)
    normalizer = updated([{"a": a, "b": (b,)} for a, b in parts])
    probe = random_rows(rng, 4)
    found = normalizer.normalize(probe)
    assert found["b"][0].dtype == tf.float32
    for x, leaf, seen in ((found["a"], probe["a"], rows["a"]), (found["b"][0], probe["b"][0], rows["b"][0])):
        oracle = oracles.Normalizer(np.shape(seen)[1:])
        oracle.update(seen)
        np.testing.assert_allclose(x, oracle.normalize(leaf), rtol=2e-2, atol=2e-2)
        assert np.abs(x).max() <= 5


@holds_for(rng=generators(), count=st.sampled_from([1, 2, 7]))
def test_an_update_without_rows_changes_nothing(rng, count):
    normalizer = updated([random_rows(rng, count)])
    before = [variable.numpy() for variable in tf.nest.flatten(normalizer.variables)]
    normalizer.update(random_rows(rng, 0))
    for x, y in zip(tf.nest.flatten(normalizer.variables), before, strict=True):
        np.testing.assert_array_equal(x, y)


@holds_for(rng=generators(), clip=strategies.coefficients(), center=st.booleans())
def test_bounded_by_the_clip_value_and_in_order(rng, clip, center):
    normalizer = updated([random_rows(rng, 7)])
    probe = random_rows(rng, 7)
    found = normalizer.normalize(probe, clip_value=clip, center_mean=center)
    for x, y in zip(tf.nest.flatten(found), tf.nest.flatten(probe), strict=True):
        if clip:
            assert np.abs(x).max() <= np.float32(clip)
        ascending = np.argsort(y, axis=0)
        assert (np.diff(np.take_along_axis(x.numpy(), ascending, axis=0), axis=0) >= 0).all()
