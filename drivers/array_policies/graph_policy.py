"""A policy of which only TensorFlow knows what it computes, called with NumPy arrays at each step.

If its graph holds only operations that NumPy has too, NumPy carries them out, see `numpy_program`. Else each step is
one call of a traced function, and what a call costs beside the policy's own operations decides how fast environments
outside of TensorFlow are stepped. Calling a `tf.function` takes 200 us and more, a graph that calls Python back 150 us
for each crossing; running the function as one operation takes 62 us. Each tensor made of an array takes 13 us, so that
small ones are packed into one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.policies import greedy_policy, tf_policy
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import array_nests, host_calls
from ppo_agent.common.seeds import draw_seed
from ppo_agent.common.types import Nest

from ..rollouts.rollout import NumpyPolicy
from .numpy_program import NumpyProgram, numpy_program
from .seeded_actions import seeded_action

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

    Actions are drawn with random numbers of its own, whose seed follows from TensorFlow's when this is made.

    Args:
        policy: With or without state.
        in_numpy: Whether the policy's operations may be carried out in NumPy.
    """

    def __init__(self, policy: tf_policy.TFPolicy, in_numpy: bool = True) -> None:
        self._policy, self._in_numpy = policy, in_numpy
        self._prepared: dict[int, NumpyProgram | _Graph] = {}  # By batch size.
        self._noise: dict[str, Any] = {}
        time_step_spec, state_spec = host_calls.plain((policy.time_step_spec, policy.policy_state_spec))
        self._flatten_time_step, self._flatten_state = map(array_nests.flattener, (time_step_spec, state_spec))
        step_spec = host_calls.plain((policy.action_spec, policy.info_spec, policy.policy_state_spec))
        self._pack_step = array_nests.packer(step_spec)
        self._seed = draw_seed()
        self._count = 0

    def refresh(self) -> None:
        """Reads the policy's variables, where NumPy carries its operations out."""
        for prepared in self._prepared.values():
            prepared.refresh()

    def initial_state(self, batch_size: int) -> Nest:
        """Returns the policy state before the first step, a nest of arrays [batch_size, ...]; () for none."""
        if not tf.nest.flatten(self._policy.policy_state_spec):
            return ()
        return host_calls.to_arrays(host_calls.plain(self._policy.get_initial_state(batch_size)))

    def act(self, time_step: ts.TimeStep, state: Nest) -> tuple[Nest, Nest, Nest]:
        """Returns arrays (action, policy info, next policy state), not to be written to.

        Args:
            time_step: Arrays [B, ...], not to be written to afterwards.
            state: The policy state before the step.
        """
        batch_size = len(time_step.step_type)
        if batch_size not in self._prepared:
            self._prepare(batch_size, time_step, state)
        seed = np.array([self._count, self._seed], np.int32)
        self._count = (self._count + 1) % _MOST_STEPS
        leaves = [*self._flatten_time_step(time_step), *self._flatten_state(state), seed]
        return self._pack_step(iter(self._prepared[batch_size](leaves)))

    def get_state(self) -> dict[str, Any]:
        """Returns where the random numbers are, for `set_state` of another one."""
        noise = self._noise | {
            str(size): program.get_state()
            for size, program in self._prepared.items()
            if isinstance(program, NumpyProgram)
        }
        return {"seed": self._seed, "count": self._count, "noise": noise}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on with the random numbers from where `get_state` was called."""
        self._seed, self._count, self._noise = state["seed"], state["count"], dict(state.get("noise", {}))
        for batch_size in self._prepared:
            self._continue(batch_size)

    def _prepare(self, batch_size: int, time_step: ts.TimeStep, state: Nest) -> None:
        """Traces the policy for a batch size."""

        def act_in_graph(time_step: ts.TimeStep, state: Nest, seed: tf.Tensor) -> list[tf.Tensor]:
            step = seeded_action(self._policy, time_step, state, seed)
            return tf.nest.flatten((step.action, step.info, step.state))

        example = (time_step, state, np.array([0, self._seed], np.int32))
        program = numpy_program(act_in_graph, example, (self._seed, batch_size)) if self._in_numpy else None
        self._prepared[batch_size] = program or _Graph(act_in_graph, example)
        self._continue(batch_size)

    def _continue(self, batch_size: int) -> None:
        """Goes on with the random numbers of another object, if it had any for this batch size."""
        program = self._prepared[batch_size]
        if isinstance(program, NumpyProgram) and str(batch_size) in self._noise:
            program.set_state(self._noise.pop(str(batch_size)))


class _Graph:
    """Calls a function of a nest as one operation.

    Args:
        function: Of tensors.
        example: Its arguments, nests of arrays.
    """

    def __init__(self, function: Callable[..., list[tf.Tensor]], example: tuple[Nest, ...]) -> None:
        specs = host_calls.specs_of(example)
        self._packing = packing = _Packing(tf.nest.flatten(specs))

        def call_packed(*packed: tf.Tensor) -> list[tf.Tensor]:
            return function(*tf.nest.pack_sequence_as(specs, packing.unpack(packed)))

        traced = tf.function(call_packed, input_signature=packing.specs, autograph=False)
        self._call = _as_one_operation(traced.get_concrete_function())

    def refresh(self) -> None:
        """Does nothing: variables are read at every step."""

    def __call__(self, leaves: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the function's results for arguments given flat."""
        return [tensor.numpy() for tensor in self._call(self._packing.pack(leaves))]


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
    """Puts small arrays into one vector of bytes; large ones stay as they are.

    Args:
        specs: `tf.TensorSpec` of each.

    Attributes:
        specs: Of what `pack` returns.
    """

    def __init__(self, specs: list[tf.TensorSpec]) -> None:
        self._is_small = [_num_bytes(spec) < _LARGE for spec in specs]
        self._parts = [spec for spec, is_small in zip(specs, self._is_small, strict=True) if is_small]
        self._sizes = [_num_bytes(part) for part in self._parts]
        large = [spec for spec, is_small in zip(specs, self._is_small, strict=True) if not is_small]
        self.specs = [tf.TensorSpec([sum(self._sizes)], tf.uint8), *large]

    def pack(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the vector and the large arrays."""
        small, large = [], []
        for array, is_small in zip(arrays, self._is_small, strict=True):
            if is_small:
                small.append(array.tobytes())
            else:
                large.append(array)
        return [np.frombuffer(b"".join(small), np.uint8), *large]

    def unpack(self, packed: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
        """Returns the tensors."""
        small = map(_from_bytes, tf.split(packed[0], self._sizes), self._parts)
        large = iter(packed[1:])
        return [next(small if is_small else large) for is_small in self._is_small]


def _num_bytes(spec: tf.TensorSpec) -> int:
    return int(np.prod(spec.shape)) * spec.dtype.size


def _from_bytes(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Returns the tensor whose bytes these are."""
    if spec.dtype.size == 1:
        values = tf.reshape(values, spec.shape)
        return tf.cast(values, tf.bool) if spec.dtype == tf.bool else tf.bitcast(values, spec.dtype)
    return tf.bitcast(tf.reshape(values, [*spec.shape, spec.dtype.size]), spec.dtype)
