"""Atari games with their preprocessing."""

import numpy as np
import pytest
import tensorflow as tf

from ppo_agent.drivers import GymnasiumEnvironment
from ppo_agent.drivers.vector_envs.atari import make_atari_env
from ppo_agent.training.named_environments import make_environment

pytest.importorskip("ale_py")


def play(env: GymnasiumEnvironment, num_steps: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    highest = int(env.action_spec().maximum)
    return [
        env.reset_numpy(),
        *(env.step_numpy(rng.integers(0, highest + 1, env.batch_size)) for _ in range(num_steps)),
    ]


def test_frames_are_stacked_newest_last() -> None:
    with make_environment("ALE/Pong-v5", num_environments=2, seed=3) as env:
        spec = env.observation_spec()
        assert (spec.shape, spec.dtype) == ((84, 84, 4), tf.uint8)
        before, after = play(env, 20, seed=0)[-2:]
    assert np.array_equal(after.observation[..., :3], before.observation[..., 1:])
    assert not np.array_equal(after.observation[..., 3], before.observation[..., 3])


def test_equal_seeds_give_equal_episodes() -> None:
    def rows() -> list[np.ndarray]:
        with make_environment("ALE/Pong-v5", num_environments=2, seed=5) as env:
            return [step.observation for step in play(env, 30, seed=1)]

    assert all(np.array_equal(a, b) for a, b in zip(rows(), rows(), strict=True))


def test_an_agent_in_training_sees_episodes_end_with_a_life() -> None:
    def ends(is_training: bool) -> int:
        with make_environment("ALE/Breakout-v5", num_environments=4, seed=0, is_training=is_training) as env:
            return sum(int(step.is_last().sum()) for step in play(env, 150, seed=2))

    assert ends(is_training=True) > 2 * ends(is_training=False)


def test_rewards_keep_the_games_units() -> None:
    with make_environment("ALE/MsPacman-v5", num_environments=2, seed=0, is_training=True) as env:
        rewards = np.concatenate([step.reward for step in play(env, 150, seed=2)])
    assert rewards.max() >= 10


def test_environments_step_in_threads_only() -> None:
    with pytest.raises(ValueError, match="vectorization is async, expected auto"):
        make_environment("ALE/Pong-v5", vectorization="async")


def test_an_unknown_game_is_refused() -> None:
    with pytest.raises(ValueError, match="env_name is 'ALE/Pung-v5', expected an environment that gymnasium knows"):
        make_environment("ALE/Pung-v5")


def test_observations_of_the_vector_environment_fit_its_space() -> None:
    env = make_atari_env("ALE/Pong-v5", 3)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(np.ascontiguousarray(observation))
    env.close()
