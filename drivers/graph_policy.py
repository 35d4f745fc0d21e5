"""A policy that only TensorFlow can evaluate, called with NumPy arrays: one call of a traced function for each step.

What a call costs beside the policy's own operations decides how fast environments outside of TensorFlow are stepped.
Calling a `tf.function` takes 200 us and more, a graph that calls Python back 150 us for each crossing; running the
function as one operation takes 62 us. Each tensor made of an array takes 13 us, so that small ones are packed into one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.policies import greedy_policy, tf_policy
from tf_agents.trajectories import time_step as ts

from ppo_agent import numpy_nest
from ppo_agent.drivers import host_calls
from ppo_agent.drivers.rollout import NumpyPolicy
from ppo_agent.drivers.seeded_actions import seeded_action

Nest = Any

# Leaves of this many bytes are cheaper to hand over alone than to copy.
_LARGE = 4096
_MOST_STEPS = 2**31


def on_arrays(policy: tf_policy.TFPolicy) -> NumpyPolicy:
    """Returns what acts as the policy does: the twin that `policy.numpy_policy(greedy)` offers, or a `GraphPolicy`.

    A greedy twin emits no policy info, so that there is none for a `GreedyPolicy` that does.
    """
    greedy = isinstance(policy, greedy_policy.GreedyPolicy)
    make = getattr(policy.wrapped_policy if greedy else policy, "numpy_policy", None)
    if make is None or (greedy and tf.nest.flatten(policy.info_spec)):
        return GraphPolicy(policy)
    return make(greedy=greedy) or GraphPolicy(policy)


class GraphPolicy:
    """Acts on NumPy arrays as a TensorFlow policy does; a `NumpyPolicy`.

    Actions are drawn with stateless random numbers, whose seed follows from TensorFlow's when this is made.

    Args:
        policy: With or without state.
    """

    def __init__(self, policy: tf_policy.TFPolicy) -> None:
        self._policy = policy
        # How to pack time steps, and what to call with them, by batch size.
        self._prepared: dict[int, tuple[_Packing, Callable[..., list[tf.Tensor]]]] = {}
        self._flatten_state = numpy_nest.flattener(host_calls.plain(policy.policy_state_spec))
        step_spec = host_calls.plain((policy.action_spec, policy.info_spec, policy.policy_state_spec))
        self._pack_step = numpy_nest.packer(step_spec)
        with tf.init_scope():
            self._seed = int(tf.random.uniform([], maxval=np.iinfo(np.int32).max, dtype=tf.int32))
        self._count = 0

    def refresh(self) -> None:
        """Does nothing: the policy's variables are read at every step."""

    def initial_state(self, batch_size: int) -> Nest:
        """Returns the policy state before the first step, a nest of arrays [batch_size, ...]; () for none."""
        if not tf.nest.flatten(self._policy.policy_state_spec):
            return ()
        return host_calls.to_arrays(host_calls.plain(self._policy.get_initial_state(batch_size)))

    def act(self, time_step: ts.TimeStep, state: Nest) -> tuple[Nest, Nest, Nest]:
        """Returns fresh arrays (action, policy info, next policy state).

        Args:
            time_step: Arrays [B, ...], not to be written to afterwards.
            state: The policy state before the step.
        """
        batch_size = len(time_step.step_type)
        if batch_size not in self._prepared:
            self._prepared[batch_size] = self._prepare(time_step, state)
        packing, call = self._prepared[batch_size]
        packed = packing.pack(time_step, (self._count, self._seed))
        self._count = (self._count + 1) % _MOST_STEPS
        tensors = call([*packed, *self._flatten_state(state)])
        return self._pack_step(iter([tensor.numpy() for tensor in tensors]))

    def get_state(self) -> dict[str, int]:
        """Returns where the random numbers are, for `set_state` of another one."""
        return {"seed": self._seed, "count": self._count}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on with the random numbers from where `get_state` was called."""
        self._seed, self._count = state["seed"], state["count"]

    def _prepare(self, time_step: ts.TimeStep, state: Nest) -> tuple[_Packing, Callable[..., list[tf.Tensor]]]:
        """Traces the policy for a batch size."""
        time_step_spec, state_spec = tf.nest.map_structure(_spec_of, (time_step, state))
        packing = _Packing(time_step_spec)

        def act_in_graph(packed: list[tf.Tensor], state: Nest) -> list[tf.Tensor]:
            time_step, seed = packing.unpack(packed)
            step = seeded_action(self._policy, time_step, state, seed)
            return tf.nest.flatten((step.action, step.info, step.state))

        function = tf.function(act_in_graph, input_signature=(packing.specs, state_spec), autograph=False)
        return packing, _as_one_operation(function.get_concrete_function())


def _as_one_operation(function: Any) -> Callable[..., list[tf.Tensor]]:
    """Returns what calls a concrete function with a flat list of arrays or tensors, at a third of the usual cost."""
    dtypes = [output.dtype for output in function.outputs]
    captured = list(function.captured_inputs)
    # Grappler's rewrites make small graphs slower, by a tenth, and large ones no faster.
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config_proto = config.SerializeToString()

    def call(arguments: list[Any]) -> list[tf.Tensor]:
        return tf.raw_ops.StatefulPartitionedCall(
            args=[*arguments, *captured], Tout=dtypes, f=function, config_proto=config_proto
        )

    return call


class _Packing:
    """Puts a seed and the small leaves of a time step into one vector of bytes; large ones stay as they are.

    Args:
        spec: `TimeStep` of `tf.TensorSpec` [B, ...].

    Attributes:
        specs: Of what `pack` returns.
    """

    def __init__(self, spec: ts.TimeStep) -> None:
        self._spec, leaves = spec, tf.nest.flatten(spec)
        self._flatten = numpy_nest.flattener(spec)
        self._is_small = [_num_bytes(leaf) < _LARGE for leaf in leaves]
        self._parts = [tf.TensorSpec([2], tf.int32), *(leaf for leaf in leaves if _num_bytes(leaf) < _LARGE)]
        self._sizes = [_num_bytes(part) for part in self._parts]
        large = [leaf for leaf in leaves if _num_bytes(leaf) >= _LARGE]
        self.specs = [tf.TensorSpec([sum(self._sizes)], tf.uint8), *large]

    def pack(self, time_step: ts.TimeStep, seed: tuple[int, int]) -> list[np.ndarray]:
        """Returns the vector and the large leaves."""
        leaves, seed_bytes = self._flatten(time_step), np.array(seed, np.int32).tobytes()
        small = [x.tobytes() for x, is_small in zip(leaves, self._is_small, strict=True) if is_small]
        vector = np.frombuffer(b"".join([seed_bytes, *small]), np.uint8)
        return [vector, *(x for x, is_small in zip(leaves, self._is_small, strict=True) if not is_small)]

    def unpack(self, packed: list[tf.Tensor]) -> tuple[ts.TimeStep, tf.Tensor]:
        """Returns the time step and the seed, int32 [2]."""
        parts = tf.split(packed[0], self._sizes)
        seed, *small_leaves = map(_from_bytes, parts, self._parts)
        small, large = iter(small_leaves), iter(packed[1:])
        leaves = [next(small if is_small else large) for is_small in self._is_small]
        return tf.nest.pack_sequence_as(self._spec, leaves), seed


def _spec_of(array: Any) -> tf.TensorSpec:
    return tf.TensorSpec(array.shape, array.dtype)


def _num_bytes(spec: tf.TensorSpec) -> int:
    return int(np.prod(spec.shape)) * spec.dtype.size


def _from_bytes(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Returns the tensor whose bytes these are."""
    if spec.dtype.size == 1:
        values = tf.reshape(values, spec.shape)
        return tf.cast(values, tf.bool) if spec.dtype == tf.bool else tf.bitcast(values, spec.dtype)
    return tf.bitcast(tf.reshape(values, [*spec.shape, spec.dtype.size]), spec.dtype)
