import functools
import warnings

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from tf_agents.trajectories import time_step as ts
from toy_environments import Counter, Noise, SameStepCounters, Spaces

from ppo_agent.drivers import GymnasiumEnvironment

FIRST, MID, LAST = 0, 1, 2


def zeros(env):
    return np.zeros(env.batch_size, np.int64)


def collect(env, steps, action=None):
    """Returns the time steps of `steps` steps and the first one, stacked over time: [T + 1, B, ...]."""
    action = zeros(env) if action is None else action
    rows = [env.reset_numpy()] + [env.step_numpy(action) for _ in range(steps)]
    return tf.nest.map_structure(lambda *x: np.stack(x), *rows)


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("action", [np.zeros(3, np.int64), np.int64(0), np.zeros([2, 1], np.int64)])
def test_an_action_of_another_shape_steps_nothing(action, in_graph):
    env = GymnasiumEnvironment(functools.partial(Counter, length=9), num_environments=2)
    before = env.reset()
    step = tf.function(env.step) if in_graph else env.step
    with pytest.raises(ValueError, match=r"action is of shape .*, expected shape \(2,\)\."):
        step(tf.constant(action))
    tf.nest.map_structure(np.testing.assert_array_equal, env.current_time_step(), before)


ODD_ACTIONS = {
    "beyond": (spaces.Discrete(3, start=4), [0, 3], "action is 3, expected whole numbers from 0 to 2"),
    "negative": (spaces.MultiDiscrete([2, 3]), [[0, 0], [-1, 2]], "action is -1, expected whole numbers from 0 to 2"),
    "component": (spaces.MultiDiscrete([2, 3]), [[0, 0], [2, 2]], "action is 2, expected whole numbers from 0 to 2"),
    "nan": (spaces.Box(-1, 1, (2,)), [[0.5, 7.0], [0, np.nan]], "action is nan, expected finite numbers"),
    "infinite": (spaces.Dict(a=spaces.Box(-1, 1, ())), {"a": [0, np.inf]}, "action/a is inf, expected finite numbers"),
}


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize(("space", "values", "message"), ODD_ACTIONS.values(), ids=list(ODD_ACTIONS))
def test_an_action_that_is_none_of_the_environments_steps_nothing(space, values, message, in_graph):
    """An environment that does not look would be blamed for what it does then, or take it for another action."""
    env = GymnasiumEnvironment(lambda: Spaces(spaces.Box(-1, 1, (1,)), space), num_environments=2)
    values = {name: np.array(x) for name, x in values.items()} if isinstance(values, dict) else np.array(values)
    action = tf.nest.map_structure(lambda spec, x: tf.constant(x, spec.dtype), env.action_spec(), values)
    before = env.reset()
    step = tf.function(env.step) if in_graph else env.step
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=message):
        step(action)
    tf.nest.map_structure(np.testing.assert_array_equal, env.current_time_step(), before)


def test_spaces_with_keys_of_several_types_are_refused():
    space = spaces.Dict({1: spaces.Discrete(2), "b": spaces.Discrete(2)})
    for pair in ((space, spaces.Discrete(2)), (spaces.Discrete(2), space)):
        with pytest.raises(ValueError, match=r"a space with the keys \[1, 'b'\], expected all of one type"):
            GymnasiumEnvironment(lambda pair=pair: Spaces(*pair))


