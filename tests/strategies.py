"""What the property-based tests draw: episodes, masks, spaces, experience that is wrong in one place.

Hypothesis draws structure, which it can shrink; plain numbers come from a generator with a drawn seed.
"""

import collections
import functools

import gymnasium as gym
import helpers
import hypothesis
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

FIRST, MID, LAST = helpers.FIRST, helpers.MID, helpers.LAST

# Cases tried, by the name of the property.
CASES: collections.Counter[str] = collections.Counter()


def holds_for(*examples, share=1.0, **arguments):
    """`hypothesis.given` that counts the cases.

    Args:
        *examples: dicts of arguments that are tried first, always.
        share: of the profile's number of cases, for what takes long.
        **arguments: strategies by the names of the test's arguments.
    """
    count = max(1, round(share * hypothesis.settings.default.max_examples))

    def decorate(function):
        @functools.wraps(function)
        def counted(*args, **kwargs):
            CASES[f"{function.__module__}.{function.__qualname__}"] += 1
            return function(*args, **kwargs)

        for example in examples:
            counted = hypothesis.example(**example)(counted)
        return hypothesis.settings(max_examples=count)(hypothesis.given(**arguments)(counted))

    return decorate


def refusal(function, *args, **kwargs):
    """The text of the ValueError or TypeError that a call raises; None if it raises nothing."""
    try:
        function(*args, **kwargs)
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def generators():
    """NumPy generators."""
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


def shapes():
    """[B, T]; few, because tensors of each new shape build new kernels."""
    return st.sampled_from([(1, 1), (1, 2), (2, 5), (3, 8), (1, 17)])


def fractions():
    """Numbers between 0 and 1, the limits among them."""
    return st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0, width=32, allow_subnormal=False))


def coefficients(most=10.0):
    """Numbers of at least 0, 0 (which means off) among them."""
    return st.one_of(st.just(0.0), st.floats(2**-10, most, width=32))


@st.composite
def episodes(draw, shape=None, ends=(0, 0, 0, 1, 2)):
    """Step types, next step types and discounts [B, T] as an environment gives them, in any pattern of episodes.

    Args:
        draw: hypothesis'.
        shape: [B, T]; None draws it.
        ends: what happens in a step: 0 the episode goes on, 1 it terminates, 2 it is truncated.
    """
    shape = draw(shapes()) if shape is None else shape
    events = draw(hnp.arrays(np.int8, shape, elements=st.sampled_from(ends), fill=st.nothing()))
    states = draw(hnp.arrays(np.int8, shape[0], elements=st.sampled_from([FIRST, MID, LAST]), fill=st.nothing()))
    step_type, next_step_type = np.zeros((2, *shape), np.int32)
    discount = np.ones(shape, np.float32)
    for b, t in np.ndindex(shape):
        state = step_type[b, t] = states[b] if t == 0 else next_step_type[b, t - 1]
        event = 0 if state == LAST else events[b, t]
        next_step_type[b, t] = FIRST if state == LAST else LAST if event else MID
        discount[b, t] = event != 1
    return step_type, next_step_type, discount


def masks(shape):
    """Bool arrays, all False and all True among them."""
    return hnp.arrays(bool, shape, elements=st.booleans(), fill=st.booleans())


def floats_like(rng, shape, scale=1.0):
    """Float32 numbers, a tenth of them large."""
    values = rng.normal(0.0, scale, shape) * np.where(rng.random(shape) < 0.1, 30.0, 1.0)
    return values.astype(np.float32)


def spoilt(values, mask, rng):
    """A copy with NaN, infinity and other garbage where the mask is False."""
    result = np.array(values)
    garbage = np.array([np.nan, np.inf, -np.inf, 1e30, -7.0], np.float32)
    result[~mask] = garbage[rng.integers(0, len(garbage), result[~mask].shape)]
    return result


_FLOATS = st.sampled_from([np.float32, np.float64])
_SMALL_SHAPES = st.sampled_from([(), (1,), (3,), (2, 2)])


@st.composite
def _boxes(draw):
    shape, bounds = draw(_SMALL_SHAPES), draw(st.sampled_from(["none", "both", "low", "mixed", "point"]))
    low, high = np.full(shape, -np.inf), np.full(shape, np.inf)
    rng = draw(generators())
    if bounds != "none":
        low = np.asarray(rng.integers(-5, 5, shape), float)
    if bounds in ("both", "mixed"):
        high = np.asarray(low + rng.integers(1, 9, shape))
    if bounds == "mixed" and high.size:
        high = np.where(rng.random(shape) < 0.5, np.inf, high)
    if bounds == "point":
        high = low
    dtype = draw(_FLOATS)
    return gym.spaces.Box(low.astype(dtype), high.astype(dtype), shape, dtype)


@st.composite
def _integer_boxes(draw, most=2**64):
    dtype = draw(st.sampled_from([np.uint8, np.int8, np.int16, np.int32, np.int64]))
    info = np.iinfo(dtype)
    low, high = sorted(draw(st.lists(st.integers(int(info.min), int(info.max)), min_size=2, max_size=2)))
    return gym.spaces.Box(low, min(high, low + most), draw(_SMALL_SHAPES), dtype)


def discrete_spaces():
    return st.one_of(
        st.builds(gym.spaces.Discrete, st.integers(1, 9), start=st.integers(-5, 5)),
        st.lists(st.integers(1, 6), min_size=1, max_size=3).map(gym.spaces.MultiDiscrete),
        st.just(gym.spaces.MultiDiscrete(np.array([[2, 3], [4, 1]]))),
        st.integers(1, 3).map(lambda n: gym.spaces.MultiDiscrete([n + 1, 3], start=[-n, n])),
        st.sampled_from([1, 3, (2, 2)]).map(gym.spaces.MultiBinary),
    )


def leaf_spaces():
    return st.one_of(_boxes(), _integer_boxes(), discrete_spaces())


def nested(leaves, max_leaves=5):
    """Spaces made of leaf spaces, Dicts and Tuples."""
    keys = st.sampled_from(["a", "b", "c d", "observation", "x/y"])
    return st.recursive(
        leaves,
        lambda children: st.one_of(
            st.dictionaries(keys, children, min_size=1, max_size=3).map(gym.spaces.Dict),
            st.lists(children, min_size=1, max_size=3).map(gym.spaces.Tuple),
        ),
        max_leaves=max_leaves,
    )


def spaces():
    """Any space of observations that has a tensor form."""
    return nested(leaf_spaces())


def action_spaces():
    """Any space of actions that has a tensor form: each whole number is a category, so there are not too many."""
    return nested(st.one_of(_boxes(), _integer_boxes(most=1000), discrete_spaces()))


def unsupported_spaces():
    return st.sampled_from(
        [
            gym.spaces.Text(4),
            gym.spaces.Sequence(gym.spaces.Discrete(2)),
            gym.spaces.Graph(gym.spaces.Discrete(2), None),
            gym.spaces.OneOf([gym.spaces.Discrete(2), gym.spaces.Discrete(3)]),
        ]
    )
