"""Gymnasium environments as a batched TF-Agents `TFEnvironment`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from tf_agents.environments import tf_environment
from tf_agents.trajectories import time_step as ts

from ppo_agent import action_masks
from ppo_agent.drivers import autoreset, host_calls, spaces, vector_envs

Nest = Any

_FIRST, _MID, _LAST = (np.int32(x) for x in (ts.StepType.FIRST, ts.StepType.MID, ts.StepType.LAST))


class GymnasiumEnvironment(tf_environment.TFEnvironment):
    """`num_environments` copies of a gymnasium environment, stepped together.

    Time steps are batched, [B, ...] with B = `num_environments`. An episode that terminates ends with discount 0; one
    that is truncated keeps discount 1. The step after an episode's last one ignores the action and gives the first
    observation of the next episode with reward 0 and discount 1, whichever way gymnasium's environment resets itself.

    Observations have the dtype of their space, but float32 for every floating-point one. Box actions are clipped to
    the bounds of their space on their way into the environment; discrete actions count from 0 and are shifted by
    `Discrete.start`.

    Where the observation space is `Dict({'observation': ..., 'action_mask': MultiBinary(n)})`, the mask is checked: n
    must be the number of categories of the action (see `ppo_agent.action_masks`), and before every step of an episode
    something must be allowed.

    Methods that end in `_numpy` do the same on NumPy arrays, which is faster where no graph is needed. Their arrays
    are not changed by later steps and must not be written to.

    Example:
        with GymnasiumEnvironment("CartPole-v1", num_environments=8, seed=0) as env:
            time_step = env.reset()
            time_step = env.step(tf.zeros([8], tf.int64))
    """

    def __init__(
        self,
        env_name: vector_envs.EnvLike,
        *,
        num_environments: int = 1,
        seed: int | None = None,
        vectorization: str = "auto",
        env_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Makes the environments; they are reset on first use.

        Args:
            env_name: A gymnasium id (`module:Name-v0` included), a callable that returns a `gymnasium.Env`, or a ready
                `gymnasium.vector.VectorEnv` with NEXT_STEP or SAME_STEP autoreset, whose size is then used.
            num_environments: Batch size B.
            seed: Seed of the first reset, not negative; later resets continue the environments' random state. Equal
                seeds and actions give equal trajectories.
            vectorization: 'sync' steps one after the other in this process; 'async' one process each, with shared
                memory; 'vector_entry_point' is the environment's own vectorised form; 'auto' takes that form from 4
                environments on if the registry has one with the same spaces, else 'sync'.
            env_kwargs: Keyword arguments of the environment's constructor.

        Raises:
            TypeError: `env_name` is neither an id nor a callable nor a vector environment.
            ValueError: An argument has a wrong value, the id is unknown, a package that the environment needs is not
                installed (the sentence says what to install), or a space has no tensor form.
        """
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0):
            raise ValueError(f"seed is {seed!r}, expected None or an int of at least 0.")
        env = vector_envs.make_vector_env(env_name, num_environments, vectorization, env_kwargs)
        observation_space, action_space = env.single_observation_space, env.single_action_space
        try:
            observation_spec, action_spec = spaces.observation_spec(observation_space), spaces.action_spec(action_space)
            self._mask_layout = _mask_layout(observation_spec, action_spec)
            self._env = autoreset.next_step_autoreset(env)
        except ValueError:
            env.close()
            raise
        super().__init__(ts.time_step_spec(observation_spec), action_spec, batch_size=env.num_envs)
        self._batched_time_step_spec = host_calls.with_outer_dims(self.time_step_spec(), env.num_envs)
        self._decode_observation = spaces.observation_decoder(observation_space)
        self._encode_action = spaces.action_encoder(action_space)
        self._gymnasium_env = env
        self._seed = None if seed is None else int(seed)
        self._time_step: ts.TimeStep | None = None
        self._any_ended = False
        self._all_mid, self._all_one = np.full(env.num_envs, _MID), np.ones(env.num_envs, np.float32)
        for shared in (self._all_mid, self._all_one):
            shared.setflags(write=False)
        self._closed = False

    @property
    def gymnasium_env(self) -> Any:
        """The `gymnasium.vector.VectorEnv` underneath; stepping it directly confuses this object."""
        return self._gymnasium_env

    def reset_numpy(self) -> ts.TimeStep:
        """Starts a new episode in every environment; returns a `TimeStep` of arrays [B, ...]."""
        observation, _ = self._env.reset(seed=self._seed)
        self._seed = None
        size = self.batch_size
        self._any_ended = False
        self._time_step = ts.TimeStep(
            np.full(size, _FIRST), np.zeros(size, np.float32), np.ones(size, np.float32),
            self._decode_observation(observation),
        )  # fmt: skip
        self._check_mask(self._time_step)
        return self._time_step

    def current_numpy(self) -> ts.TimeStep:
        """Returns the current `TimeStep` of arrays [B, ...]; resets if nothing was started yet."""
        return self.reset_numpy() if self._time_step is None else self._time_step

    def step_numpy(self, action: Nest) -> ts.TimeStep:
        """Steps every environment.

        Args:
            action: Nest of arrays [B, ...] like `action_spec()`. Ignored where the current step is an episode's last,
                and everywhere if nothing was started yet.

        Returns:
            The next `TimeStep` of arrays [B, ...].
        """
        if self._time_step is None:
            return self.reset_numpy()
        observation, reward, terminated, truncated, _ = self._env.step(self._encode_action(action))
        ended, reward = np.logical_or(terminated, truncated), np.array(reward, np.float32)
        any_ends = bool(np.count_nonzero(ended))
        if any_ends or self._any_ended:
            step_type = np.where(ended, _LAST, _MID)
            discount = np.subtract(1.0, terminated, dtype=np.float32)
            first = self._time_step.step_type == _LAST
            step_type[first], discount[first], reward[first] = _FIRST, 1.0, 0.0
        else:  # The usual step costs little: it shares these arrays.
            step_type, discount = self._all_mid, self._all_one
        self._any_ended = any_ends
        self._time_step = ts.TimeStep(step_type, reward, discount, self._decode_observation(observation))
        self._check_mask(self._time_step)
        return self._time_step

    def _check_mask(self, time_step: ts.TimeStep) -> None:
        """Raises ValueError if an environment that waits for an action allows none."""
        if self._mask_layout is None:
            return
        rows = self._mask_layout.rows_without_choice(time_step.observation[action_masks.ACTION_MASK])
        stuck = rows[time_step.step_type[rows] != _LAST]
        if stuck.size:
            raise ValueError(
                f"action_mask of environment {stuck[0]} allows no action at all, expected at least one for every "
                f"component: {time_step.observation[action_masks.ACTION_MASK][stuck[0]].tolist()}."
            )

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
        return host_calls.call_on_host(self.step_numpy, action, self._batched_time_step_spec)


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
