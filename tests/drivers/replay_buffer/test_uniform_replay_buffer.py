import numpy as np
import pytest
import tensorflow as tf
from tf_agents.replay_buffers import replay_buffer, tf_uniform_replay_buffer

from ppo_agent.drivers import UniformReplayBuffer

SPEC = {"a": tf.TensorSpec([2], tf.float32, "a"), "b": (tf.TensorSpec([], tf.int64, "b"), ())}
BATCH = 3


def block(rng, length, batch_size=BATCH):
    return {
        "a": rng.normal(size=[batch_size, length, 2]).astype(np.float32),
        "b": (rng.integers(100, size=[batch_size, length]), ()),
    }


def column(rows, t):
    return tf.nest.map_structure(lambda x: x[:, t], rows)


def concat(*blocks):
    return tf.nest.map_structure(lambda *x: np.concatenate(x, axis=1), *blocks)


def assert_equal(found, expected):
    tf.nest.assert_same_structure(found, expected)
    tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


@pytest.fixture
def buffer():
    return UniformReplayBuffer(SPEC, BATCH, max_length=10, seed=0)


@pytest.fixture
def filled(buffer, rng):
    """A buffer with 7 rows, and these."""
    rows = block(rng, 7)
    buffer.add_rollout(rows)
    return buffer, rows


def test_is_a_replay_buffer_of_tf_agents(buffer):
    assert isinstance(buffer, replay_buffer.ReplayBuffer)
    assert buffer.capacity == 30
    assert buffer.data_spec == SPEC


def test_a_single_block_of_tensors_is_not_copied(buffer, rng):
    tensors = tf.nest.map_structure(tf.constant, block(rng, 6))
    buffer.add_rollout(tensors)
    for found, given in zip(tf.nest.flatten(buffer.gather_all()), tf.nest.flatten(tensors), strict=True):
        assert found is given
    assert_equal(tf.function(buffer.gather_all)(), tensors)
    sample, info = buffer.get_next(sample_batch_size=5)
    assert sample["a"].shape == [5, 2]
    assert set(info.ids.numpy()) <= set(range(6))
    buffer.add_rollout(tensors)  # Two of the rows that were read make room.
    assert_equal(buffer.gather_all(), tf.nest.map_structure(lambda x: np.concatenate([x[:, 2:], x], axis=1), tensors))


def test_gathers_blocks_and_rows_in_order(buffer, rng):
    blocks = [block(rng, length) for length in (3, 1, 2)]
    buffer.add_rollout(blocks[0])
    buffer.add_batch(column(blocks[1], 0))
    buffer.add_rollout(tf.nest.map_structure(tf.constant, blocks[2]))
    assert buffer.num_frames() == 18
    for _ in range(2):
        gathered = buffer.gather_all()
        assert_equal(gathered, concat(*blocks))
        assert all(tf.is_tensor(x) for x in tf.nest.flatten(gathered))
    assert type(gathered) is dict  # No wrapper of TensorFlow's, which would be another structure.
    assert type(gathered["b"]) is tuple


def test_add_batch_copies(buffer, rng):
    rows = block(rng, 1)
    row = column(rows, 0)
    expected = tf.nest.map_structure(np.copy, rows)
    buffer.add_batch(row)
    row["a"][:] = 0
    assert_equal(buffer.gather_all(), expected)


def test_works_in_a_graph(buffer, rng):
    rows = block(rng, 4)

    @tf.function
    def add_and_gather(row):
        buffer.add_batch(row)
        gathered = buffer.gather_all()
        assert gathered["a"].shape.as_list() == [BATCH, None, 2]
        return gathered, buffer.num_frames()

    for t in range(4):
        gathered, frames = add_and_gather(tf.nest.map_structure(tf.constant, column(rows, t)))
        assert_equal(gathered, tf.nest.map_structure(lambda x, t=t: x[:, : t + 1], rows))
        assert frames == BATCH * (t + 1)
    tf.function(buffer.clear)()
    assert buffer.num_frames() == 0
    assert add_and_gather.experimental_get_tracing_count() == 1


def test_clear_empties(filled, rng):
    buffer, _ = filled
    buffer.clear()
    assert buffer.num_frames() == 0
    assert buffer.gather_all()["a"].shape == [BATCH, 0, 2]
    rows = block(rng, 10)
    buffer.add_rollout(rows)
    assert_equal(buffer.gather_all(), rows)


