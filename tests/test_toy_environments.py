"""The tasks that need memory or masks are what they claim to be."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from toy_environments import Doors, RecallCue

NAMES = ("RecallCue-v0", "MaskedDoors-v0", "UnmaskedDoors-v0")


@pytest.mark.parametrize("name", NAMES)
def test_gymnasium_accepts_them_by_name(name: str) -> None:
    check_env(gym.make(f"toy_environments:{name}").unwrapped, skip_render_check=True)


def _recall_episode(env: RecallCue, seed: int, remember: bool) -> tuple[float, int]:
    observation, _ = env.reset(seed=seed)
    cue, steps, ended = int(observation[: env.num_cues].argmax()), 0, False
    while not ended:
        shown = observation
        observation, reward, ended, truncated, _ = env.step(cue if remember else int(shown[: env.num_cues].argmax()))
        assert not truncated
        steps += 1
    np.testing.assert_array_equal(shown, [0, 0, 0, 0, 0, 0, 1])
    return reward, steps


def test_the_cue_answers_the_question_and_nothing_else_does() -> None:
    env = RecallCue(delay=5)
    remembered = [_recall_episode(env, seed, True) for seed in range(20)]
    assert remembered == [(1.0, 7)] * 20
    forgotten = [_recall_episode(env, seed, False)[0] for seed in range(400)]
    np.testing.assert_allclose(np.mean(forgotten), 1 / 4, atol=0.08)


@pytest.mark.parametrize("masked", [True, False])
def test_right_keys_open_the_doors_and_others_do_not(masked: bool) -> None:
    env = Doors(masked, num_doors=3, num_keys=20, at_hand=4)
    env.reset(seed=0)
    rewards = []
    for key in env.right_keys:
        at_hand = np.flatnonzero(env.mask)
        assert key in at_hand
        assert len(at_hand) <= 4
        for choice in (next(k for k in at_hand if k != key), key):
            _, reward, terminated, truncated, _ = env.step(choice)
            rewards.append(reward)
        assert not truncated
    assert rewards == [0.0, 1.0] * 3
    assert terminated
    env.reset()
    assert env.step(int(np.flatnonzero(env.mask == 0)[0]))[1] == -0.1


def test_doors_that_stay_shut_end_the_episode_by_truncation() -> None:
    env = Doors(num_doors=2)
    env.reset(seed=0)
    ends = [env.step(int(np.flatnonzero(env.mask == 0)[0]))[2:4] for _ in range(8)]
    assert ends == [(False, False)] * 7 + [(False, True)]


def test_both_kinds_of_doors_show_the_same() -> None:
    masked, unmasked = Doors(True), Doors(False)
    observation, numbers = masked.reset(seed=3)[0], unmasked.reset(seed=3)[0]
    np.testing.assert_array_equal(np.concatenate([observation["observation"], observation["action_mask"]]), numbers)
