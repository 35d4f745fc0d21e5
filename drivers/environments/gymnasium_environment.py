"""Gymnasium environments as a batched TF-Agents `TFEnvironment`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import action_masks, array_nests, host_calls
from ppo_agent.common.checks import check_seed
from ppo_agent.common.configurable import configurable
from ppo_agent.common.nest_checks import NestCheck
from ppo_agent.common.types import Nest

from ..faults.faults import EnvironmentFaultError
from ..faults.recovery import Recovery, check_limits
from ..faults.soundness import SoundnessCheck, leaves_of
from ..vector_envs import autoreset, factory
from . import spaces
from .episode_infos import EpisodeInfos
from .gymnasium_group import GymnasiumGroup


@configurable("ppo_agent.drivers")
class GymnasiumEnvironment(tf_environment.TFEnvironment):
    """`num_environments` copies of a gymnasium environment, stepped together.

    Time steps are batched, [B, ...] with B = `num_environments`. An episode that terminates ends with discount 0; one
    that is truncated keeps discount 1. The step after an episode's last one ignores the action and gives the first
    observation of the next episode with reward 0 and discount 1, whichever way gymnasium's environment resets itself.

    Observations have the dtype of their space, but float32 for every floating-point one. Box actions are clipped to
    the bounds of their space on their way into the environment; discrete actions count from 0 and are shifted by
    `Discrete.start`.

    Where the observation space is `Dict({'observation': ..., 'action_mask': MultiBinary(n)})`, the mask is checked: n
    must be the number of categories of the action (see `ppo_agent.common.action_masks`), and before every step of an
    episode something must be allowed.

    No time step holds a NaN, an infinity, or a category outside its space: an environment that gives one, or one of
    another shape or dtype, raises `EnvironmentFaultError`, or is reset with `invalid_steps='drop'`. An environment that
    raises an error, takes too long or dies is recreated, `max_restarts` times each. The episode that is given up shows
    by a first step that does not follow a last one, and the drivers drop its rows.

    Methods that end in `_numpy` do the same on NumPy arrays, which is faster where no graph is needed. Their arrays
    are not changed by later steps and must not be written to. `groups` are the groups of environments that are stepped
    together, one or two.

    Example:
        with GymnasiumEnvironment("CartPole-v1", num_environments=8, seed=0) as env:
            time_step = env.reset()
            time_step = env.step(tf.zeros([8], tf.int64))
    """

    def __init__(
        self,
        env_name: factory.EnvLike,
        *,
        num_environments: int = 1,
        seed: int | None = None,
        vectorization: str = "auto",
        env_kwargs: Mapping[str, Any] | None = None,
        max_restarts: int = 0,
        step_time_limit_s: float | None = 600.0,
        invalid_steps: str = "error",
    ) -> None:
        """Makes the environments; they are reset on first use.

        Args:
            env_name: A gymnasium id (`module:Name-v0` included), `envpool:` and a name of EnvPool's, a callable that
                returns a `gymnasium.Env`, or, whose size is then used, a ready `gymnasium.vector.VectorEnv` with
                NEXT_STEP or SAME_STEP autoreset or what `envpool.make_gymnasium` returns.
            num_environments: Batch size B.
            seed: Seed of the first reset, not negative; later resets continue the environments' random state. Equal
                seeds and actions give equal trajectories.
            vectorization: 'sync' steps one after the other in this process; 'async' in processes, with shared memory:
                one each, but from 4 environments on (an even number) as many as cores, of which the drivers let one
                half step while the policy acts for the other; 'vector_entry_point' is the environment's own vectorised
                form; 'auto' chooses by the number of environments and the time of a step, see
                `vector_envs.make_vector_env`.
            env_kwargs: Keyword arguments of the environment's constructor.
            max_restarts: How often each environment is recreated after it has raised an error, taken too long or died
                with its process; the next time is an `EnvironmentFaultError`. Not for 'vector_entry_point' and ready
                vector environments, which do not tell whose fault it was.
            step_time_limit_s: Seconds that a process may take for a step or a reset of its environments, after which it
                is killed; None for any time. Only environments in processes can be stopped.
            invalid_steps: 'error', or 'drop' to drop the episode and reset the environment; the hundredth time in a row
                is an error still. 'drop' is for 'sync' and 'async' only.

        Raises:
            TypeError: `env_name` is neither an id nor a callable nor a vector environment.
            ValueError: An argument has a wrong value, the id is unknown, a package that the environment needs is not
                installed (the sentence says what to install), or a space has no tensor form.
        """
        self._seed = check_seed(seed)
        check_limits(max_restarts, step_time_limit_s, invalid_steps)
        drops = invalid_steps == "drop"
        try:
            env = factory.make_vector_env(
                env_name,
                num_environments,
                vectorization,
                env_kwargs,
                step_time_limit_s,
                one_by_one=drops,
                seed=self._seed,
            )
        except SystemExit as error:  # It would end the program without a word.
            raise EnvironmentFaultError(
                f"the environment raised SystemExit: {error}, when it was made.", None, None
            ) from error
        observation_space, action_space = env.single_observation_space, env.single_action_space
        try:
            observation_spec, action_spec = spaces.observation_spec(observation_space), spaces.action_spec(action_space)
            self._mask_layout = _mask_layout(observation_spec, action_spec)
            self._env = autoreset.next_step_autoreset(env)
            if drops:
                _check_can_drop(env)
        except ValueError:
            env.close()
            raise
        super().__init__(ts.time_step_spec(observation_spec), action_spec, batch_size=env.num_envs)
        self._batched_time_step_spec = host_calls.with_outer_dims(self.time_step_spec(), env.num_envs)
        self._gymnasium_env = env
        self._recovery = Recovery(env.num_envs, max_restarts, drops, self._seed)
        self._episode_infos = EpisodeInfos()
        self.groups = self._make_groups()
        self._check_action = NestCheck("action", action_spec)
        self._encode_action = spaces.action_encoder(action_space)
        self._closed = False

    @property
    def gymnasium_env(self) -> Any:
        """The `gymnasium.vector.VectorEnv` underneath; stepping it directly confuses this object."""
        return self._gymnasium_env

    def _make_groups(self) -> tuple[GymnasiumGroup, ...]:
        """One for each half of environments in processes, else a single one."""
        env = self._gymnasium_env
        halves = getattr(env, "halves", None) or (self._env,)
        size = self.batch_size // len(halves)
        decode = spaces.observation_decoder(env.single_observation_space, size)
        encode = spaces.action_encoder(env.single_action_space)
        return tuple(
            GymnasiumGroup(
                half,
                size,
                decode,
                encode,
                functools.partial(_check_mask, self._mask_layout, index * size),
                SoundnessCheck(leaves_of(self.observation_spec()), size),
                self._recovery,
                self._episode_infos,
                ts.TimeStep,
                index * size,
            )
            for index, half in enumerate(halves)
        )

    def reset_numpy(self) -> ts.TimeStep:
        """Starts a new episode in every environment; returns a `TimeStep` of arrays [B, ...]."""
        start, self._seed, size = self._seed, None, self.groups[0].num_environments
        seeds = [None if start is None else start + index * size for index in range(len(self.groups))]
        return array_nests.concatenate([group.reset(seed) for group, seed in zip(self.groups, seeds, strict=True)])

    def current_numpy(self) -> ts.TimeStep:
        """Returns the current `TimeStep` of arrays [B, ...]; resets if nothing was started yet."""
        steps = [group.time_step for group in self.groups if group.time_step is not None]
        return array_nests.concatenate(steps) if steps else self.reset_numpy()

    def step_numpy(self, action: Nest) -> ts.TimeStep:
        """Steps every environment.

        Args:
            action: Nest of arrays [B, ...] like `action_spec()`. Ignored where the current step is an episode's last,
                and everywhere if nothing was started yet.

        Returns:
            The next `TimeStep` of arrays [B, ...].
        """
        first = self.groups[0]
        if first.time_step is None:
            return self.reset_numpy()
        if len(self.groups) == 1:
            return first.step(action)
        for index, group in enumerate(self.groups):
            rows = slice(index * group.num_environments, (index + 1) * group.num_environments)
            group.send(tf.nest.map_structure(lambda x, rows=rows: x[rows], action))
        return array_nests.concatenate([group.receive() for group in self.groups])

    def pop_episode_infos(self) -> dict[str, float]:
        """Returns what the environments said at episodes' ends, such as `info["is_success"]`, since the last call.

        Returns:
            The mean of each number by its name in the infos, over the episodes whose last step had a finite one.
        """
        return self._episode_infos.pop()

    def encode_action(self, action: Nest) -> Nest:
        """Returns what gymnasium's environments take for actions [B, ...] like `action_spec()`."""
        return self._encode_action(action)

    def render(self) -> np.ndarray:
        """Returns the frames of all environments, uint8 [B, height, width, 3].

        Raises:
            ValueError: The environment was not made with `env_kwargs={'render_mode': 'rgb_array'}`.
        """
        mode = self._gymnasium_env.render_mode
        if mode != "rgb_array":
            raise ValueError(f"the environment's render_mode is {mode!r}, expected 'rgb_array' (see env_kwargs).")
        return np.stack(cast("tuple[np.ndarray, ...]", self._env.render()))

    def close(self) -> None:
        """Closes the environments and their processes; may be called again."""
        if not self._closed:
            self._closed = True
            self._env.close()

    def __enter__(self) -> GymnasiumEnvironment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _current_time_step(self) -> ts.TimeStep:
        return host_calls.call_on_host(lambda _: self.current_numpy(), (), self._batched_time_step_spec)

    def _reset(self) -> ts.TimeStep:
        return host_calls.call_on_host(lambda _: self.reset_numpy(), (), self._batched_time_step_spec)

    def _step(self, action: Nest) -> ts.TimeStep:
        self._check_action.check_shapes(action, self.batch_size)
        return host_calls.call_on_host(self._step_checked, action, self._batched_time_step_spec)

    def _step_checked(self, action: Nest) -> ts.TimeStep:
        """`step_numpy` of actions that anybody may have chosen; those of policies need no check."""
        if self.groups[0].time_step is not None:
            _check_values(action, self.action_spec(), self.current_numpy().step_type != ts.StepType.LAST)
        return self.step_numpy(action)


