"""EnvPool's environments against gymnasium's."""

import gc
import multiprocessing
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ppo_agent.drivers import DynamicStepDriver, EpisodeStatistics, GymnasiumEnvironment
from ppo_agent.training.named_environments import make_environment

FIRST, MID, LAST = 0, 1, 2


@pytest.fixture
def envpool():
    return pytest.importorskip("envpool")


def zeros(env):
    spec = env.action_spec()
    return np.zeros([env.batch_size, *spec.shape], spec.dtype.as_numpy_dtype)


def collect(env, steps, act=None):
    """Returns time steps and actions, stacked over time: [T + 1, B, ...] and [T, B, ...]."""
    rows, actions = [env.reset_numpy()], []
    for _ in range(steps):
        actions.append(act(rows[-1].observation) if act else zeros(env))
        rows.append(env.step_numpy(actions[-1]))
    return tf.nest.map_structure(lambda *x: np.stack(x), *rows), np.stack(actions)


def upright(observation):
    return (observation[:, 2] > 0).astype(np.int64)


@pytest.mark.parametrize(
    ("name", "limit"), [("CartPole-v1", 5), ("Pendulum-v1", 7), ("HalfCheetah-v5", 6), ("CheetahRun-v1", None)]
)
def test_a_time_limit_is_no_termination_and_the_next_step_begins_an_episode(envpool, name, limit):
    kwargs = {"max_episode_steps": limit} if limit else {}
    with GymnasiumEnvironment(f"envpool:{name}", num_environments=3, seed=1, env_kwargs=kwargs) as env:
        length = env.gymnasium_env._pool.config["max_episode_steps"]
        rows, _ = collect(env, 2 * length + 1, lambda o: np.ones_like(zeros(env)) if limit else zeros(env))
    expected = [FIRST, *[MID] * (length - 1), LAST, FIRST, *[MID] * (length - 1), LAST]
    np.testing.assert_array_equal(rows.step_type[:, 1], expected)
    np.testing.assert_array_equal(rows.discount, np.ones_like(rows.discount))
    np.testing.assert_array_equal(rows.reward[rows.step_type == FIRST], 0)
    starts = np.stack([np.concatenate([leaf[0].ravel(), leaf[length + 1].ravel()])
                       for leaf in tf.nest.flatten(rows.observation)[:1]])  # fmt: skip
    assert np.abs(starts).max() < 10
    assert not np.array_equal(*np.split(starts[0], 2))


def test_rows_are_gymnasiums_from_the_same_state(envpool):
    """Several episodes of several environments, each of which begins where EnvPool's does."""
    with (
        GymnasiumEnvironment("envpool:CartPole-v1", num_environments=4, seed=3) as fast,
        GymnasiumEnvironment("CartPole-v1", num_environments=4, seed=0, vectorization="sync") as slow,
    ):
        a, b = fast.reset_numpy(), slow.reset_numpy()
        ends = 0
        for _ in range(150):
            for index in np.flatnonzero(a.step_type == FIRST):
                slow.gymnasium_env.envs[index].unwrapped.state = tuple(a.observation[index].astype(float))
                b.observation[index] = a.observation[index]
            np.testing.assert_array_equal(a.step_type, b.step_type)
            np.testing.assert_array_equal(a.discount, b.discount)
            np.testing.assert_array_equal(a.reward, b.reward)
            np.testing.assert_allclose(a.observation, b.observation, atol=2e-4)
            ends += np.count_nonzero(a.discount == 0)
            action = upright(a.observation)
            a, b = fast.step_numpy(action), slow.step_numpy(action)
    assert ends >= 8


def returns_of(env, act, episodes):
    """The returns of the first `episodes` episodes of every environment."""
    totals, running, time_step = [[] for _ in range(env.batch_size)], np.zeros(env.batch_size), env.reset_numpy()
    while min(map(len, totals)) < episodes:
        time_step = env.step_numpy(act(time_step.observation))
        running += time_step.reward
        for index in np.flatnonzero(time_step.step_type == LAST):
            totals[index].append(running[index])
            running[index] = 0.0
    return np.concatenate([total[:episodes] for total in totals])


