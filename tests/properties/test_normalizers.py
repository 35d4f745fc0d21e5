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


DTYPES = (tf.float32, tf.float64, tf.int32, tf.int64)
OFFSETS = st.floats(-6, 8).flatmap(lambda e: st.sampled_from([10.0**e, -(10.0**e)]))
NORMALIZERS = {dtype: StreamingNormalizer(tf.TensorSpec([2], dtype)) for dtype in DTYPES}
COMPILED = {dtype: tf.function(NORMALIZERS[dtype].normalize, jit_compile=True) for dtype in DTYPES}


@holds_for(rng=generators(), dtype=st.sampled_from(DTYPES), offset=OFFSETS, ratio=st.floats(-6, 1))
def test_numbers_far_from_zero_keep_their_distances(rng, dtype, offset, ratio):
    rows = (offset * (1 + 10.0**ratio * rng.normal(size=(40, 2)))).astype(dtype.as_numpy_dtype)
    normalizer = NORMALIZERS[dtype]
    normalizer.reset()
    for part in np.split(rows, [1, 3, 20]):
        normalizer.update(tf.constant(part))
    exact = rows.astype(np.float64)
    expected = np.clip((exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + 1e-3), -5, 5)
    for normalize in (normalizer.normalize, COMPILED[dtype]):
        np.testing.assert_allclose(normalize(tf.constant(rows)), expected, rtol=1e-3, atol=1e-4)


@holds_for(
    rng=generators(),
    dtype=st.sampled_from(DTYPES),
    offset=OFFSETS,
    sizes=st.lists(st.integers(1, 100), min_size=1, max_size=4),
)
def test_a_constant_becomes_0_however_large(rng, dtype, offset, sizes):
    constant = np.array(offset).astype(dtype.as_numpy_dtype)
    normalizer = StreamingNormalizer(tf.TensorSpec([], dtype))
    for size in sizes:
        normalizer.update(tf.fill([size], constant))
    np.testing.assert_array_equal(normalizer.normalize(tf.constant([constant])), [0])


@holds_for(
    rng=generators(), bad=st.sampled_from([1e20, -3.4e38, np.inf, -np.inf, np.nan]), spoilt_share=st.floats(0.05, 1)
)
def test_no_component_spoils_another(rng, bad, spoilt_share):
    rows = rng.normal([0, 500, -3], [1, 10, 0.1], (60, 3)).astype(np.float32)
    spoilt = rows.copy()
    spoilt[rng.random(60) < spoilt_share, 0] = bad
    normalizer = StreamingNormalizer(tf.TensorSpec([3], tf.float32))
    for part in np.split(spoilt, 3):
        normalizer.update(part)
    oracle = oracles.Normalizer((2,))
    oracle.update(rows[:, 1:].astype(np.float64))
    np.testing.assert_allclose(normalizer.normalize(rows)[:, 1:], oracle.normalize(rows[:, 1:]), rtol=1e-3, atol=1e-3)
