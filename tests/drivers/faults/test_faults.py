"""Environments that misbehave, one fault at a time and mixed, in this process and in others."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from misbehaving_environments import FATAL, FAULTS, HARMLESS, INVALID, RAISED, Misbehaving
from toy_environments import Counter

from ppo_agent.drivers import EnvironmentFaultError, GymnasiumEnvironment
from ppo_agent.drivers.faults import faults

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast")
SOME = ["nan_observation", "vector_reward", "wrong_shape", "raise_in_step", "strange_error"]
# In which leaf an invalid step is found.
LEAVES = {
    "nan_observation": "observation/x", "inf_observation": "observation/x", "huge_observation": "observation/x",
    "wrong_shape": "observation/x", "wrong_dtype": "observation/x", "object_dtype": "observation/x",
    "outside_discrete": "observation/kind", "no_observation": "observation", "vector_reward": "reward",
    "four_results": "", "nan_reward": "reward", "inf_reward": "reward", "no_reward": "reward",
}  # fmt: skip


def make(fault, vectorization="sync", num_environments=4, marker=None, only=None, **keywords):
    """Environments of which all misbehave, or only number `only`, if they are in this process."""
    numbers = iter(range(10**9))

    def factory():
        own = fault if only is None or next(numbers) in only else ""
        return Misbehaving(own, marker=marker)

    env = functools.partial(Misbehaving, fault, marker=marker) if only is None else factory
    return GymnasiumEnvironment(env, num_environments=num_environments, seed=3, vectorization=vectorization, **keywords)


def run(env, num_steps=40):
    """All time steps, [T + 1] of arrays [B, ...]."""
    action = np.zeros(env.batch_size, np.int64)
    steps = [env.reset_numpy()]
    steps += [env.step_numpy(action) for _ in range(num_steps)]
    return tf.nest.map_structure(lambda *x: np.stack(x), *steps)


def assert_sound(steps):
    for leaf in tf.nest.flatten(steps):
        assert np.isfinite(leaf).all()
    assert steps.observation["kind"].max() <= 5
    first, last = steps.step_type == 0, steps.step_type == 2
    np.testing.assert_array_equal(first[1:] & last[:-1], last[:-1])  # The step after the last one is a first one.
    np.testing.assert_array_equal(steps.observation["x"][first][:, 0], 0)
    assert (steps.reward[first] == 0).all()
    assert (steps.discount[first] == 1).all()


def given_up(steps):
    return int(((steps.step_type[1:] == 0) & (steps.step_type[:-1] != 2)).sum())


def check_error(fault, vectorization):
    with make(fault, vectorization) as env, pytest.raises(EnvironmentFaultError) as info:
        run(env)
    error = info.value
    assert error.environment in range(4)
    assert str(error).startswith(f"environment {error.environment} ")
    assert str(error).endswith(".")
    assert "\n" not in str(error)
    if fault in INVALID:
        assert error.leaf == LEAVES[fault]
        assert error.step == 2
        assert "in step 2 of its episode" in str(error)
    else:
        assert error.leaf is None
    if fault in RAISED:
        assert isinstance(error.__cause__, Exception)
        assert error.step == (0 if fault == "raise_in_reset" else 2)


@pytest.mark.parametrize("fault", [*INVALID, *RAISED])
def test_by_default_it_is_an_error_that_tells_where(fault):
    check_error(fault, "sync")


@pytest.mark.parametrize("fault", SOME)
def test_by_default_it_is_an_error_that_tells_where_in_processes(fault):
    check_error(fault, "async")


def check_restart(fault, vectorization, marker, **keywords):
    """Misbehaves once, and continues."""
    with make(fault, vectorization, marker=str(marker), invalid_steps="drop", max_restarts=2, **keywords) as env:
        steps = run(env)
        processes = getattr(env.gymnasium_env, "processes", [])
    assert marker.exists()
    assert_sound(steps)
    assert given_up(steps) == (0 if fault in ("raise_in_reset", "hang_in_reset") else keywords.get("lost", 1))
    assert not any(process.is_alive() for process in processes)
    return steps


@pytest.mark.parametrize("fault", [*INVALID, "raise_in_step", "raise_in_reset", "strange_error"])
def test_a_fault_that_happens_once_costs_an_episode(fault, tmp_path):
    steps = check_restart(fault, "sync", tmp_path / "marker")
    reference = run(make("", "sync"))
    for number in range(4):  # The others do not notice.
        same = [np.array_equal(a[:, number], b[:, number]) for a, b in zip(
            tf.nest.flatten(steps), tf.nest.flatten(reference), strict=True)]  # fmt: skip
        assert all(same) == (number != 0 or fault == "raise_in_reset")  # It has lost nothing.


@pytest.mark.parametrize("fault", SOME)
def test_a_fault_that_happens_once_costs_an_episode_in_processes(fault, tmp_path):
    check_restart(fault, "async", tmp_path / "marker")


@pytest.mark.parametrize("fault", HARMLESS)
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_what_does_no_harm(fault, vectorization):
    with make(fault, vectorization, num_environments=2) as env:
        steps = run(env, 12)
    assert given_up(steps) == 0
    assert np.count_nonzero(steps.step_type == 2) == {"never_ending": 0, "length_one": 12}.get(fault, 4)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_constructor_that_fails_uses_up_the_restarts(vectorization, tmp_path):
    env = make("raise_in_constructor", vectorization, marker=str(tmp_path / "marker"), max_restarts=3)
    with env, pytest.raises(EnvironmentFaultError, match=r"no licence left.* after it had been recreated 3 times\.$"):
        run(env)


def test_a_reset_that_always_fails():
    class NoStart(Counter):
        def reset(self, **_):
            raise OSError("no display")

    with (
        GymnasiumEnvironment(NoStart, num_environments=2, max_restarts=4) as env,
        pytest.raises(EnvironmentFaultError, match=r"environment 0 raised OSError: no display, in the reset") as info,
    ):
        env.reset_numpy()
    assert isinstance(info.value.__cause__, OSError)


def test_restarts_are_counted_for_each_environment():
    with make("raise_in_step", only={1, 3}, max_restarts=100) as env:
        steps = run(env)
        # Those that are recreated behave.
        np.testing.assert_array_equal(env._recovery.restarts, [0, 1, 0, 1])
    assert given_up(steps) == 2


def test_an_environment_that_only_drops_is_an_error_in_the_end(caplog):
    class AlwaysNan(Counter):
        def step(self, action):
            return super().step(action)[0] * np.nan, 1.0, False, False, {}

    text = "the 100th episode in a row that had to be dropped"
    env = GymnasiumEnvironment(AlwaysNan, num_environments=2, invalid_steps="drop")
    with pytest.raises(EnvironmentFaultError, match=text):
        run(env, 200)
    assert len(caplog.records) >= 2 * 98


def test_equal_seeds_give_equal_runs_with_faults_too():
    runs = []
    for _ in range(2):
        with make("raise_in_step,nan_reward", max_restarts=100, invalid_steps="drop") as env:
            runs.append(run(env, 100))
    tf.nest.map_structure(np.testing.assert_array_equal, *runs)


def test_all_faults_of_this_process_mixed():
    mixed = ",".join([*INVALID, "raise_in_step", "strange_error", "raise_in_reset"])
    with make(mixed, num_environments=3, max_restarts=1000, invalid_steps="drop") as env:
        steps = run(env, 400)
        assert env._recovery.drops.sum() > 30
        assert env._recovery.restarts.sum() > 3
    assert_sound(steps)
    assert given_up(steps) > 40
    assert np.count_nonzero(steps.step_type == 2) > 40


@pytest.mark.parametrize("fault", FATAL)
def test_a_process_that_hangs_or_dies_is_an_error(fault):
    with make(fault, "async", step_time_limit_s=0.5) as env, pytest.raises(EnvironmentFaultError) as info:
        run(env)
    text = {"exit": "exit code 3", "killed": "exit code -9"}.get(fault, r"did not answer for 0.5 s")
    assert text in str(info.value)
    assert info.value.environment in range(4)


@pytest.mark.parametrize("fault", ["hang_in_step", "killed"])
def test_a_process_that_is_lost_is_replaced(fault, tmp_path):
    """Two environments to a process: that of the other one is lost too."""
    with make(fault, "async", marker=str(tmp_path / "marker"), max_restarts=2, step_time_limit_s=0.5) as env:
        steps = run(env)
        assert env._recovery.restarts.sum() == 1
    assert_sound(steps)
    assert given_up(steps) == 2


@pytest.mark.slow
@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in HARMLESS and f != "raise_in_constructor"])
@pytest.mark.parametrize("num_environments", [3, 4])
def test_every_fault_once_in_processes(fault, num_environments, tmp_path):
    marker = tmp_path / "marker"
    keywords = {"invalid_steps": "drop", "max_restarts": 2, "step_time_limit_s": 1.0}
    with make(fault, "async", num_environments, marker=str(marker), **keywords) as env:
        steps = run(env)
        processes = [p for half in getattr(env.gymnasium_env, "halves", [env.gymnasium_env]) for p in half.processes]
    assert marker.exists()
    assert_sound(steps)
    assert not any(process.is_alive() for process in processes)


@pytest.mark.slow
def test_all_faults_mixed_in_processes():
    mixed = ",".join(f for f in FAULTS if f not in HARMLESS and f != "raise_in_constructor")
    with make(mixed, "async", 8, max_restarts=10_000, invalid_steps="drop", step_time_limit_s=0.5) as env:
        steps = run(env, 300)
    assert_sound(steps)
    assert given_up(steps) > 40


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"max_restarts": -1}, "max_restarts is -1, expected an int of at least 0"),
        ({"max_restarts": 1.5}, "max_restarts is 1.5, expected an int"),
        ({"step_time_limit_s": 0}, "step_time_limit_s is 0, expected None or a positive number"),
        ({"step_time_limit_s": "1"}, "step_time_limit_s is '1', expected"),
        ({"invalid_steps": "ignore"}, "invalid_steps is 'ignore', expected error or drop"),
        (
            {"invalid_steps": "drop", "vectorization": "vector_entry_point"},
            "invalid_steps is 'drop', expected 'error' for an env",
        ),
    ],
)
def test_bad_keywords(keywords, text):
    with pytest.raises(ValueError, match=text):
        GymnasiumEnvironment("CartPole-v1", **keywords)


def test_a_vector_environment_of_ones_own_is_checked_too():
    from toy_environments import SameStepCounters

    class Bad(SameStepCounters):
        def step(self, actions):
            observation, reward, *rest = super().step(actions)
            return observation, reward * np.array([1, np.nan]), *rest

    class Raises(SameStepCounters):
        def step(self, actions):
            raise ValueError("no")

    for cls, text in ((Bad, "environment 1 gave an invalid reward, nan"), (Raises, "raised ValueError: no, in its")):
        env = GymnasiumEnvironment(cls((3, 4)))
        env.reset_numpy()
        with pytest.raises(EnvironmentFaultError, match=text):
            env.step_numpy(np.zeros(2, np.int64))


def test_errors_keep_their_attributes_when_pickled():
    import pickle

    error = pickle.loads(pickle.dumps(EnvironmentFaultError("text", 3, 4, "reward")))
    assert (str(error), error.environment, error.step, error.leaf) == ("text", 3, 4, "reward")
    fault = faults.portable(faults.raised(KeyError("x")))
    assert isinstance(pickle.loads(pickle.dumps(fault)).error, KeyError)
    assert "Traceback" in "".join(fault.error.__notes__) or "KeyError" in "".join(fault.error.__notes__)