def damped(observation):
    """Swings a pendulum up and holds it there, with some luck."""
    cos, sin, speed = observation.T
    energy = speed**2 / 6 + 5 * (cos - 1)
    torque = np.where(cos > 0.9, -10 * sin - 2 * speed, np.where(energy < 0, np.sign(speed) * 2, -speed))
    return torque[:, None].astype(np.float32)


def linear(size, observations):
    weights = np.random.default_rng(5).normal(size=[observations, size]).astype(np.float32)
    return lambda observation: np.tanh(observation @ weights * 0.3)


SAME = [("CartPole-v1", upright, 2), ("Pendulum-v1", damped, 2)]
SLOW = [("HalfCheetah-v5", linear(6, 17), 2), ("Hopper-v5", linear(3, 11), 5), ("InvertedPendulum-v5", linear(1, 4), 5)]


@pytest.mark.parametrize(
    ("name", "act", "episodes"), [*SAME, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_a_policy_has_the_same_return(envpool, name, act, episodes):
    found = []
    for env_name, vectorization in ((f"envpool:{name}", "auto"), (name, "sync")):
        with GymnasiumEnvironment(env_name, num_environments=50, seed=7, vectorization=vectorization) as env:
            found.append(returns_of(env, act, episodes))
    a, b = found
    error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    assert error > 0
    assert abs(a.mean() - b.mean()) < 3.5 * error, (a.mean(), b.mean(), error)
    assert 0.6 < a.std() / b.std() < 1.7


def test_a_games_frames_and_lives(envpool):
    with make_environment("envpool:Breakout-v5", num_environments=2, seed=0) as env:
        assert env.observation_spec().shape == [84, 84, 4]
        rows, _ = collect(env, 60, lambda o: np.array([1, 1]))
        # The newest frame comes last: each is the one before in the next step.
        same = (rows.observation[1:, ..., :3] == rows.observation[:-1, ..., 1:]).all(axis=(2, 3, 4))
        within = rows.step_type[1:] != FIRST
        assert same[within].all()
    counts = []
    for is_training in (True, False):
        with make_environment("envpool:Breakout-v5", num_environments=2, seed=0, is_training=is_training) as env:
            rows, _ = collect(env, 300, lambda o: np.array([1, 1]))
            ends = rows.step_type == LAST
            counts.append(np.count_nonzero(ends))
            assert (rows.discount[ends] == 0).all()
            assert (rows.reward[rows.step_type == FIRST] == 0).all()
    assert counts[0] >= 4 * counts[1] > 0


def test_the_same_seed_gives_the_same_rows(envpool):
    runs = []
    for seed in (4, 4, 5, None, None):
        with GymnasiumEnvironment("envpool:CartPole-v1", num_environments=3, seed=seed) as env:
            runs.append(collect(env, 80, upright)[0].observation)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not any(np.array_equal(runs[0], other) for other in runs[2:])
    assert not np.array_equal(runs[3], runs[4])
    with GymnasiumEnvironment("envpool:CartPole-v1", num_environments=3, seed=2**40) as env:  # EnvPool takes 31 bits.
        env.reset_numpy()


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "HalfCheetah-v5", "CheetahRun-v1"])
def test_a_ready_object(envpool, name):
    pool = envpool.make_gymnasium(name, num_envs=3, seed=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        env = GymnasiumEnvironment(pool, seed=2)
        expected = GymnasiumEnvironment(f"envpool:{name}", num_environments=3, seed=2)
        assert env.time_step_spec() == expected.time_step_spec()
        assert env.batch_size == 3
        step = tf.function(env.step)
        a, b = env.reset(), expected.reset_numpy()
        for _ in range(10):
            tf.nest.map_structure(np.testing.assert_array_equal, tuple(a), tuple(b))
            a, b = step(tf.constant(zeros(env) + 1)), expected.step_numpy(zeros(env) + 1)
    env.close()
    expected.close()


@pytest.mark.parametrize(
    ("make", "options", "keywords", "text"),
    [
        ("make_gymnasium", {"batch_size": 2}, {}, "batch_size of the EnvPool object is 2, expected its num_envs, 4"),
        ("make_dm", {}, {}, "expected an object that envpool.make_gymnasium made"),
        ("make_gymnasium", {"seed": 3}, {"seed": 4}, "seed is 4, expected None or 3"),
        ("make_gymnasium", {}, {"vectorization": "async"}, "have no meaning for a ready vector environment"),
        ("make_gymnasium", {}, {"num_environments": 5}, "num_environments is 5, but the vector environment has 4"),
        ("make_gymnasium", {}, {"invalid_steps": "drop"}, "invalid_steps is 'drop', expected 'error'"),
    ],
)
def test_other_objects_are_refused(envpool, make, options, keywords, text):
    pool = getattr(envpool, make)("CartPole-v1", num_envs=4, **options)
    with pytest.raises(ValueError, match=text) as info:
        GymnasiumEnvironment(pool, **keywords)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("name", "keywords", "text"),
    [
        ("CartPol-v1", {}, "env_name is 'envpool:CartPol-v1', which EnvPool does not have, .*CartPole-v1"),
        (
            "CartPole-v1",
            {"env_kwargs": {"nothing": 1}},
            "env_kwargs do not fit env_name 'envpool:CartPole.*nothing",
        ),
        ("CartPole-v1", {"vectorization": "async"}, "vectorization is 'async', expected auto: EnvPool steps"),
        ("CartPole-v1", {"env_kwargs": {"batch_size": 1}}, "batch_size of the EnvPool object is 1, expected"),
    ],
)
def test_bad_names_and_keywords(envpool, name, keywords, text):
    with pytest.raises(ValueError, match=text):
        GymnasiumEnvironment(f"envpool:{name}", **{"num_environments": 2, **keywords})


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ValueError, match=r"'envpool:CartPole-v1', which .* run pip install \"ppo-agent\[envpool\]\"\."):
        GymnasiumEnvironment("envpool:CartPole-v1")