@pytest.mark.parametrize("add", ["rollout", "batch"])
def test_unread_rows_are_not_overwritten(filled, rng, add):
    buffer, rows = filled
    more = block(rng, 3)
    buffer.add_rollout(more)
    method = buffer.add_rollout if add == "rollout" else buffer.add_batch
    row = block(rng, 1) if add == "rollout" else column(block(rng, 1), 0)
    with pytest.raises(ValueError, match=r"max_length is 10 rows.* 10 hold unread .* add 1 more .* gather_all") as info:
        method(row)
    assert "\n" not in str(info.value)
    assert_equal(buffer.gather_all(), concat(rows, more))


def test_an_overflow_in_a_graph_raises_too(filled, rng):
    buffer, _ = filled
    buffer.add_rollout(block(rng, 3))
    with pytest.raises(tf.errors.OpError, match="10 hold unread"):
        tf.function(buffer.add_batch)(tf.nest.map_structure(tf.constant, column(block(rng, 1), 0)))


@pytest.mark.parametrize("data_spec", [None, 3, (), {"a": 2}])
def test_a_spec_must_be_one(data_spec):
    with pytest.raises(TypeError, match=r"data_spec is .*, expected a nest of tf\.TensorSpec"):
        UniformReplayBuffer(data_spec, 2, 10)


def test_a_rollout_longer_than_the_buffer_raises(buffer, rng):
    with pytest.raises(ValueError, match=r"max_length is 10 rows .* add 11 more"):
        buffer.add_rollout(block(rng, 11))


@pytest.mark.parametrize(
    "read",
    [
        lambda buffer: buffer.gather_all(),
        lambda buffer: buffer.get_next(),
        lambda buffer: next(iter(buffer.as_dataset())),
        lambda buffer: next(iter(buffer.as_dataset(single_deterministic_pass=True))),
    ],
)
def test_read_rows_make_room(filled, rng, read):
    buffer, rows = filled
    read(buffer)
    unread = block(rng, 5)
    buffer.add_rollout(unread)  # Drops the two oldest rows.
    with pytest.raises(ValueError, match=r"5 hold unread .* add 6 more"):
        buffer.add_rollout(block(rng, 6))
    more = block(rng, 4)
    buffer.add_rollout(more)
    assert_equal(buffer.gather_all(), concat(tf.nest.map_structure(lambda x: x[:, 6:], rows), unread, more))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: {**x, "a": x["a"][..., :1]}, r"leaf 'a' has shape \(3, 2, 1\) .*expected shape \(3, None, 2\)"),
        (lambda x: {**x, "a": x["a"].astype(np.float64)}, r"leaf 'a' .*dtype float64, expected .*dtype float32"),
        (lambda x: {**x, "b": (x["b"][0][:2], ())}, r"leaf 'b/0' has shape \(2, 2\)"),
        (lambda x: {**x, "a": x["a"][:, :1]}, r"different numbers of time steps"),
        (lambda x: {"a": x["a"], "c": x["b"]}, r"leaves missing \['b/0'\], unexpected \['c/0'\]"),
    ],
)
def test_items_that_do_not_fit_change_nothing(filled, rng, change, text):
    buffer, rows = filled
    with pytest.raises(ValueError, match=text):
        buffer.add_rollout(change(block(rng, 2)))
    if "time steps" not in text:
        with pytest.raises(ValueError, match=r"leaf|leaves"):
            buffer.add_batch(column(change(block(rng, 2)), 0))
        with pytest.raises(ValueError, match=r"leaf|leaves"):
            tf.function(buffer.add_batch)(tf.nest.map_structure(tf.constant, column(change(block(rng, 2)), 0)))
    assert_equal(buffer.gather_all(), rows)


@pytest.mark.parametrize("argument", ["batch_size", "max_length"])
def test_sizes_must_be_positive(argument):
    with pytest.raises(ValueError, match=rf"{argument} is 0, expected a positive int\."):
        UniformReplayBuffer(SPEC, **{"batch_size": 2, "max_length": 2, argument: 0})


@pytest.mark.parametrize(
    ("sizes", "text"), [(("a", 2), "sample_batch_size is 'a'"), ((2, -1), "num_steps is -1"), ((0, None), "size is 0")]
)
def test_samples_must_have_positive_sizes(filled, sizes, text):
    with pytest.raises(ValueError, match=rf"{text}, expected a positive int\."):
        filled[0].get_next(*sizes)


def positions(rows, item):
    """Returns where each row of `item` [..., 2] stands in `rows`, (environment, time) [..., 2]."""
    match = np.all(rows["a"] == np.asarray(item["a"])[..., None, None, :], axis=-1)
    flat = match.reshape(*match.shape[:-2], -1)
    assert (flat.sum(-1) == 1).all()
    return np.stack(np.unravel_index(flat.argmax(-1), match.shape[-2:]), axis=-1)