@pytest.mark.parametrize("vectorization", ["auto", "sync", "async"])
@pytest.mark.parametrize("terminates", [True, False])
def test_an_episode_and_the_step_after_it(vectorization, terminates):
    make = functools.partial(Counter, length=2, terminates=terminates)
    with GymnasiumEnvironment(make, num_environments=2, vectorization=vectorization) as env:
        rows = collect(env, 4, np.array([1, 2]))
    end = 0.0 if terminates else 1.0
    np.testing.assert_array_equal(rows.step_type[:, 0], [FIRST, MID, LAST, FIRST, MID])
    np.testing.assert_array_equal(rows.step_type[:, 1], rows.step_type[:, 0])
    np.testing.assert_allclose(rows.reward, [[0, 0], [1.01, 1.02], [2.01, 2.02], [0, 0], [1.01, 1.02]], rtol=1e-6)
    np.testing.assert_array_equal(rows.discount[:, 0], [1, 1, end, 1, 1])
    # An asynchronous environment resets each copy in a process of its own, the others once in this one.
    np.testing.assert_array_equal(rows.observation[:, 0, 0], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(rows.observation[:, 0, 1], [0, 0, 0, 1, 1])
    assert [x.dtype for x in rows] == [np.int32, np.float32, np.float32, np.float32]


def test_environments_end_at_different_times():
    lengths = iter([2, 3])
    with GymnasiumEnvironment(lambda: Counter(length=next(lengths)), num_environments=2) as env:
        rows = collect(env, 6)
    np.testing.assert_array_equal(rows.step_type[:, 0], [FIRST, MID, LAST, FIRST, MID, LAST, FIRST])
    np.testing.assert_array_equal(rows.step_type[:, 1], [FIRST, MID, MID, LAST, FIRST, MID, MID])
    np.testing.assert_array_equal(rows.discount[:, 1], [1, 1, 1, 0, 1, 1, 1])


def test_episodes_of_one_step():
    with GymnasiumEnvironment(functools.partial(Counter, length=1)) as env:
        rows = collect(env, 4)
    np.testing.assert_array_equal(rows.step_type[:, 0], [FIRST, LAST, FIRST, LAST, FIRST])
    np.testing.assert_array_equal(rows.reward[:, 0], [0, 1, 0, 1, 0])


def test_termination_wins_over_truncation_at_the_same_step():
    class Both(Counter):
        def step(self, action):
            observation, reward, *_ = super().step(action)
            return observation, reward, True, True, {}

    with GymnasiumEnvironment(Both) as env:
        assert collect(env, 1).discount[-1, 0] == 0


def test_reset_in_the_middle_of_an_episode():
    with GymnasiumEnvironment(functools.partial(Counter, length=2)) as env:
        collect(env, 2)
        rows = collect(env, 1)  # Begins with a reset, right after an episode's end.
    np.testing.assert_array_equal(rows.step_type[:, 0], [FIRST, MID])
    np.testing.assert_array_equal(rows.reward[:, 0], [0, 1])


def test_the_reward_of_a_reset_is_nothing():
    class Generous(SyncVectorEnv):
        def step(self, actions):
            observation, reward, *rest = super().step(actions)
            return observation, reward + 7, *rest

    with GymnasiumEnvironment(Generous([functools.partial(Counter, length=1)] * 2)) as env:
        np.testing.assert_array_equal(collect(env, 2).reward[:, 0], [0, 8, 0])


def test_the_first_use_resets():
    with GymnasiumEnvironment(Counter) as env:
        assert env.step_numpy(np.array([3])).step_type == FIRST
        assert env.gymnasium_env.envs[0].actions == []
    with GymnasiumEnvironment(Counter) as env:
        assert env.current_numpy().step_type == FIRST
        assert env.current_numpy() is env.current_numpy()


def test_time_steps_are_not_changed_by_later_steps():
    with GymnasiumEnvironment(functools.partial(Counter, length=2), num_environments=2) as env:
        kept = [env.reset_numpy()] + [env.step_numpy(zeros(env)) for _ in range(5)]
    np.testing.assert_array_equal([row.observation[0, 0] for row in kept], [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal([row.step_type[0] for row in kept], [0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("vectorization", ["sync", "async", "vector_entry_point"])
def test_equal_seeds_give_equal_trajectories(vectorization, rng):
    actions = rng.integers(2, size=[60, 3])
    runs = []
    for seed in (5, 5, 6):
        with GymnasiumEnvironment("CartPole-v1", num_environments=3, seed=seed, vectorization=vectorization) as env:
            env.reset_numpy()
            runs.append(np.stack([env.step_numpy(action).observation for action in actions]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    assert not np.array_equal(runs[0][:, 0], runs[0][:, 1])


def test_later_resets_do_not_repeat_the_seed():
    with GymnasiumEnvironment("CartPole-v1", seed=1) as env:
        assert not np.array_equal(env.reset_numpy().observation, env.reset_numpy().observation)


def test_the_vectorised_cartpole_is_the_scalar_one(rng):
    """It is gymnasium's, but 'auto' takes it in the scalar one's place."""
    with (
        GymnasiumEnvironment("CartPole-v1", num_environments=4, seed=0) as fast,
        GymnasiumEnvironment("CartPole-v1", num_environments=4, seed=0, vectorization="sync") as slow,
    ):
        assert not isinstance(fast.gymnasium_env, SyncVectorEnv)
        assert isinstance(slow.gymnasium_env, SyncVectorEnv)
        assert fast.time_step_spec() == slow.time_step_spec()
        assert fast.action_spec() == slow.action_spec()
        a, b = fast.reset_numpy(), slow.reset_numpy()
        for _ in range(80):
            first = b.step_type == FIRST  # The start is random: copy it, all else must follow.
            for index in np.flatnonzero(first):
                state = fast.gymnasium_env.state[:, index]
                slow.gymnasium_env.envs[index].unwrapped.state = tuple(state)
            action = rng.integers(2, size=4)
            a, b = fast.step_numpy(action), slow.step_numpy(action)
            np.testing.assert_array_equal(a.step_type, b.step_type)
            np.testing.assert_array_equal(a.discount, b.discount)
            np.testing.assert_array_equal(a.reward, b.reward)
            running = b.step_type != FIRST
            np.testing.assert_allclose(a.observation[running], b.observation[running], rtol=1e-5, atol=1e-6)


def test_the_vectorised_cartpole_truncates():
    with GymnasiumEnvironment("CartPole-v1", num_environments=4, seed=0) as env:
        time_step, steps = env.reset_numpy(), 0
        while not (time_step.step_type == LAST).any():
            balance = time_step.observation @ np.array([0.1, 0.5, 1.0, 1.0], np.float32)
            time_step, steps = env.step_numpy((balance > 0).astype(np.int64)), steps + 1
        assert steps == 500
        np.testing.assert_array_equal(time_step.discount, [1] * 4)


def test_a_limit_on_the_steps_applies_to_the_vectorised_form():
    with GymnasiumEnvironment("CartPole-v1", num_environments=4, env_kwargs={"max_episode_steps": 3}) as env:
        rows = collect(env, 3)
    np.testing.assert_array_equal(rows.step_type[3], [LAST] * 4)
    np.testing.assert_array_equal(rows.discount[3], [1] * 4)


def test_eager_and_graph_steps_are_the_numpy_ones():
    make = functools.partial(Noise, terminates=False)
    with (
        GymnasiumEnvironment(make, num_environments=2, seed=3) as env,
        GymnasiumEnvironment(make, num_environments=2, seed=3) as eager,
        GymnasiumEnvironment(make, num_environments=2, seed=3) as graph,
    ):
        reset, step, current = tf.function(graph.reset), tf.function(graph.step), tf.function(graph.current_time_step)
        rows = [(env.reset_numpy(), eager.reset(), reset())]
        for index in range(20):
            action = np.array([index % 5, 3])
            rows.append((env.step_numpy(action), eager.step(tf.constant(action)), step(tf.constant(action))))
        rows.append((env.current_numpy(), eager.current_time_step(), current()))
        for expected, *others in rows:
            for other in others:
                tf.nest.map_structure(np.testing.assert_array_equal, tuple(expected), tuple(other))
        assert step.experimental_get_tracing_count() == 1


def test_shapes_are_known_in_a_graph():
    with GymnasiumEnvironment(Counter, num_environments=3) as env:

        @tf.function
        def step():
            time_step = env.step(tf.zeros([3], tf.int64))
            assert time_step.observation.shape == [3, 2]
            assert time_step.reward.shape == time_step.step_type.shape == time_step.discount.shape == [3]

        step()


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_discrete_actions_count_from_zero(vectorization):
    make = functools.partial(Counter, start=-2, length=9)
    with GymnasiumEnvironment(make, num_environments=2, vectorization=vectorization) as env:
        spec = env.action_spec()
        assert (spec.minimum, spec.maximum, spec.dtype) == (0, 4, tf.int64)
        rows = collect(env, 2, np.array([0, 4]))
    np.testing.assert_allclose(rows.reward[1], [1 - 0.02, 1 + 0.02], rtol=1e-6)


def one_step(observation_space, action_space, action):
    """Returns (spec, first time step, action that the environment saw) of a batch of one."""
    with GymnasiumEnvironment(functools.partial(Spaces, observation_space, action_space), seed=0) as env:
        time_step = env.reset_numpy()
        env.step_numpy(tf.nest.map_structure(lambda x: np.asarray(x)[None], action))
        return env, time_step, env.gymnasium_env.envs[0].actions[-1]


BOX = spaces.Box(-1.0, 1.0, [2], np.float32)


def test_box_actions_are_clipped_on_their_way_in():
    space = spaces.Box(np.array([-1.0, -np.inf]), np.array([2.0, 0.5]), dtype=np.float64)
    action = np.array([-3.0, 0.75], np.float32)
    env, _, seen = one_step(BOX, space, action)
    np.testing.assert_array_equal(seen, [-1.0, 0.5])
    assert seen.dtype == np.float64
    np.testing.assert_array_equal(action, np.array([-3.0, 0.75], np.float32))
    assert env.action_spec().dtype == tf.float32
    np.testing.assert_array_equal(env.action_spec().minimum, [-1, np.finfo(np.float32).min])


def test_unbounded_actions_pass():
    env, _, seen = one_step(BOX, spaces.Box(-np.inf, np.inf, [1], np.float32), np.array([1e30], np.float32))
    np.testing.assert_array_equal(seen, np.array([1e30], np.float32))
    assert np.isfinite(env.action_spec().maximum)


@pytest.mark.parametrize(
    ("space", "action", "seen", "bounds"),
    [
        (spaces.MultiDiscrete([3, 2]), [2, 1], [2, 1], ([0, 0], [2, 1])),
        (spaces.MultiDiscrete([3, 2], start=[5, 1]), [2, 1], [7, 2], ([0, 0], [2, 1])),
        (spaces.MultiBinary(2), [0, 1], [0, 1], (0, 1)),
        (spaces.Box(0, 9, [2], np.uint8), [3, 12], [3, 9], (0, 9)),
    ],
)
def test_other_action_spaces(space, action, seen, bounds):
    env, _, found = one_step(BOX, space, np.array(action, np.int32))
    np.testing.assert_array_equal(found, seen)
    assert space.contains(found)
    for bound, expected in zip((env.action_spec().minimum, env.action_spec().maximum), bounds, strict=True):
        np.testing.assert_array_equal(bound, expected)


@pytest.mark.parametrize(
    ("space", "dtype"),
    [
        (spaces.Box(-np.inf, np.inf, [3], np.float64), tf.float32),
        (spaces.Box(0, 255, [4, 4, 3], np.uint8), tf.uint8),
        (spaces.Box(-5, 5, [2], np.int32), tf.int32),
        (spaces.Box(0.0, 1.0, [], np.float16), tf.float32),
        (spaces.Discrete(4, start=-1), tf.int64),
        (spaces.MultiDiscrete([3, 2]), tf.int64),
        (spaces.MultiBinary([2, 2]), tf.int8),
    ],
)
def test_observations_have_the_dtype_of_the_spec(space, dtype):
    env, time_step, _ = one_step(space, spaces.Discrete(2), 0)
    spec = env.observation_spec()
    assert (spec.dtype, spec.shape) == (dtype, list(space.shape))
    assert time_step.observation.dtype == dtype.as_numpy_dtype
    assert time_step.observation.shape == (1, *space.shape)
    assert np.all(np.asarray(spec.minimum) <= time_step.observation)
    assert np.all(np.asarray(spec.maximum) >= time_step.observation)
    assert np.all(np.isfinite(spec.minimum))


def test_a_discrete_observation_keeps_its_start():
    env, _, _ = one_step(spaces.Discrete(4, start=-1), spaces.Discrete(2), 0)
    assert (env.observation_spec().minimum, env.observation_spec().maximum) == (-1, 2)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_nested_spaces(vectorization):
    nested = {"z": spaces.Tuple([spaces.Discrete(3, start=4), BOX]), "a": spaces.Box(-1, 1, [2, 2], np.float64)}
    space = spaces.Dict(nested)
    make = functools.partial(Spaces, space, space)
    action = {"z": (np.array([0, 2]), np.full([2, 2], 7.0)), "a": np.full([2, 2, 2], -0.5)}
    with GymnasiumEnvironment(make, num_environments=2, seed=0, vectorization=vectorization) as env:
        time_step = env.reset_numpy()
        tf.nest.assert_same_structure(env.observation_spec(), time_step.observation)
        tf.nest.assert_same_structure(env.action_spec(), action)
        assert env.observation_spec()["z"][1].name == "observation/z/1"
        specs, leaves = tf.nest.flatten(env.observation_spec()), tf.nest.flatten(time_step.observation)
        assert [(2, *spec.shape) for spec in specs] == [leaf.shape for leaf in leaves]
        assert [spec.dtype for spec in specs] == [leaf.dtype for leaf in leaves]
        stepped = tf.function(env.step)(tf.nest.map_structure(tf.constant, action))
        tf.nest.assert_same_structure(env.observation_spec(), stepped.observation)
        if vectorization == "sync":
            (seen,) = env.gymnasium_env.envs[1].actions
            assert space.contains(seen)
            assert seen["z"][0] == 6
            np.testing.assert_array_equal(seen["z"][1], [1, 1])
            np.testing.assert_array_equal(seen["a"], np.full([2, 2], -0.5))


def test_a_ready_vector_environment():
    ready = SyncVectorEnv([functools.partial(Counter, length=2)] * 3)
    with GymnasiumEnvironment(ready) as env:
        assert env.batch_size == 3
        assert env.gymnasium_env is ready
        np.testing.assert_array_equal(collect(env, 3).step_type[:, 2], [FIRST, MID, LAST, FIRST])


def test_an_environment_id_with_its_module():
    gym.register("Toy-v0", entry_point=Counter, max_episode_steps=2)
    try:
        with GymnasiumEnvironment("toy_environments:Toy-v0", num_environments=2) as env:
            rows = collect(env, 2)
        np.testing.assert_array_equal(rows.step_type[:, 0], [FIRST, MID, LAST])
        np.testing.assert_array_equal(rows.discount[:, 0], [1, 1, 1])  # TimeLimit truncates before Counter ends.
    finally:
        del gym.registry["Toy-v0"]


@pytest.mark.parametrize(("count", "vectorised"), [(1, False), (3, False), (4, True)])
def test_auto_vectorises_when_it_pays(count, vectorised):
    with GymnasiumEnvironment("CartPole-v1", num_environments=count) as env:
        assert isinstance(env.gymnasium_env, SyncVectorEnv) != vectorised


def test_auto_leaves_out_a_vectorised_form_with_other_spaces():
    gym.register("Toy-v0", Counter, vector_entry_point=lambda num_envs, **_: SameStepCounters((2,) * num_envs))
    try:
        with GymnasiumEnvironment("Toy-v0", num_environments=4) as env:
            assert isinstance(env.gymnasium_env, SyncVectorEnv)
    finally:
        del gym.registry["Toy-v0"]


def test_render():
    kwargs = {"render_mode": "rgb_array"}
    with GymnasiumEnvironment("CartPole-v1", num_environments=2, vectorization="sync", env_kwargs=kwargs) as env:
        env.reset_numpy()
        assert env.render().shape == (2, 400, 600, 3)


def test_close_ends_the_processes():
    env = GymnasiumEnvironment(Counter, num_environments=2, vectorization="async")
    started = env.gymnasium_env.processes
    assert all(process.is_alive() for process in started)
    env.close()
    env.close()
    assert not any(process.is_alive() for process in started)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
def test_same_step_autoreset_looks_like_next_step(vector):
    """Environments that end at different times, so that some are reset while others go on."""
    makes = [functools.partial(Counter, length=length) for length in (2, 3, 5, 1)]
    with (
        GymnasiumEnvironment(vector(makes, autoreset_mode=AutoresetMode.SAME_STEP)) as env,
        GymnasiumEnvironment(vector(makes, autoreset_mode=AutoresetMode.NEXT_STEP)) as expected,
    ):
        rows, expected_rows = collect(env, 30), collect(expected, 30)
    for name in ("step_type", "reward", "discount"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(expected_rows, name), name)
    # The episode's number differs: an episode is begun and given up for each that is shown.
    np.testing.assert_array_equal(rows.observation[..., 0], expected_rows.observation[..., 0])


def test_same_step_autoreset_of_environments_that_end_together():
    ready = SyncVectorEnv([Counter] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    with GymnasiumEnvironment(ready) as env, GymnasiumEnvironment(SyncVectorEnv([Counter] * 2)) as expected:
        tf.nest.map_structure(np.testing.assert_array_equal, tuple(collect(env, 9)), tuple(collect(expected, 9)))


def test_same_step_autoreset_with_nested_observations():
    class Nested(Counter):
        def __init__(self, length):
            super().__init__(length)
            self.observation_space = spaces.Dict(count=self.observation_space, parity=spaces.Discrete(2))

        def _observation(self):
            return {"count": super()._observation(), "parity": self.step_index % 2}

    makes = [functools.partial(Nested, 2), functools.partial(Nested, 3)]
    with GymnasiumEnvironment(SyncVectorEnv(makes, autoreset_mode=AutoresetMode.SAME_STEP)) as env:
        rows = collect(env, 4)
    np.testing.assert_array_equal(rows.observation["count"][:, 1, 0], [0, 1, 2, 3, 0])
    np.testing.assert_array_equal(rows.observation["parity"][:, 1], [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(rows.observation["count"][:, 0, 0], [0, 1, 2, 0, 1])


def test_a_same_step_environment_that_ignores_masks_is_warned_about():
    """It shows when the first episode ends: that of the other environment is lost, and given up."""
    env = GymnasiumEnvironment(SameStepCounters((2, 5)))
    with pytest.warns(UserWarning, match="ignores options"):
        rows = collect(env, 6)
    np.testing.assert_array_equal(rows.step_type[:, 0], [FIRST, MID, LAST, FIRST, MID, LAST, FIRST])
    np.testing.assert_array_equal(rows.step_type[:, 1], [FIRST, MID, MID, FIRST, MID, MID, MID])
    np.testing.assert_array_equal(rows.observation[:, 0, 0], [0, 1, 2, 0, 1, 2, 1])
    np.testing.assert_array_equal(rows.observation[:, 1, 0], [0, 1, 2, 0, 1, 2, 3])
    np.testing.assert_array_equal(rows.reward[:, 0], [0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(rows.reward[:, 1], [0, 1, 2, 0, 1, 2, 3])
    assert (rows.discount[3] == 1).all()


def test_a_same_step_environment_whose_reset_takes_no_options_is_warned_about():
    class WithoutOptions(SameStepCounters):
        def reset(self, *, seed=None):
            return super().reset(seed=seed)

    with pytest.warns(UserWarning, match="ignores options"):
        env = GymnasiumEnvironment(WithoutOptions((2, 3)))
    rows = collect(env, 4)
    np.testing.assert_array_equal(rows.step_type[:, 0], [FIRST, MID, LAST, FIRST, LAST])
    np.testing.assert_array_equal(rows.step_type[:, 1], [FIRST, MID, MID, LAST, FIRST])
    np.testing.assert_array_equal(rows.observation[:, 0, 0], [0, 1, 2, 1, 2])
    np.testing.assert_array_equal(rows.observation[:, 1, 0], [0, 1, 2, 3, 1])
    np.testing.assert_array_equal(rows.reward[:, 0], [0, 1, 2, 0, 2])


def test_a_same_step_environment_is_not_stepped_while_it_is_taken_over():
    class Counted(SameStepCounters):
        calls = 0

        def step(self, actions):
            self.calls += 1
            return super().step(actions)

        def reset(self, **keywords):
            self.calls += 1
            return super().reset(**keywords)

    ready = Counted((2, 3))
    GymnasiumEnvironment(ready)
    assert ready.calls == 0


def test_a_same_step_environment_of_one_needs_no_mask():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = GymnasiumEnvironment(SameStepCounters((2,)))
    np.testing.assert_array_equal(collect(env, 4).observation[:, 0, 0], [0, 1, 2, 0, 1])


def test_specs_are_those_of_a_batched_environment():
    env = GymnasiumEnvironment("CartPole-v1", num_environments=2)
    assert env.batched
    assert env.batch_size == 2
    assert env.time_step_spec() == ts.time_step_spec(env.observation_spec())
    assert env.observation_spec().shape == [4]
    assert env.action_spec().shape == []
