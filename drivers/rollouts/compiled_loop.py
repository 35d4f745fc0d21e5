"""Rollouts compiled as a whole by XLA, for environments in TensorFlow operations.

XLA wants fixed shapes, and a rollout has as many rows as its stop rule asks for: chunks of a fixed number of rows are
compiled, and cut and joined outside XLA. Nearly always one chunk is enough.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.policies import tf_policy
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import compilation_cache, host_calls, program_space, shared_functions
from ppo_agent.common.types import Nest

from ..array_policies.seeded_actions import SeedSequence, seeded_action
from .graph_loop import Chunk, step_in_graph, to_rollout
from .rollout import Rollout, StopRule

_logger = logging.getLogger(__name__)

compilation_cache.start()

_MOST_ROWS = 1024
_MOST_BYTES = 2**26
# Those whose numbers under XLA do not follow tf.random.set_seed.
_UNSEEDED = {
    "Multinomial", "ParameterizedTruncatedNormal", "RandomGamma", "RandomPoisson", "RandomPoissonV2", "RandomShuffle",
    "RandomStandardNormal", "RandomUniform", "RandomUniformInt", "TruncatedNormal",
}  # fmt: skip
# Names of the rollouts that XLA takes: it keeps what it translates for good, so equal ones are asked about once.
_translated: set[str] = set()


class CompiledRollout:
    """Takes rollouts with policy and environment in one compiled loop, or in a plain graph where XLA cannot.

    Actions are drawn with stateless random numbers. Their seed follows from TensorFlow's when this is made, and every
    rollout has its own. A policy that XLA does not take may draw its actions itself.

    Args:
        env: Environment whose attribute `is_compilable` is true.
        policy: Policy.
        counts_boundaries: As in `StopRule`.
        expected_rows: Vector steps that a rollout is likely to take; None if nobody knows.

    Attributes:
        seeds: Of the actions.
    """

    def __init__(
        self,
        env: tf_environment.TFEnvironment,
        policy: tf_policy.TFPolicy,
        counts_boundaries: bool,
        expected_rows: int | None,
    ) -> None:
        self._env, self._policy, self._counts_boundaries = env, policy, counts_boundaries
        self._capacity = _capacity(expected_rows, _row_bytes(env, policy))
        self._chunk: Any = None
        self._refused = False
        self.seeds = SeedSequence()

    def is_possible(self) -> bool:
        """Returns whether XLA takes it; traces and translates on the first call."""
        if self._chunk is None and not self._refused:
            with tf.init_scope():
                reason = self._prepare()
            self._refused = reason is not None
            if reason is not None:
                _logger.warning("The rollout cannot be compiled by XLA (%s); it runs in a plain graph.", reason)
        return not self._refused

    def __call__(self, time_step: ts.TimeStep, policy_state: Nest, stop: StopRule) -> tuple[Rollout, ts.TimeStep, Nest]:
        """As `collect_in_graph`."""
        target, limit = stop.target, stop.maximum_iterations
        seed = self.seeds.next()
        if not self.is_possible():
            act = self._acting(seed, tf.constant(0))
            plain = step_in_graph(self._env, self._policy, act, time_step, policy_state, stop)
            return to_rollout(plain), plain.time_step, plain.policy_state
        first = _cut(self._chunk(seed, time_step, host_calls.plain(policy_state), tf.constant(0), target, limit))
        whole = tf.cond(
            (first.counted >= target) | (first.rows >= limit),
            lambda: tf.nest.map_structure(tf.identity, first),
            lambda: self._continue(first, seed, target, limit),
        )
        return to_rollout(whole), whole.time_step, whole.policy_state

    def _continue(self, so_far: Chunk, seed: tf.Tensor, target: tf.Tensor, limit: tf.Tensor) -> Chunk:
        """Takes further chunks until the stop rule holds."""

        def body(so_far: Chunk) -> tuple[Chunk]:
            rows, counted = so_far.rows, so_far.counted
            chunk = _cut(self._chunk(seed, so_far.time_step, so_far.policy_state, rows, target - counted, limit - rows))
            steps = tf.nest.map_structure(lambda *x: tf.concat(x, axis=1), so_far.steps, chunk.steps)
            return (chunk._replace(steps=steps, rows=rows + chunk.rows, counted=counted + chunk.counted),)

        any_length = tf.nest.map_structure(lambda x: tf.TensorShape([x.shape[0], None, *x.shape[2:]]), so_far.steps)
        shapes = tf.nest.map_structure(lambda x: x.shape, so_far)._replace(steps=any_length)
        (whole,) = tf.while_loop(
            lambda chunk: (chunk.counted < target) & (chunk.rows < limit), body, (so_far,), (shapes,)
        )
        return whole

    def _prepare(self) -> str | None:
        """Traces the chunk; returns why XLA does not take it, None if it does."""
        size, policy = self._env.batch_size, self._policy
        number = tf.TensorSpec([], tf.int32)
        signature = (
            tf.TensorSpec([2], tf.int32),
            host_calls.with_outer_dims(host_calls.plain(self._env.time_step_spec()), size),
            host_calls.with_outer_dims(host_calls.plain(policy.policy_state_spec), size),
            number, number, number,
        )  # fmt: skip
        chunk = shared_functions.SharedProgram(self._chunk_in_graph, signature)
        if unseeded := _unseeded_operations(chunk.graph):
            return f"the policy draws numbers with {unseeded[0]}, which ignores seeds under XLA"
        is_new = chunk.name not in _translated
        if is_new and not program_space.is_left():
            return program_space.FULL
        try:
            if is_new:
                chunk.translate()
        except (tf.errors.OpError, ValueError, TypeError) as error:
            return str(error).strip().splitlines()[0]
        _translated.add(chunk.name)
        self._chunk = chunk
        return None

    def _chunk_in_graph(
        self,
        seed: tf.Tensor,
        time_step: ts.TimeStep,
        policy_state: Nest,
        offset: tf.Tensor,
        target: tf.Tensor,
        limit: tf.Tensor,
    ) -> Chunk:
        act, stop = self._acting(seed, offset), StopRule(target, limit, self._counts_boundaries)
        return step_in_graph(self._env, self._policy, act, time_step, policy_state, stop, self._capacity)

    def _acting(self, seed: tf.Tensor, offset: tf.Tensor) -> Callable[..., policy_step.PolicyStep]:
        """Returns what acts in each row of a part of a rollout that begins after `offset` rows of it."""

        def act(row: tf.Tensor, time_step: ts.TimeStep, policy_state: Nest) -> policy_step.PolicyStep:
            return seeded_action(self._policy, time_step, policy_state, seed + tf.stack([offset + row, 0]))

        return act


def _cut(chunk: Chunk) -> Chunk:
    """Returns the chunk without the rows that were not taken."""
    return chunk._replace(steps=tf.nest.map_structure(lambda x: x[:, : chunk.rows], chunk.steps))


def _unseeded_operations(graph: Any) -> list[str]:
    """Returns the types of a function's operations that are in `_UNSEEDED`."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for inner in definition.library.function for node in inner.node_def)]
    return sorted({node.op for node in nodes} & _UNSEEDED)


def _capacity(expected_rows: int | None, row_bytes: int) -> int:
    """Returns how many rows a chunk has: room for some boundary rows, but not for all memory."""
    wanted = 256 if expected_rows is None else expected_rows + expected_rows // 8 + 8
    return max(1, min(wanted, _MOST_ROWS, _MOST_BYTES // row_bytes))


def _row_bytes(env: tf_environment.TFEnvironment, policy: tf_policy.TFPolicy) -> int:
    leaves = tf.nest.flatten((env.time_step_spec(), policy.policy_step_spec))
    return env.batch_size * sum(int(np.prod(leaf.shape)) * leaf.dtype.size for leaf in leaves)
