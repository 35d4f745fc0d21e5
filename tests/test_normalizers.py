"""The streaming normaliser against the mean and variance of all rows seen so far."""

import numpy as np
import oracles
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.utils import tensor_normalizer

from ppo_agent import normalizers
from ppo_agent.networks.inputs import network_input_spec
from ppo_agent.normalizers import StreamingNormalizer, make_observation_normalizer


def test_normalizes_by_all_rows_seen(rng):
    normalizer, oracle = StreamingNormalizer(tf.TensorSpec([3], tf.float32)), oracles.Normalizer((3,))
    for size in (1, 4, 30):
        rows = rng.normal([0.0, 5.0, -2.0], [1.0, 0.1, 4.0], (size, 3)).astype(np.float32)
        normalizer.update(tf.constant(rows))
        oracle.update(rows)
        probe = rng.normal(0, 10, (2, 5, 3)).astype(np.float32)
        np.testing.assert_allclose(normalizer.normalize(probe), oracle.normalize(probe), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clip", [0.0, 1.0, 10.0])
def test_rewards_are_clipped_and_not_centred(rng, clip):
    normalizer, oracle = StreamingNormalizer(tf.TensorSpec([], tf.float32)), oracles.Normalizer()
    rewards = rng.normal(3.0, 0.5, (4, 6)).astype(np.float32)
    normalizer.update(rewards)
    oracle.update(rewards.ravel())
    actual = normalizer.normalize(rewards, clip_value=clip, center_mean=False)
    np.testing.assert_allclose(actual, oracle.normalize(rewards, clip, center=False), rtol=1e-4)


def test_first_count_clip_and_epsilon_are_the_references(rng):
    spec, rows = tf.TensorSpec([2], tf.float32), rng.normal(2, 3, (3, 4, 2)).astype(np.float32)
    ours, reference = StreamingNormalizer(spec), tensor_normalizer.StreamingTensorNormalizer(spec)
    for _ in range(3):
        np.testing.assert_allclose(ours.normalize(rows), reference.normalize(rows), rtol=1e-6, atol=1e-6)
        ours.update(rows)
        reference.update(rows, outer_dims=[0, 1])
        *mine, avg_carry = ours.variables
        for variable, theirs in zip(mine, reference.variables, strict=True):
            np.testing.assert_allclose(variable, theirs, rtol=1e-5, atol=1e-4)
        assert np.abs(avg_carry).max() < 1e-6


def updated(dtype, *batches):
    normalizer = StreamingNormalizer(tf.TensorSpec(np.shape(batches[0])[1:], dtype))
    for rows in batches:
        normalizer.update(tf.constant(rows, dtype))
    return normalizer


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_entries_that_are_not_finite_are_left_out(rng, hole):
    spec = {"a": tf.TensorSpec([2], tf.float32), "b": tf.TensorSpec([], tf.float32)}
    normalizer, (first, second, third) = StreamingNormalizer(spec), [oracles.Normalizer() for _ in range(3)]
    for size in (1, 20):
        rows = {"a": rng.normal(size=(size, 2)).astype(np.float32), "b": rng.normal(size=size).astype(np.float32)}
        rows["a"][0, 1] = hole
        normalizer.update(rows)
        first.update(rows["a"][:, 0])
        second.update(rows["a"][1:, 1])  # Component by component.
        third.update(rows["b"])
    probe = {"a": np.ones((3, 2), np.float32), "b": np.ones(3, np.float32)}
    normalized = normalizer.normalize(probe)
    np.testing.assert_allclose(normalized["a"][:, 0], first.normalize(probe["a"][:, 0]), rtol=1e-4)
    np.testing.assert_allclose(normalized["a"][:, 1], second.normalize(probe["a"][:, 1]), rtol=1e-4)
    np.testing.assert_allclose(normalized["b"], third.normalize(probe["b"]), rtol=1e-4)


def test_an_update_whose_sums_overflow_is_left_out(rng):
    normalizer = StreamingNormalizer(tf.TensorSpec([], tf.float32))
    normalizer.update(rng.normal(size=10).astype(np.float32))
    before = [v.numpy() for v in normalizer.variables]
    normalizer.update(np.full(10, 3e38, np.float32) * np.resize([1, -1], 10).astype(np.float32))
    np.testing.assert_array_equal([v.numpy() for v in normalizer.variables], before)


@pytest.mark.parametrize("huge", [1e20, -3.4e38, np.inf, np.nan])
def test_a_component_that_overflows_spoils_no_other(rng, huge):
    normalizer = StreamingNormalizer(tf.TensorSpec([2], tf.float32))
    for _ in range(3):
        rows = rng.normal([0, 500], [1, 10], (200, 2)).astype(np.float32)
        rows[rng.random(200) < 0.1, 0] = huge
        normalizer.update(rows)
    found = normalizer.normalize(rng.normal([0, 500], [1, 10], (2000, 2)).astype(np.float32)).numpy()
    assert np.abs(found[:, 1].mean()) < 0.2
    assert found[:, 1].std() == pytest.approx(1, abs=0.1)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("constant", [12345.678, 1e8, -10000.1, 3e18, 1e-6, 16777217.0])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_a_constant_becomes_0(constant, dtype):
    normalizer = updated(dtype, np.full([3], constant), np.full([1000], constant), np.full([1], constant))
    for normalize in (normalizer.normalize, *(tf.function(normalizer.normalize, jit_compile=jit) for jit in (0, 1))):
        np.testing.assert_array_equal(normalize(tf.constant([constant], dtype)), [0])


@pytest.mark.parametrize(
    ("dtype", "offset"),
    [(tf.int64, 1_700_000_000), (tf.int64, -1_700_000_000_000), (tf.int32, 2**31 - 100), (tf.float64, 1.7e9),
     (tf.float32, 2.0**23), (tf.int64, 1_700_000_000_000_000), (tf.uint32, 2**32 - 100),
     (tf.int64, 1_700_000_000_123_456_789), (tf.int64, -(2**61) - 3), (tf.uint64, 1_700_000_000_123_456_789),
     (tf.uint64, 2**63 - 50), (tf.uint64, 2**64 - 100), (tf.int64, 2**63 - 100), (tf.int64, -(2**63))],
)  # fmt: skip
def test_time_stamps_far_from_zero_keep_their_distances(dtype, offset):
    stamps = np.array([offset + i for i in range(100)], dtype.as_numpy_dtype)
    normalizer = updated(dtype, stamps[:1], stamps[1:40], stamps[40:])
    expected = (np.arange(100) - 49.5) / np.sqrt(np.arange(100).var() + 1e-3)
    for normalize in (normalizer.normalize, *(tf.function(normalizer.normalize, jit_compile=jit) for jit in (0, 1))):
        np.testing.assert_allclose(normalize(tf.constant(stamps, dtype)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [tf.int64, tf.uint64])
def test_the_whole_range_of_long_integers(dtype):
    """Where the difference of two is beyond the range itself."""
    rows = np.array([dtype.max, dtype.min, dtype.max // 3, dtype.max // 5], dtype.as_numpy_dtype)
    normalizer = updated(dtype, rows[:1], rows[1:])
    exact = rows.astype(np.float64)
    expected = (exact - exact.mean()) / exact.std()
    for normalize in (normalizer.normalize, *(tf.function(normalizer.normalize, jit_compile=jit) for jit in (0, 1))):
        np.testing.assert_allclose(normalize(tf.constant(rows, dtype)), expected, rtol=1e-4, atol=1e-4)


def test_many_small_updates_far_from_zero_equal_one_large_one(rng):
    rows = (1e6 + rng.normal(0, 1, (600, 2))).astype(np.float32)
    normalizer = updated(tf.float32, *np.split(rows, 60))
    exact = rows.astype(np.float64)
    expected = (exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + 1e-3)
    np.testing.assert_allclose(normalizer.normalize(rows), expected, rtol=1e-4, atol=1e-4)


def test_a_reset_forgets_everything(rng):
    normalizer = updated(tf.float32, rng.normal(1e5, 1, (9, 2)))
    normalizer.reset()
    fresh = StreamingNormalizer(tf.TensorSpec([2], tf.float32))
    for found, expected in zip(normalizer.variables, fresh.variables, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_nests_and_any_number_of_batch_dimensions(rng):
    spec = {"a": tf.TensorSpec([2], tf.float32), "b": (tf.TensorSpec([], tf.float32),)}
    flat, stacked = StreamingNormalizer(spec), StreamingNormalizer(spec)
    rows = {"a": rng.normal(size=(12, 2)).astype(np.float32), "b": (rng.normal(size=12).astype(np.float32),)}
    flat.update(rows)
    stacked.update({"a": rows["a"].reshape(3, 4, 2), "b": (rows["b"][0].reshape(3, 4),)})
    for one, other in zip(tf.nest.flatten(flat.variables), tf.nest.flatten(stacked.variables), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    normalized = flat.normalize(rows)
    np.testing.assert_allclose(normalized["b"][0].numpy().std(), 1, atol=0.01)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int32, tf.int64])
def test_integers_become_float32(rng, dtype):
    spec = tensor_spec.BoundedTensorSpec([2], dtype, 0, 200)
    normalizer, oracle = StreamingNormalizer(spec), oracles.Normalizer((2,))
    rows = rng.integers(0, 200, (20, 2))
    normalizer.update(tf.constant(rows, dtype))
    oracle.update(rows)
    actual = normalizer.normalize(tf.constant(rows, dtype))
    assert actual.dtype == tf.float32
    np.testing.assert_allclose(actual, oracle.normalize(rows), rtol=1e-4, atol=1e-5)


def test_no_rows_change_nothing(rng):
    normalizer = StreamingNormalizer(tf.TensorSpec([2], tf.float32))
    normalizer.update(rng.normal(size=(5, 2)).astype(np.float32))
    before = [v.numpy() for v in tf.nest.flatten(normalizer.variables)]
    normalizer.update(tf.zeros([0, 2]))
    for old, new in zip(before, tf.nest.flatten(normalizer.variables), strict=True):
        np.testing.assert_array_equal(old, new)


def test_updates_within_a_function(rng):
    normalizer, oracle = StreamingNormalizer(tf.TensorSpec([], tf.float32)), oracles.Normalizer()

    @tf.function
    def update(rows):
        normalizer.update(rows)

    for _ in range(3):
        rows = rng.normal(5, 2, 7).astype(np.float32)
        update(tf.constant(rows))
        oracle.update(rows)
    probe = tf.constant([5.0, 6.0])
    np.testing.assert_allclose(normalizer.normalize(probe), oracle.normalize(probe), rtol=1e-4, atol=1e-5)


MIXED = {
    "image": tensor_spec.BoundedTensorSpec([4, 4, 3], tf.uint8, 0, 255),
    "category": tensor_spec.BoundedTensorSpec([], tf.int64, 0, 5),
    "count": tf.TensorSpec([2], tf.int64),
    "number": (tf.TensorSpec([3], tf.float32),),
}


def mixed_rows(rng, *outer):
    return {
        "image": tf.constant(rng.integers(0, 256, (*outer, 4, 4, 3)), tf.uint8),
        "category": tf.constant(rng.integers(0, 6, outer), tf.int64),
        "count": tf.constant(rng.integers(0, 1000, (*outer, 2)), tf.int64),
        "number": (tf.constant(rng.normal(3, 2, (*outer, 3)), tf.float32),),
    }


def test_observations_are_normalized_leaf_by_leaf(rng):
    normalizer = make_observation_normalizer(MIXED, network_input_spec(MIXED))
    assert dict(zip(sorted(MIXED), normalizer.normalizes, strict=True)) == {
        "category": False, "count": True, "image": False, "number": True
    }  # fmt: skip
    oracle = {"count": oracles.Normalizer((2,)), "number": oracles.Normalizer((3,))}
    for _ in range(2):
        rows = mixed_rows(rng, 6, 5)
        normalizer.update(rows)
        oracle["count"].update(rows["count"].numpy().reshape(-1, 2).astype(np.float32))
        oracle["number"].update(rows["number"][0].numpy().reshape(-1, 3))
    probe = mixed_rows(rng, 7)
    actual = normalizer.normalize(probe)
    for name in ("image", "category"):
        assert actual[name] is probe[name]
    np.testing.assert_allclose(
        actual["count"], oracle["count"].normalize(probe["count"].numpy().astype(np.float32)), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        actual["number"][0], oracle["number"].normalize(probe["number"][0].numpy()), rtol=1e-4, atol=1e-4
    )
    spec = normalizer.output_spec()
    tf.nest.map_structure(lambda s, t: s.shape.assert_is_compatible_with(t.shape[1:]), spec, actual)
    assert [s.dtype for s in tf.nest.flatten(spec)] == [t.dtype for t in tf.nest.flatten(actual)]


def test_masks_are_not_normalized():
    number = tf.TensorSpec([3], tf.float32)  # One object at two places.
    masked = {"observation": number, "action_mask": number}
    assert make_observation_normalizer(masked).normalizes == (False, True)
    splitter = lambda observation: (observation[0], observation[1])  # noqa: E731
    assert make_observation_normalizer((number, number), None, splitter).normalizes == (True, False)
    assert make_observation_normalizer((number, number)).normalizes == (True, True)


def test_without_numbers_there_is_nothing_to_normalize():
    assert make_observation_normalizer(MIXED["image"], network_input_spec(MIXED["image"])) is None


def test_networks_that_take_floats_get_floats():
    as_floats = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, tf.float32), MIXED)
    assert all(make_observation_normalizer(MIXED, as_floats).normalizes)
    assert all(make_observation_normalizer(MIXED).normalizes)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1.7e9])
