"""Atari games as agents are trained in them: ale-py's vectorised environments with their preprocessing.

Frames are 84 x 84 and grey, each the maximum of the last two of the four that an action is repeated for; the last four
are stacked; up to 30 idle actions begin an episode (Mnih et al., 2015, https://doi.org/10.1038/nature14236). Rewards
are not clipped: the agent normalises them, and returns keep the game's units.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.vector import TransformObservation


def make_atari_env(env_id: str, num_environments: int, *, ends_with_life: bool = False, **kwargs: Any) -> VectorEnv:
    """Makes a game.

    Args:
        env_id: `ALE/Name-v5`. Its own settings hold, so that v5 repeats an action with probability 0.25 ("sticky").
        num_environments: Copies, which are stepped in threads, one for each core.
        ends_with_life: Whether an episode ends where a life is lost, which helps learning. It says nothing of returns.
        **kwargs: More arguments of `ale_py.vector_env.AtariVectorEnv`.

    Returns:
        A vector environment of observations uint8 [84, 84, 4], the newest frame last, with next-step autoreset.
    """
    importlib.import_module("ale_py")  # Registers the names.
    env = gym.make_vec(
        env_id,
        num_environments,
        vectorization_mode="vector_entry_point",
        episodic_life=ends_with_life,
        reward_clipping=False,
        **kwargs,
    )
    frames, height, width = cast("tuple[int, int, int]", env.single_observation_space.shape)
    space = gym.spaces.Box(0, 255, (height, width, frames), np.uint8)
    to_channels_last = functools.partial(np.moveaxis, source=1, destination=-1)
    return TransformObservation(env, to_channels_last, batch_space(space, num_environments), space)