def _check_values(action: Nest, spec: Nest, is_carried_out: np.ndarray) -> None:
    """Raises ValueError for an action that is carried out and that no environment of this spec takes."""
    leaves = zip(array_nests.with_paths({"action": spec}), tf.nest.flatten(action), strict=True)
    for (name, leaf), array in leaves:
        values = np.asarray(array)[is_carried_out]
        if values.dtype.kind not in ("f" if leaf.dtype.is_floating else "iu"):
            continue
        if leaf.dtype.is_floating:
            is_wrong, expected = ~np.isfinite(values), "finite numbers"
        else:
            is_wrong = (values < leaf.minimum) | (values > leaf.maximum)
            expected = f"whole numbers from {np.min(leaf.minimum)} to {np.max(leaf.maximum)}"
        if is_wrong.any():
            raise ValueError(f"{name} is {values[is_wrong].flat[0]}, expected {expected}.")


def _check_can_drop(env: Any) -> None:
    parts = getattr(env, "halves", None) or (env,)
    if not all(hasattr(part, "restart") for part in parts):
        raise ValueError(
            "invalid_steps is 'drop', expected 'error' for an environment that is vectorised by itself, whose "
            "environments cannot be reset one by one: choose vectorization 'sync' or 'async'."
        )


def _check_mask(layout: action_masks.MaskLayout | None, first_index: int, time_step: ts.TimeStep) -> None:
    """Raises ValueError if an environment that waits for an action allows none; the first one's number is given."""
    if layout is None:
        return
    mask = time_step.observation[action_masks.ACTION_MASK]
    rows = layout.rows_without_choice(mask)
    stuck = rows[time_step.step_type[rows] != ts.StepType.LAST]
    if stuck.size:
        raise ValueError(
            f"action_mask of environment {first_index + stuck[0]} allows no action at all, expected at least one "
            f"for every component: {mask[stuck[0]].tolist()}."
        )


def _mask_layout(observation_spec: Nest, action_spec: Nest) -> action_masks.MaskLayout | None:
    """Where the categories of the action stand in the mask that observations hold; None if they hold none.

    Raises:
        ValueError: the mask does not fit the action.
    """
    if not action_masks.has_mask(observation_spec):
        return None
    layout = action_masks.MaskLayout(action_spec)
    layout.check_spec(observation_spec[action_masks.ACTION_MASK])
    return layout
