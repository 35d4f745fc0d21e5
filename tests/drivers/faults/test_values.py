"""What environments return of a wrong kind, in this process, in others, and in vector environments of one's own."""

import functools
import sys
from fractions import Fraction

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ppo_agent.drivers import EnvironmentFaultError, GymnasiumEnvironment, TFCartPole


class Returns(gym.Env):
    """Returns what it is given in every step, and zeros of the space in a reset; each third step ends an episode."""

    action_space = spaces.Discrete(3)

    def __init__(self, space, value=None, reward=1.0, terminated=False, truncated=False):
        self.observation_space, self.value = space, value
        self.reward, self.flags, self.count = reward, (terminated, truncated), 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.start(self.observation_space), {}

    def start(self, space):
        if isinstance(space, spaces.Dict):
            return {key: self.start(child) for key, child in space.spaces.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(self.start(child) for child in space.spaces)
        return np.zeros(space.shape, space.dtype)

    def step(self, action):
        self.count += 1
        observation = self.start(self.observation_space) if self.value is None else self.value
        return observation, self.reward, *self.flags, {}


class VectorReturns(VectorEnv):
    """The same as a vector environment that is not gymnasium's."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, space, value=None, **results):
        self.num_envs, self.single_observation_space, self.single_action_space = 2, space, spaces.Discrete(3)
        self.observation_space, self.action_space = batch_space(space, 2), batch_space(self.single_action_space, 2)
        self.one, self.results = Returns(space, value), results

    def reset(self, *, seed=None, options=None):
        return self.stacked(self.one.reset(seed=seed)[0]), {}

    def stacked(self, observation):
        return tf.nest.map_structure(lambda x: np.stack([x, x]), observation)

    def step(self, actions):
        no = np.zeros(2, bool)
        results = {"reward": np.ones(2), "terminated": no, "truncated": no, **self.results}
        return self.stacked(self.one.step(0)[0]), *results.values(), {}


BOX = spaces.Box(-1.0, 1.0, (2,))
INT8 = spaces.Box(-128, 127, (2,), np.int8)
LOST = [
    (INT8, np.array([0, 200]), "observation", "200 .* expected int8, from -128 to 127"),
    (INT8, np.array([-129, 5], np.int16), "observation", "-129 "),
    (spaces.Box(-(2**31), 2**31 - 1, (1,), np.int32), np.array([2**31]), "observation", "2147483648 .* int32"),
    (spaces.Box(0, 255, (2, 2), np.uint8), np.full((2, 2), 300, np.uint16), "observation", "300 .* from 0 to 255"),
    (spaces.Box(0, 65535, (1,), np.uint16), np.array([70000], np.uint32), "observation", "70000 "),
    (spaces.MultiBinary(2), np.array([0, 257]), "observation", "257 "),
    (spaces.Dict(a=BOX, b=INT8), {"a": np.zeros(2, np.float32), "b": np.array([1, 128])}, "observation/b", "128 "),
    (spaces.Tuple([INT8, BOX]), (np.array([999, 0]), np.zeros(2, np.float32)), "observation/0", "999 "),
    (spaces.Dict(a=spaces.Dict(c=spaces.MultiBinary(1))), {"a": {"c": np.array([256])}}, "observation/a/c", "256 "),
    (spaces.Box(0, 255, (2,), np.uint8), np.array([3, -1], np.int8), "observation", "-1 .* from 0 to 255"),
    (spaces.MultiDiscrete([3, 5], dtype=np.uint16), np.array([1, 65537]), "observation", "65537 .* uint16"),
    (
        spaces.Box(-(2**63), 2**63 - 1, (1,), np.int64),
        np.array([2**63], np.uint64),
        "observation",
        "9223372036854775808 ",
    ),
    (
        spaces.Box(0, 1, (2,), np.bool_),
        np.array([1, 2]),
        "observation",
        "dtype int64, expected (bool|int8)|2, expected",
    ),
    (INT8, np.array([0.5, 1.0]), "observation", "dtype float64, expected int8"),
    (spaces.Discrete(3), 0.7, "observation", "dtype float64, expected int64"),
]


def check(env, leaf, text):
    with env:
        env.reset_numpy()
        with pytest.raises(EnvironmentFaultError, match=f"gave an invalid {leaf}, .*{text}") as info:
            env.step_numpy(np.zeros(2, np.int64))
    assert info.value.leaf == leaf
    assert "\n" not in str(info.value)
    assert str(info.value).endswith(".")


@pytest.mark.parametrize(("space", "value", "leaf", "text"), LOST)
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_value_that_the_dtype_does_not_hold_is_an_error(space, value, leaf, text, vectorization):
    make = functools.partial(Returns, space, value)
    check(GymnasiumEnvironment(make, num_environments=2, vectorization=vectorization), leaf, text)


@pytest.mark.parametrize(("space", "value", "leaf", "text"), LOST)
def test_a_vector_environment_loses_no_value_either(space, value, leaf, text):
    check(GymnasiumEnvironment(VectorReturns(space, value)), leaf, text)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (INT8, np.array([-128, 127])),
        (INT8, [3, -4]),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([0, 255], np.uint16)),
        (spaces.Box(0, 255, (2,), np.uint8), [3, 255]),
        (spaces.MultiDiscrete([3, 200], dtype=np.uint8), np.array([2, 199])),
        (spaces.Box(0, 1, (2,), np.bool_), np.array([True, False])),
        (spaces.Box(0, 1, (2,), np.bool_), [False, True]),
        (spaces.MultiBinary(2), np.array([True, False])),
        (spaces.Discrete(3), np.int8(2)),
        (spaces.Box(-9, 9, (2,), np.float64), np.array([1, 2])),
        (BOX, [0.25, -0.5]),
    ],
)
def test_other_dtypes_that_lose_nothing_pass(space, value):
    envs = [GymnasiumEnvironment(functools.partial(Returns, space, value), num_environments=2)]
    envs += [] if isinstance(value, list) else [GymnasiumEnvironment(VectorReturns(space, value))]
    for env in envs:
        env.reset_numpy()
        np.testing.assert_array_equal(env.step_numpy(np.zeros(2, np.int64)).observation[1], value)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    "result",
    [
        {"reward": "1.0"}, {"reward": [1.0]}, {"reward": np.ones(1)}, {"reward": None}, {"reward": 1j},
        {"reward": {"a": 1.0}}, {"terminated": None}, {"terminated": "False"}, {"terminated": 2},
        {"terminated": 1.0}, {"truncated": None}, {"truncated": [True]}, {"truncated": np.array([False, True])},
    ],
)  # fmt: skip
def test_rewards_and_flags_of_other_kinds_are_errors(result, vectorization):
    ((leaf, _),) = result.items()
    make = functools.partial(Returns, BOX, **result)
    text = f"expected a {'number' if leaf == 'reward' else 'bool'}, in step 1 of its episode"
    check(GymnasiumEnvironment(make, num_environments=2, vectorization=vectorization), leaf, text)


@pytest.mark.parametrize(
    "result",
    [
        {"reward": np.array(["1.0", "2.0"])}, {"reward": np.ones((2, 1))}, {"reward": 1.0}, {"reward": None},
        {"terminated": None}, {"terminated": np.array([0.0, 1.0])}, {"truncated": np.array([0, 2])},
        {"truncated": np.array(["True", "False"])},
    ],
)  # fmt: skip
def test_a_vector_environments_rewards_and_flags_too(result):
    ((leaf, _),) = result.items()
    text = f"expected {'numbers' if leaf == 'reward' else 'bools'} of shape .2,."
    check(GymnasiumEnvironment(VectorReturns(BOX, **result)), leaf, text)


@pytest.mark.parametrize(
    "reward", [2, True, np.float32(2), np.int16(2), np.array(2.0), Fraction(1, 2), tf.constant(2.0)]
)
@pytest.mark.parametrize("flag", [False, 0, np.False_, np.int64(0), np.array(False), 1, np.bool_(True), np.array(1)])
def test_other_numbers_and_bools_pass(reward, flag):
    with GymnasiumEnvironment(functools.partial(Returns, BOX, reward=reward, terminated=flag)) as env:
        env.reset_numpy()
        time_step = env.step_numpy(np.zeros(1, np.int64))
    assert time_step.reward[0] == np.float32(float(reward))
    assert time_step.step_type[0] == (2 if flag else 1)
    assert time_step.discount[0] == (0 if flag else 1)


def test_rewards_that_are_no_numbers_can_be_dropped():
    class Once(Returns):
        life = 0

        def step(self, action):
            self.life += 1
            observation, *rest = super().step(action)
            return (observation, "1.0", *rest[1:]) if self.life == 3 else (observation, *rest)

    with GymnasiumEnvironment(functools.partial(Once, BOX), invalid_steps="drop") as env:
        env.reset_numpy()
        types = [int(env.step_numpy(np.zeros(1, np.int64)).step_type[0]) for _ in range(6)]
    assert types == [1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 2]), spaces.MultiBinary(2),
                                   spaces.Box(-5, 5, (2,), np.int32)])  # fmt: skip
@pytest.mark.parametrize("in_graph", [False, True])
def test_float_actions_for_whole_numbers_are_refused(space, in_graph):
    class Acts(Returns):
        action_space = space

    env = GymnasiumEnvironment(functools.partial(Acts, BOX), num_environments=2)
    before = env.reset()
    step = tf.function(env.step) if in_graph else env.step
    with pytest.raises((ValueError, tf.errors.OpError), match="action has dtype float32, expected whole numbers"):
        step(tf.zeros([2, *space.shape]))
    tf.nest.map_structure(np.testing.assert_array_equal, env.current_time_step(), before)


def test_float_actions_in_a_dict_and_for_environments_of_tensorflow():
    class Acts(Returns):
        action_space = spaces.Dict(a=spaces.Discrete(2), b=BOX)

    env = GymnasiumEnvironment(functools.partial(Acts, BOX))
    env.reset_numpy()
    with pytest.raises(ValueError, match="action/a has dtype float64, expected whole numbers"):
        env.step_numpy({"a": np.array([0.5]), "b": np.zeros([1, 2])})
    cartpole = TFCartPole(num_environments=2, seed=0)
    cartpole.reset()
    with pytest.raises(ValueError, match="action has dtype float32, expected whole numbers"):
        cartpole.step(tf.constant([0.5, 1.0]))


def test_actions_are_clipped_before_they_are_cast():
    class Acts(Returns):
        action_space = INT8
        seen: list = []  # noqa: RUF012

        def step(self, action):
            self.seen.append(action)
            return super().step(action)

    env = GymnasiumEnvironment(functools.partial(Acts, BOX))
    env.reset_numpy()
    env.step_numpy(np.array([[200, -300]]))
    np.testing.assert_array_equal(Acts.seen[0], [127, -128])
    assert Acts.seen[0].dtype == np.int8


@pytest.mark.parametrize(
    ("space", "given", "expected"),
    [
        (spaces.Box(0, 1, (2,), np.bool_), np.array([[1, 0]], np.int8), [True, False]),
        (spaces.Box(-np.inf, np.inf, (2,), np.float16), np.array([[1e6, -3e38]], np.float32), [65504, -65504]),
        (spaces.Box(-1e3, np.inf, (2,), np.float16), np.array([[1e6, -1e6]], np.float32), [65504, -1000]),
    ],
)
def test_actions_become_what_their_dtype_holds(space, given, expected):
    seen = []

    class Acts(Returns):
        action_space = space

        def step(self, action):
            seen.append(action)
            return super().step(action)

    env = GymnasiumEnvironment(functools.partial(Acts, BOX))
    env.reset_numpy()
    env.step_numpy(given)
    np.testing.assert_array_equal(seen[0], expected)
    assert seen[0].dtype == space.dtype


EMPTY = [spaces.Box(-1, 1, (0,)), spaces.Box(-1, 1, (3, 0)), spaces.Dict(), spaces.Tuple([]),
         spaces.Dict(a=BOX, b=spaces.Tuple([])), spaces.Tuple([spaces.Dict(), BOX])]  # fmt: skip


@pytest.mark.parametrize("space", EMPTY, ids=str)
@pytest.mark.parametrize("acts", [False, True])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_empty_spaces_are_refused(space, acts, vectorization):
    class Acts(Returns):
        action_space = space if acts else spaces.Discrete(2)

    with pytest.raises(ValueError, match=r"space.* expected .*at least one .*\.$") as info:
        GymnasiumEnvironment(
            functools.partial(Acts, BOX if acts else space), num_environments=2, vectorization=vectorization
        )
    assert "\n" not in str(info.value)


LARGE = [
    (spaces.Box(0, 2_000_000_000, (), np.int32), "2000000001"),
    (spaces.Box(0, 2_000_000_000, (3,), np.int32), "6000000003"),
    (spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64), str(2**65)),
    (spaces.Discrete(10**12), "1000000000000"),
    (spaces.MultiDiscrete([2**20, 2]), str(2**20 + 2)),
    (spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 2**62, (1,), np.int64)), str(2**62 + 1)),
    (spaces.Box(0, 2**64 - 1, (), np.uint64), str(2**64)),
]


@pytest.mark.parametrize(("space", "count"), LARGE, ids=str)
def test_too_many_categories_are_refused_at_once(space, count):
    class Acts(Returns):
        action_space = space

    with pytest.raises(ValueError, match=rf"action.* space has {count} categories, expected at most 1048576"):
        GymnasiumEnvironment(functools.partial(Acts, BOX))


class Exits(Returns):
    """Ends the program instead of the episode."""

    def step(self, action):
        if self.count == 2:
            sys.exit("no more licences")
        return super().step(action)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_system_exit_is_a_fault_like_others(vectorization):
    make = functools.partial(Exits, BOX)
    with GymnasiumEnvironment(make, num_environments=2, vectorization=vectorization) as env:
        env.reset_numpy()
        with pytest.raises(EnvironmentFaultError, match=r"environment 0 raised SystemExit: no more .* step 3 of"):
            [env.step_numpy(np.zeros(2, np.int64)) for _ in range(3)]
    with GymnasiumEnvironment(make, num_environments=2, vectorization=vectorization, max_restarts=2) as env:
        env.reset_numpy()
        types = [env.step_numpy(np.zeros(2, np.int64)).step_type.tolist() for _ in range(7)]
    assert types == [[1, 1], [1, 1], [0, 0], [1, 1], [1, 1], [0, 0], [1, 1]]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_system_exit_of_a_constructor_is_told(vectorization):
    with pytest.raises(EnvironmentFaultError, match="raised SystemExit: 3, when it was made"):
        GymnasiumEnvironment(lambda: sys.exit(3), num_environments=2, vectorization=vectorization)


def test_system_exit_of_a_vector_environment_is_told():
    class Ends(VectorReturns):
        def step(self, actions):
            sys.exit(0)

    env = GymnasiumEnvironment(Ends(BOX))
    env.reset_numpy()
    with pytest.raises(EnvironmentFaultError, match="raised SystemExit: 0, in its step 1"):
        env.step_numpy(np.zeros(2, np.int64))


def test_an_error_of_the_environments_code_in_this_file_is_its_own():
    """Whatever is raised while `step` is under way is the environment's, also from code without a frame of its own."""

    class Odd(Returns):
        step = len  # Not Python code, so that nothing of it shows in a traceback.

    with GymnasiumEnvironment(functools.partial(Odd, BOX), max_restarts=1) as env:
        env.reset_numpy()
        with pytest.raises(EnvironmentFaultError, match=r"raised TypeError: .* recreated 1 times"):
            [env.step_numpy(np.zeros(1, np.int64)) for _ in range(2)]