def num_threads():
    return len(list(Path("/proc/self/task").iterdir()))


def test_closing_ends_the_threads(envpool):
    before = num_threads()
    envs = [GymnasiumEnvironment("envpool:CartPole-v1", num_environments=4, env_kwargs={"num_threads": 3}, seed=i)
            for i in range(5)]  # fmt: skip
    for env in envs:
        env.reset_numpy()
    assert num_threads() >= before + 15
    for env in envs:
        env.close()
        env.close()
    gc.collect()
    assert num_threads() <= before + 1
    assert threading.active_count() < 50


def test_no_process_is_forked(envpool):
    with GymnasiumEnvironment("envpool:HalfCheetah-v5", num_environments=8, seed=0) as env:
        env.reset_numpy()
        assert len(env.groups) == 1
        assert not [child for child in multiprocessing.active_children() if child.name.startswith("environments")]


def test_frames(envpool):
    kwargs = {"render_mode": "rgb_array"}
    with GymnasiumEnvironment("envpool:CartPole-v1", num_environments=2, seed=0, env_kwargs=kwargs) as env:
        env.reset_numpy()
        frames = env.render()
    assert frames.dtype == np.uint8
    assert (frames.shape[0], frames.shape[-1], frames.ndim) == (2, 3, 4)


def test_a_driver_collects_from_it(envpool):
    from tf_agents.policies import random_tf_policy

    with GymnasiumEnvironment("envpool:CartPole-v1", num_environments=8, seed=0) as env:
        statistics = EpisodeStatistics()
        policy = random_tf_policy.RandomTFPolicy(env.time_step_spec(), env.action_spec())
        driver = DynamicStepDriver(env, policy, [statistics], num_steps=2_000)
        driver.run(*driver.run())
    assert 4_000 <= statistics.num_environment_steps < 4_100
    assert 15 < statistics.mean_return() < 30