@pytest.mark.parametrize("batch", [None, 200])
@pytest.mark.parametrize("steps", [None, 3])
def test_samples_are_uniform_windows(filled, batch, steps):
    buffer, rows = filled
    item, info = buffer.get_next(batch, steps)
    outer = [n for n in (batch, steps) if n is not None]
    assert item["a"].shape == [*outer, 2]
    assert info.ids.shape == outer
    found = positions(rows, item)
    np.testing.assert_array_equal(np.asarray(item["b"][0]), rows["b"][0][found[..., 0], found[..., 1]])
    np.testing.assert_array_equal(info.ids, found[..., 1])
    starts = 7 - (steps or 1) + 1
    np.testing.assert_allclose(info.probabilities, np.full([batch] if batch else [], 1 / (3 * starts)), rtol=1e-6)
    if steps:
        np.testing.assert_array_equal(np.diff(found[..., 1]), 1)
        assert (found[..., 0] == found[..., :1, 0]).all()
    if batch:
        first = found[:, 0] if steps else found
        assert len(np.unique(first, axis=0)) == 3 * starts


def test_samples_as_a_tuple_of_steps(filled):
    buffer, rows = filled
    item, info = buffer.get_next(4, 2, time_stacked=False)
    assert len(item) == len(info.ids) == 2
    first, second = positions(rows, item[0]), positions(rows, item[1])
    np.testing.assert_array_equal(second - first, np.tile([0, 1], [4, 1]))


def test_equal_seeds_give_equal_samples(rng):
    rows = block(rng, 7)
    samples = []
    for seed in (1, 1, 2):
        buffer = UniformReplayBuffer(SPEC, BATCH, seed=seed)
        buffer.add_rollout(rows)
        samples.append(buffer.get_next(20)[0])
    assert_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0]["a"], samples[2]["a"])


def test_too_few_rows_to_sample_from(filled, buffer):
    buffer.clear()
    with pytest.raises(ValueError, match="holds 0 rows per environment, expected at least num_steps=1"):
        buffer.get_next()
    with pytest.raises(tf.errors.OpError, match="holds 0 rows"):
        next(iter(buffer.as_dataset()))
    with pytest.raises(tf.errors.OpError, match="empty"):
        next(iter(buffer.as_dataset(single_deterministic_pass=True)))


def test_a_dataset_of_samples(filled):
    buffer, rows = filled
    for item, info in buffer.as_dataset(sample_batch_size=4, num_steps=2).take(3):
        assert item["a"].shape == [4, 2, 2]
        np.testing.assert_array_equal(positions(rows, item)[..., 1], info.ids)


def ordered(buffer_class, rows, batch, steps, shift=None, drop=False):
    """Returns the items of an ordered pass over a buffer that holds `rows`."""
    buffer = buffer_class(SPEC, BATCH, 7, dataset_drop_remainder=drop, dataset_window_shift=shift)
    for t in range(7):
        buffer.add_batch(tf.nest.map_structure(tf.constant, column(rows, t)))
    dataset = buffer.as_dataset(sample_batch_size=batch, num_steps=steps, single_deterministic_pass=True)
    return [item for item, _ in dataset]


@pytest.mark.parametrize(
    ("batch", "steps", "shift", "drop"),
    [
        (None, None, None, False),
        (None, None, 2, False),
        (None, 3, None, False),
        (None, 3, None, True),
        (None, 3, 2, True),
        (2, None, None, False),
        (2, None, None, True),
        (2, 7, None, False),
        (BATCH, 3, None, False),
        (BATCH, 3, 1, False),
    ],
)
def test_an_ordered_dataset_is_that_of_tf_agents(rng, batch, steps, shift, drop):
    rows = block(rng, 7)
    found = ordered(UniformReplayBuffer, rows, batch, steps, shift, drop)
    expected = ordered(tf_uniform_replay_buffer.TFUniformReplayBuffer, rows, batch, steps, shift, drop)
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, ours, theirs)


def test_windows_stay_within_their_group(rng):
    """Those of TF-Agents do not: it fails here."""
    rows = block(rng, 7)
    found = ordered(UniformReplayBuffer, rows, batch=2, steps=3)
    expected = [(0, 0), (0, 3), (2, 0), (2, 3)]
    assert len(found) == len(expected)
    for item, (group, start) in zip(found, expected, strict=True):
        assert_equal(item, tf.nest.map_structure(lambda x, g=group, t=start: x[g : g + 2, t : t + 3], rows))


def test_a_dataset_reads_anew_in_each_iteration(buffer, rng):
    dataset = buffer.as_dataset(single_deterministic_pass=True, sample_batch_size=BATCH, num_steps=2)
    for _ in range(3):
        rows = block(rng, 2)
        buffer.add_rollout(rows)
        ((item, _),) = list(dataset)
        assert_equal(item, rows)
        buffer.clear()
