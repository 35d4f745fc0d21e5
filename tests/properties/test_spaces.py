"""Any gymnasium space makes specs whose values survive the way to the agent and back, or one clear error."""

import gymnasium as gym
import numpy as np
import pytest
import strategies
import tensorflow as tf
from hypothesis import strategies as st
from strategies import generators, holds_for
from tf_agents.specs import tensor_spec

from ppo_agent.drivers.environments import spaces
from ppo_agent.drivers.faults.leaf_checks import InvalidLeafError


def batched(space, seed, count=3):
    """A batch of samples [count, ...] as gymnasium's vector environments hand it over."""
    space.seed(int(seed.integers(2**31)))
    samples = [space.sample() for _ in range(count)]
    return gym.vector.utils.concatenate(space, samples, gym.vector.utils.create_empty_array(space, n=count))


def one(batch, index):
    return tf.nest.map_structure(lambda x: x[index], batch)


def random_actions(spec, rng, count=3):
    """Values of a spec, float ones beyond its bounds too, as policies give them."""

    def leaf(s):
        low, high = (np.broadcast_to(bound, s.shape) for bound in (s.minimum, s.maximum))
        if s.dtype.is_floating:
            return rng.normal(0, 10, (count, *s.shape)).astype(np.float32)
        return rng.integers(low, high, (count, *s.shape), dtype=s.dtype.as_numpy_dtype, endpoint=True)

    return tf.nest.map_structure(leaf, spec)


@holds_for(space=strategies.spaces(), rng=generators())
def test_observations_fit_their_spec(space, rng):
    spec, decode = spaces.observation_spec(space), spaces.observation_decoder(space, 3)
    observation = batched(space, rng)
    decoded = decode(observation)
    tf.nest.assert_same_structure(spec, decoded)
    for leaf, value in zip(tf.nest.flatten(spec), tf.nest.flatten(decoded), strict=True):
        assert (value.shape, value.dtype) == ((3, *leaf.shape), leaf.dtype.as_numpy_dtype)
        assert (value >= leaf.minimum).all()
        assert (value <= leaf.maximum).all()
        tf.convert_to_tensor(value)
    for x, y in zip(tf.nest.flatten(decoded), tf.nest.flatten(decode(observation)), strict=True):
        np.testing.assert_array_equal(x, y)
        assert not np.shares_memory(x, y) or not x.size


@holds_for(space=strategies.action_spaces(), rng=generators())
def test_actions_end_up_in_the_space(space, rng):
    spec, encode = spaces.action_spec(space), spaces.action_encoder(space)
    for leaf in tf.nest.flatten(spec):
        if leaf.dtype.is_integer and not isinstance(space, gym.spaces.Box):
            assert tensor_spec.is_discrete(leaf)
    actions = random_actions(spec, rng)
    encoded = encode(actions)
    for single in gym.vector.utils.iterate(gym.vector.utils.batch_space(space, 3), encoded):
        assert space.contains(tf.nest.map_structure(np.asarray, single)), (single, space)


@holds_for(space=strategies.nested(strategies.discrete_spaces()), rng=generators())
def test_discrete_actions_count_from_0_and_none_is_lost(space, rng):
    spec, encode = spaces.action_spec(space), spaces.action_encoder(space)
    lowest, highest = (
        tf.nest.map_structure(
            lambda s, name=name: np.broadcast_to(getattr(s, name), (3, *s.shape)).astype(s.dtype.as_numpy_dtype), spec
        )
        for name in ("minimum", "maximum")
    )
    for leaf in tf.nest.flatten(lowest):
        np.testing.assert_array_equal(leaf, 0)
    bounds = [
        spaces._bounds(leaf, "action")[:2]
        for leaf in tf.nest.flatten(tf.nest.map_structure(lambda x: x, leaves(space)))
    ]
    for (low, high), first, last in zip(
        bounds, tf.nest.flatten(encode(lowest)), tf.nest.flatten(encode(highest)), strict=True
    ):
        np.testing.assert_array_equal(first, np.broadcast_to(low, first.shape))
        np.testing.assert_array_equal(last, np.broadcast_to(high, last.shape))


def leaves(space):
    """The leaf spaces in the nesting of the specs."""
    if isinstance(space, gym.spaces.Dict):
        return {key: leaves(child) for key, child in space.spaces.items()}
    return tuple(leaves(child) for child in space.spaces) if isinstance(space, gym.spaces.Tuple) else space


@holds_for(
    good=strategies.action_spaces(),
    bad=strategies.unsupported_spaces(),
    deep=st.booleans(),
    what=st.sampled_from(["a", "b"]),
)
def test_other_spaces_are_refused_with_their_place(good, bad, deep, what):
    space = gym.spaces.Dict({"good": good, what: gym.spaces.Tuple([good, bad]) if deep else bad})
    place = f"{what}/1" if deep else what
    for make, name in ((spaces.observation_spec, "observation"), (spaces.action_spec, "action")):
        with pytest.raises(ValueError, match=rf"the environment's {name}/{place} space is .*, expected Box"):
            make(space)
    for make in (lambda space: spaces.observation_decoder(space, 3), spaces.action_encoder):
        with pytest.raises(ValueError, match=r"expected Box, Discrete"):
            make(space)


WHOLE = (np.int8, np.uint8, np.int16, np.int32, np.int64)


@holds_for(
    space_dtype=st.sampled_from(WHOLE), dtype=st.sampled_from([*WHOLE, np.uint64, np.float32]),
    value=st.integers(-(2**63), 2**64 - 1), inside=st.booleans(), place=st.integers(0, 5), nested=st.booleans(),
)  # fmt: skip
def test_a_whole_number_arrives_as_it_is_or_is_an_error(space_dtype, dtype, value, inside, place, nested):
    """Nothing is cast to another number: 200 to an int8 of -56."""
    limits = np.iinfo(space_dtype)
    leaf = gym.spaces.Box(limits.min, limits.max, (3,), space_dtype)
    decode = spaces.observation_decoder(gym.spaces.Dict({"a": leaf}) if nested else leaf, 2)
    if inside:
        value = limits.min + value % (int(limits.max) - int(limits.min) + 1)
    if dtype != np.float32 and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        return
    batch = np.zeros((2, 3), dtype)
    batch.flat[place] = value
    given = int(batch.flat[place])
    try:
        found = decode({"a": batch} if nested else batch)
    except InvalidLeafError as error:
        # An array of another kind is refused whatever it holds.
        of_the_kind = np.can_cast(dtype, space_dtype, "same_kind")
        assert not (of_the_kind and limits.min <= given <= limits.max), error  # noqa: PT017
    else:
        found = found["a"] if nested else found
        assert found.dtype == space_dtype
        assert found.ravel().tolist() == [int(x) for x in batch.ravel()]
