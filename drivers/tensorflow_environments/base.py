"""Episodes, time limits and random starts for environments whose dynamics are TensorFlow operations."""

from __future__ import annotations

import abc
from typing import Any

import gymnasium as gym
import numpy as np
import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import host_calls
from ppo_agent.common.checks import check_int, check_seed
from ppo_agent.common.limits import LARGEST_INT64
from ppo_agent.common.own_functions import own_function
from ppo_agent.common.seeds import draw_seed
from ppo_agent.common.types import Nest, Tensor

from ..environments import spaces

_FIRST, _MID, _LAST = (int(x) for x in (ts.StepType.FIRST, ts.StepType.MID, ts.StepType.LAST))
_MANTISSA_BITS = 53  # of float64


class TensorFlowEnvironment(tf_environment.TFEnvironment, tf.Module, metaclass=abc.ABCMeta):
    """`num_environments` copies of an environment in TensorFlow operations, stepped together.

    A subclass gives the spaces and three functions of tensors: `_initial_state`, `_advance` and `_observe`. It must use
    operations that XLA compiles; the drivers of this package then compile whole rollouts.

    Time steps are batched, [B, ...] with B = `num_environments`. An episode that terminates ends with discount 0; one
    that reaches the time limit keeps discount 1. The step after an episode's last one ignores the action and gives the
    first observation of the next episode with reward 0 and discount 1.

    All state is in `tf.Variable`s: `tf.train.Checkpoint(env=env)` saves it, random numbers included.

    Attributes:
        is_compilable: Tells drivers that XLA can compile `step`.
        max_episode_steps: The time limit.
        observation_space: Of one environment.
        action_space: Of one environment.
    """

    is_compilable = True
    max_episode_steps: int
    observation_space: gym.Space
    action_space: gym.Space

    def __init__(self, *, num_environments: int = 1, seed: int | None = None) -> None:
        """Creates the variables; the first episodes begin on first use.

        Args:
            num_environments: Batch size B.
            seed: Of all episodes' starts, not negative; equal seeds and actions give equal trajectories. None draws
                one with TensorFlow's global generator.

        Raises:
            ValueError: An argument has a wrong value.
        """
        num_environments = check_int("num_environments", num_environments)
        seed = check_seed(seed)
        tf.Module.__init__(self, name=type(self).__name__)
        time_step_spec = ts.time_step_spec(spaces.observation_spec(self.observation_space))
        action_spec = spaces.action_spec(self.action_space)
        super().__init__(time_step_spec, action_spec, batch_size=num_environments)
        self._create_variables(seed)
        self._reset_compiled = own_function(self._reset_in_graph)
        self._current_compiled = own_function(self._current_in_graph)
        signature = [host_calls.with_outer_dims(action_spec, num_environments)]
        self._step_compiled = own_function(self._step_in_graph, input_signature=signature)

    @abc.abstractmethod
    def _initial_state(self, seed: Tensor) -> Nest:
        """Returns random first states of B episodes, nest of tensors [B, ...].

        Args:
            seed: int64 [2], for the functions `tf.random.stateless_*`.
        """

    @abc.abstractmethod
    def _advance(self, state: Nest, action: Nest) -> tuple[Nest, Tensor, Tensor]:
        """Returns (next state, reward [B], whether the episode terminates, bool [B]).

        Args:
            state: Nest of tensors [B, ...] as `_initial_state` makes it.
            action: Nest of tensors [B, ...] like `action_spec()`.
        """

    @abc.abstractmethod
    def _observe(self, state: Nest) -> Nest:
        """Returns the observation of a state, nest of tensors [B, ...] like `observation_spec()`."""

    def time_step_spec(self) -> ts.TimeStep:
        """Returns the specs of time steps without batch dimension."""
        return host_calls.plain(self._time_step_spec)

    def action_spec(self) -> Nest:
        """Returns the specs of actions without batch dimension."""
        return host_calls.plain(self._action_spec)

    def close(self) -> None:
        """Does nothing: there is nothing to give back, but programs close environments of all kinds."""

    def _create_variables(self, seed: int | None) -> None:
        size = self._batch_size
        if seed is None:
            seed = draw_seed(LARGEST_INT64)
        self._seed = _variable(np.int64(seed % 2**63), "seed")
        self._draws = _variable(np.int64(0), "draws")
        # What is not LAST would be stepped on, and a negative number of steps says that nothing was started.
        self._step_type = _variable(np.full(size, _LAST, np.int32), "step_type")
        self._elapsed = _variable(np.full(size, -1, np.int32), "elapsed_steps")
        self._reward = _variable(np.zeros(size, np.float32), "reward")
        self._discount = _variable(np.ones(size, np.float32), "discount")
        state = self._initial_state(tf.zeros([2], tf.int64))
        self._state = tf.nest.map_structure(lambda x: _variable(tf.zeros_like(x), "state"), state)

    def _reset(self) -> ts.TimeStep:
        return self._reset_compiled()

    def _current_time_step(self) -> ts.TimeStep:
        return self._current_compiled()

    def _step(self, action: Nest) -> ts.TimeStep:
        return self._step_compiled(tf.nest.map_structure(_as_spec, action, self.action_spec()))

    def _reset_in_graph(self) -> ts.TimeStep:
        size = self._batch_size
        return self._become(
            self._initial_state(self._next_seed()),
            tf.zeros(size, tf.int32),
            tf.fill([size], _FIRST),
            tf.zeros(size),
            tf.ones(size),
        )

    def _current_in_graph(self) -> ts.TimeStep:
        def current() -> ts.TimeStep:
            fields = (self._step_type, self._reward, self._discount, self._state)
            step_type, reward, discount, state = tf.nest.map_structure(tf.identity, fields)
            return ts.TimeStep(step_type, reward, discount, self._observe(state))

        return tf.cond(self._elapsed[0] < 0, self._reset_in_graph, current)

    def _step_in_graph(self, action: Nest) -> ts.TimeStep:
        begins = tf.equal(self._step_type, _LAST)
        state = tf.nest.map_structure(tf.identity, self._state)
        state, reward, terminated = self._advance(state, action)
        elapsed = tf.where(begins, 0, self._elapsed + 1)
        ended = terminated | (elapsed >= self.max_episode_steps)
        return self._become(
            self._replace(begins, state),
            elapsed,
            tf.where(begins, _FIRST, tf.where(ended, _LAST, _MID)),
            tf.where(begins, 0.0, tf.cast(reward, tf.float32)),
            tf.where(terminated & ~begins, 0.0, 1.0),
        )

    def _replace(self, begins: tf.Tensor, state: Nest) -> Nest:
        """Returns the state with first states where episodes begin; draws random numbers only if one does."""
        seed = self._next_seed()

        def replace() -> Nest:
            first = self._initial_state(seed)
            return tf.nest.map_structure(lambda new, old: tf.where(_like(begins, old), new, old), first, state)

        return tf.cond(tf.reduce_any(begins), replace, lambda: tf.nest.map_structure(tf.identity, state))

    def _next_seed(self) -> tf.Tensor:
        """Returns a seed that was not used before, int64 [2]."""
        return tf.stack([self._seed, self._draws.assign_add(1)])

    def _become(
        self, state: Nest, elapsed: tf.Tensor, step_type: tf.Tensor, reward: tf.Tensor, discount: tf.Tensor
    ) -> ts.TimeStep:
        """Stores everything and returns it as a time step."""
        tf.nest.map_structure(lambda variable, value: variable.assign(value), self._state, state)
        self._elapsed.assign(elapsed)
        self._step_type.assign(step_type)
        self._reward.assign(reward)
        self._discount.assign(discount)
        return ts.TimeStep(step_type, reward, discount, self._observe(state))

    def uniform(self, seed: Tensor, low: Any, high: Any) -> tf.Tensor:
        """Returns numbers from a box, for `_initial_state`.

        Args:
            seed: int64 [2].
            low: Lower bound of each component, [n].
            high: Upper bound, [n].

        Returns:
            float64 [B, n].
        """
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        # Floating-point numbers from XLA are others than those from a graph; integers are the same.
        bits = tf.random.stateless_uniform(
            [self._batch_size, low.size], seed, minval=None, maxval=None, dtype=tf.uint64, alg="philox"
        )
        bits = tf.bitwise.right_shift(bits, tf.constant(64 - _MANTISSA_BITS, tf.uint64))
        return low + (high - low) * (tf.cast(bits, tf.float64) * 2.0**-_MANTISSA_BITS)


def _variable(value: Any, name: str) -> tf.Variable:
    return tf.Variable(value, trainable=False, name=name)


def _as_spec(action: Any, spec: tf.TypeSpec) -> tf.Tensor:
    action = tf.convert_to_tensor(action)
    if spec.dtype.is_integer and not action.dtype.is_integer:
        raise ValueError(f"action has dtype {action.dtype.name}, expected whole numbers.")
    return tf.cast(action, spec.dtype)


def _like(mask: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns the mask [B] with as many dimensions as the values [B, ...]."""
    return tf.reshape(mask, [-1] + [1] * (values.shape.rank - 1))
