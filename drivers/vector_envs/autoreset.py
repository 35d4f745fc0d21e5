"""Presents a vector environment that resets in the same step as one that resets in the next step.

TF-Agents' trajectories need the final observation of an episode and, one step later, the first of the next episode:
gymnasium's NEXT_STEP. A SAME_STEP environment hands over both at once, and the next call already steps the new
episode, while the caller, who has just seen the final observation, cannot yet have chosen an action for it. As all
environments are stepped together, this one is stepped too, and then reset once more (`options['reset_mask']`), so that
the new episode starts unspoilt. Nothing is stepped when every environment waits for its reset.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import tensorflow as tf
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from ppo_agent.common.types import Nest

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


class SameStepAdapter:
    """A SAME_STEP vector environment with next-step semantics.

    An environment that ignores `options['reset_mask']` cannot be reset alone: its episodes then start with the
    observation after the ignored action, and the reward of that action is lost. A warning tells.
    """

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self._ended = np.zeros(env.num_envs, bool)
        self._first_observation: Nest = None
        self._resets_by_mask = _resets_by_mask(env)
        if not self._resets_by_mask:
            warnings.warn(
                f"{env} resets in the same step and ignores options['reset_mask']: the first step of each episode is "
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
        observation = _copy(observation)
        if self._resets_by_mask:
            first, _ = self._env.reset(options={"reset_mask": self._ended.copy()})
            observation = _put_rows(observation, first, self._ended)
        running = ~self._ended
        return observation, reward * running, terminated & running, truncated & running, info


def _resets_by_mask(env: VectorEnv) -> bool:
    """Returns whether `reset(options={'reset_mask': mask})` leaves the other environments alone."""
    if isinstance(env.unwrapped, (SyncVectorEnv, AsyncVectorEnv)) or env.num_envs == 1:
        return True
    mask = np.arange(env.num_envs) == 0
    try:
        env.reset()
        before = _copy(env.step(env.action_space.sample())[0])
        after, _ = env.reset(options={"reset_mask": mask})
    except Exception:  # Whatever it raises, it does not know the option.
        return False
    pairs = zip(tf.nest.flatten(before), tf.nest.flatten(after), strict=True)
    return all(np.array_equal(np.asarray(old)[1:], np.asarray(new)[1:]) for old, new in pairs)


def _copy(observation: Nest) -> Nest:
    return tf.nest.map_structure(np.array, observation)


def _put_rows(observation: Nest, rows: Any, mask: np.ndarray) -> Nest:
    """Returns a copy of observation [B, ...] whose rows in `mask` are taken from `rows`.

    Args:
        observation: Nest of arrays [B, ...].
        rows: The same nest, or an object array [B] of single observations, which is how gymnasium gives `final_obs`.
        mask: Which rows to take, [B].
    """
    result = _copy(observation)
    for index in np.flatnonzero(mask):
        row = rows[index] if _is_object_array(rows) else tf.nest.map_structure(lambda leaf, i=index: leaf[i], rows)
        for target, value in zip(tf.nest.flatten(result), tf.nest.flatten(row), strict=True):
            target[index] = value
    return result


def _is_object_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == object
