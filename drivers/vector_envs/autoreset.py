"""Presents a vector environment that resets in the same step as one that resets in the next step.

TF-Agents' trajectories need the final observation of an episode and, one step later, the first of the next episode:
gymnasium's NEXT_STEP. A SAME_STEP environment hands over both at once, and the next call already steps the new
episode, while the caller, who has just seen the final observation, cannot yet have chosen an action for it. As all
environments are stepped together, this one is stepped too, and then reset once more (`options['reset_mask']`), so that
the new episode starts unspoilt. Nothing is stepped when every environment waits for its reset.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ppo_agent.common import array_nests
from ppo_agent.common.types import Nest

from ..faults.leaf_checks import as_leaf

# The key of infos that holds the environments whose episode was lost because another one was reset, bool [B].
LOST = "ppo_agent_lost_episodes"

StepResult = tuple[Nest, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


def next_step_autoreset(env: VectorEnv) -> VectorEnv | SameStepAdapter:
    """Returns `env`, or an adapter with its `reset`, `step`, `render` and `close`, with next-step autoreset.

    Raises:
        ValueError: The environment does not say how it resets, or does not reset by itself.
    """
    # gymnasium 1.3 shares the metadata of all vector environments of a class: their attribute is their own.
    mode = getattr(env.unwrapped, "autoreset_mode", env.metadata.get("autoreset_mode"))
    if mode == AutoresetMode.NEXT_STEP:
        return env
    if mode == AutoresetMode.SAME_STEP:
        return SameStepAdapter(env)
    raise ValueError(
        f"the vector environment's metadata['autoreset_mode'] is {mode}, expected AutoresetMode.NEXT_STEP or SAME_STEP."
    )


def take_spaces(env: Any, size: int, observation_space: gym.Space, action_space: gym.Space, like: Any) -> None:
    """Gives a vector environment with next-step autoreset its spaces, and metadata and rendering of another one."""
    env.num_envs = size
    env.single_observation_space, env.single_action_space = observation_space, action_space
    env.observation_space, env.action_space = batch_space(observation_space, size), batch_space(action_space, size)
    env.metadata = {**like.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
    env.render_mode, env.autoreset_mode = like.render_mode, AutoresetMode.NEXT_STEP


class SameStepAdapter:
    """A SAME_STEP vector environment with next-step semantics.

    An environment that ignores `options['reset_mask']` cannot be reset alone: its episodes then start with the
    observation after the ignored action, and the reward of that action is lost. That it does is seen where `reset`
    takes no options, or else when the environments that were not to be reset change; their episodes are lost then
    (`LOST`). A warning tells either way.
    """

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self._ended = np.zeros(env.num_envs, bool)
        self._first_observation: Nest = None
        self._resets_by_mask = True
        if not _takes_options(env.reset):
            self._do_without_masks()

    def _do_without_masks(self) -> None:
        self._resets_by_mask = False
        warnings.warn(
            f"{self._env} resets in the same step and ignores options['reset_mask']: the first step of each episode is "
            "taken with the previous episode's last action and its reward is lost; use AutoresetMode.NEXT_STEP.",
            stacklevel=3,
        )

    def reset(self, *, seed: int | None = None) -> tuple[Nest, dict[str, Any]]:
        """Resets all environments; as `VectorEnv.reset`."""
        self._ended[:] = False
        return self._env.reset(seed=seed)

    def step(self, actions: Nest) -> StepResult:
        """Steps all environments; those that ended before are reset and ignore their action."""
        if self._ended.all():
            self._ended[:] = False
            nothing = np.zeros_like(self._ended)
            return self._first_observation, nothing.astype(np.float32), nothing, nothing, {}
        result = self._env.step(actions)
        if self._ended.any():
            result = self._restart(result)
        observation, _, terminated, truncated, info = result
        self._ended = np.logical_or(terminated, truncated)
        if self._ended.any():
            self._first_observation = observation
            observation = _put_rows(observation, info["final_obs"], self._ended)
        return observation, *result[1:]

    def render(self) -> Any:
        """As `VectorEnv.render`."""
        return self._env.render()

    def close(self) -> None:
        """As `VectorEnv.close`."""
        self._env.close()

    def _restart(self, result: StepResult) -> StepResult:
        """Takes back the step of the environments that had ended."""
        observation, reward, terminated, truncated, info = result
        observation, running = _copy(observation), ~self._ended
        if self._resets_by_mask:
            first, _ = self._env.reset(options={"reset_mask": self._ended.copy()})
            in_episode = running & ~np.logical_or(terminated, truncated)
            if _any_differs(observation, first, in_episode):
                self._do_without_masks()
                observation, running, info = _copy(first), running & ~in_episode, {**info, LOST: in_episode}
            else:
                observation = _put_rows(observation, first, self._ended)
        return observation, reward * running, terminated & running, truncated & running, info


def _takes_options(reset: Callable[..., Any]) -> bool:
    parameters = inspect.signature(reset).parameters.values()
    return any(p.name == "options" or p.kind == p.VAR_KEYWORD for p in parameters)


def _any_differs(before: Nest, after: Nest, mask: np.ndarray) -> bool:
    """Returns whether the rows in `mask` of two nests of arrays [B, ...] are not equal."""
    pairs = zip(array_nests.flatten(before), array_nests.flatten(after), strict=True)
    return bool(mask.any()) and not all(
        np.array_equal(old[mask], np.asarray(new)[mask], equal_nan=old.dtype.kind == "f") for old, new in pairs
    )


def _copy(observation: Nest) -> Nest:
    return array_nests.map_structure(np.array, observation)


def _put_rows(observation: Nest, rows: Any, mask: np.ndarray) -> Nest:
    """Returns a copy of an observation [B, ...] with rows in `mask` [B] taken from `rows`.

    These are the same nest, or an object array [B] of single observations, which is how gymnasium gives `final_obs`.
    """
    result = _copy(observation)
    for index in np.flatnonzero(mask):
        row = rows[index] if _is_object_array(rows) else array_nests.map_structure(lambda leaf, i=index: leaf[i], rows)
        for target, value in zip(array_nests.flatten(result), array_nests.flatten(row), strict=True):
            target[index] = as_leaf(value, target.shape[1:], target.dtype, "final observation")
    return result


def _is_object_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == object
