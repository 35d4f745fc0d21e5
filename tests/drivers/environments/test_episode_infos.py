"""What environments say in their infos at an episode's end."""

import functools

import gymnasium as gym
import numpy as np
import pytest
import toy_environments
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ppo_agent.drivers import GymnasiumEnvironment
from ppo_agent.drivers.environments.episode_infos import EpisodeInfos

LAST = 2


class Talker(toy_environments.Noise):
    """Says things in every step, which follow from the observation."""

    def step(self, action):
        observation, reward, terminated, truncated, _ = super().step(action)
        step = self.step_index
        info = {
            "is_success": step % 2 == 0, "score": np.float32(10 * step + self.episode), "count": np.array(step),
            "text": "seven", "pair": np.ones(2), "unknown": float("nan"), "more": {"inner": 1.0}, 3: 4.0,
        }  # fmt: skip
        if step > 3:
            info["late"] = step
        return observation, reward, terminated, truncated, info


def expected(observations):
    """The means that follow from the last observations of episodes, [n, ...]."""
    steps, episodes = observations[:, 0], observations[:, 1]
    late = {"late": steps[steps > 3].mean()} if (steps > 3).any() else {}
    return {
        "is_success": (steps % 2 == 0).mean(),
        "score": (10 * steps + episodes).mean(),
        "count": steps.mean(),
        **late,
    }


def vector(mode):
    return SyncVectorEnv([Talker] * 4, autoreset_mode=mode)


KINDS = {
    "sync": lambda: GymnasiumEnvironment(Talker, num_environments=3, seed=1, vectorization="sync"),
    "processes": lambda: GymnasiumEnvironment(Talker, num_environments=3, seed=1, vectorization="async"),
    "halves": lambda: GymnasiumEnvironment(Talker, num_environments=4, seed=1, vectorization="async"),
    "next step": lambda: GymnasiumEnvironment(vector(AutoresetMode.NEXT_STEP), seed=1),
    "same step": lambda: GymnasiumEnvironment(vector(AutoresetMode.SAME_STEP), seed=1),
}


@pytest.mark.filterwarnings("ignore:.*resets in the same step")
@pytest.mark.parametrize("kind", KINDS)
def test_means_of_numbers_at_ends(kind, rng):
    with KINDS[kind]() as env:
        env.reset_numpy()
        assert env.pop_episode_infos() == {}
        for steps in (60, 25):
            ends = []
            for _ in range(steps):
                time_step = env.step_numpy(rng.integers(0, 5, env.batch_size))
                ends.append(time_step.observation[time_step.step_type == LAST])
            found, means = env.pop_episode_infos(), expected(np.concatenate(ends))
            assert found.keys() == means.keys()
            for name, mean in means.items():
                np.testing.assert_allclose(found[name], mean, rtol=1e-6, err_msg=name)
        assert env.pop_episode_infos() == {}


def test_dicts_of_an_earlier_gymnasium():
    infos = EpisodeInfos()
    final = np.array([{"a": 1.0}, None, {"a": 4, "b": True}], object)
    infos.add({"final_info": final, "a": np.array([9.0, 9.0, 9.0])}, np.array([0, 2]))
    assert infos.pop() == {"a": 2.5, "b": 1.0}


def test_an_info_that_is_no_dict_is_ignored():
    class Odd(toy_environments.Counter):
        def step(self, action):
            return (*super().step(action)[:4], [1.0])

    with GymnasiumEnvironment(Odd, num_environments=2) as env:
        for _ in range(8):
            env.step_numpy(np.zeros(2, np.int64))
        assert env.pop_episode_infos() == {}


def test_envpool_says_them_too(rng, monkeypatch):
    pytest.importorskip("envpool")
    make = functools.partial(GymnasiumEnvironment, "envpool:HalfCheetah-v5", num_environments=3, seed=1)
    with make(env_kwargs={"max_episode_steps": 5}) as env:
        pool = env.gymnasium_env._pool
        names, received, recv = list(pool._state_keys), [], pool._recv
        monkeypatch.setattr(env.gymnasium_env, "_pool", _Spy(pool, lambda: received.append(recv()) or received[-1]))
        env.reset_numpy()
        for _ in range(5):
            time_step = env.step_numpy(rng.uniform(-1, 1, (3, 6)).astype(np.float32))
        assert (time_step.step_type == LAST).all()
        found = env.pop_episode_infos()
        assert "x_position" in found
        assert "env_id" not in found
        for name, mean in found.items():
            np.testing.assert_allclose(mean, received[-1][names.index(f"info:{name}")].mean(), rtol=1e-6)


class _Spy:
    def __init__(self, pool, recv):
        self._inner, self._recv = pool, recv

    def __getattr__(self, name):
        return getattr(self._inner, name)


def test_gymnasium_makes_them_in_its_own_way():
    env = gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync")
    with GymnasiumEnvironment(env, seed=1) as wrapped:
        for _ in range(202):
            wrapped.step_numpy(np.zeros((2, 1), np.float32))
        assert wrapped.pop_episode_infos() == {}