def test_statistics_of_parts_are_those_of_the_whole(rng, offset):
    """Parallel variance, with parts of unequal size, empty ones and entries that are not finite among them."""
    parts = [rng.normal(offset, 3.0, (size, 2)) for size in (5, 0, 1, 40)]
    parts[3][7, 1] = np.nan
    parts.append(np.full((3, 2), [np.nan, offset + 2.0]))
    found = [normalizers.statistics_of(tf.constant(part)) for part in parts]
    together = normalizers.pooled(normalizers.Statistics(*map(tf.stack, zip(*found, strict=True))))
    whole = np.concatenate(parts)
    np.testing.assert_array_equal(together.count, np.isfinite(whole).sum(axis=0))
    np.testing.assert_allclose(
        (together.mean + together.mean_carry) - offset, np.nanmean(whole - offset, axis=0), atol=1e-6
    )
    np.testing.assert_allclose(
        together.m2 - together.m2_carry, np.nanvar(whole - offset, axis=0) * together.count, rtol=1e-6
    )


def test_statistics_of_parts_without_an_entry_leave_all_as_it_was(rng):
    empty = normalizers.statistics_of(tf.zeros([0, 2], tf.float64))
    together = normalizers.pooled(normalizers.Statistics(*(tf.stack([x, x]) for x in empty)))
    np.testing.assert_array_equal(together.count, [0.0, 0.0])
    normalizer = StreamingNormalizer(tf.TensorSpec([2], tf.float32))
    normalizer.update(tf.constant(rng.normal(size=(4, 2)), tf.float32))
    before = [v.numpy() for v in tf.nest.flatten(normalizer.variables)]
    normalizer.update(tf.zeros([0, 2]))
    for value, variable in zip(before, tf.nest.flatten(normalizer.variables), strict=True):
        np.testing.assert_array_equal(value, variable)
