"""A TensorFlow policy that is called with NumPy arrays at each step.

Its graph is carried out in NumPy if NumPy has all of its operations, see `numpy_program`; else each step is one call
of TensorFlow, see `graph_call`. What a call costs beside the policy's own operations decides how fast environments
outside of TensorFlow are stepped.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import time_step as ts

from ppo_agent.common import host_calls
from ppo_agent.common.checks import check_int
from ppo_agent.common.limits import LARGEST_INT32
from ppo_agent.common.seeds import draw_seed
from ppo_agent.common.types import Nest

from .graph_call import GraphCall
from .noise import checked_state
from .numpy_program import NumpyProgram, numpy_program
from .probes import probes
from .seeded_actions import seeded_action
from .traces import made_once, trace

_logger = logging.getLogger(__name__)


class ArrayPolicy:
    """Acts on NumPy arrays as a TensorFlow policy does.

    Actions are drawn with random numbers of its own, whose seed follows from TensorFlow's when this is made.

    Args:
        policy: With or without state.
        in_numpy: Whether the policy's operations may be carried out in NumPy.
        seed: Of the random numbers; None for one that follows from TensorFlow's.
    """

    def __init__(self, policy: tf_policy.TFPolicy, in_numpy: bool = True, seed: int | None = None) -> None:
        self._policy, self._in_numpy = policy, in_numpy
        self._programs: dict[int, NumpyProgram] = {}  # By batch size.
        self._acts: dict[int, Any] = {}  # What acts, by batch size.
        self._noise: dict[str, Any] = {}
        self._seed, self._count = draw_seed() if seed is None else seed, 0

    def refresh(self) -> None:
        """Reads the policy's variables, where NumPy carries its operations out."""
        for program in self._programs.values():
            program.refresh()

    def refresh_changed(self) -> None:
        """As `refresh`, if a variable was written to since."""
        for program in self._programs.values():
            program.refresh_changed()

    def initial_state(self, batch_size: int) -> Nest:
        """Returns the policy state before the first step, a nest of arrays [batch_size, ...]; () for none."""
        if not tf.nest.flatten(self._policy.policy_state_spec):
            return ()
        return host_calls.to_arrays(host_calls.plain(self._policy.get_initial_state(batch_size)))

    def act(self, time_step: ts.TimeStep, state: Nest = ()) -> tuple[Nest, Nest, Nest]:
        """Returns arrays (action, policy info, next policy state), not to be written to.

        Args:
            time_step: Arrays [B, ...], not to be written to afterwards.
            state: The policy state before the step.
        """
        act = self._acts.get(len(time_step.step_type))
        if act is None:
            act = self._prepare(time_step, state)
        return act(time_step, state)

    def program(self, time_step: ts.TimeStep, state: Nest = ()) -> NumpyProgram | None:
        """Returns what acts in NumPy for batches like these; None if NumPy cannot."""
        if len(time_step.step_type) not in self._acts:
            self._prepare(time_step, state)
        return self._programs.get(len(time_step.step_type))

    def get_state(self) -> dict[str, Any]:
        """Returns where the random numbers are, for `set_state` of another one."""
        noise = self._noise | {str(size): program.get_state() for size, program in self._programs.items()}
        return {"seed": self._seed, "count": self._count, "noise": noise}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues with the random numbers from where `get_state` was called.

        Raises:
            AttributeError, KeyError, TypeError, ValueError, OverflowError: It is no such state; nothing is changed.
        """
        seed, count = (check_int(name, state[name], at_least=0) for name in ("seed", "count"))
        # Checked now, although most of it is needed at the first step.
        noise = {str(int(size)): checked_state(drawn) for size, drawn in state["noise"].items()}
        self._seed, self._count, self._noise = seed, count, noise
        for batch_size in list(self._programs):
            if str(batch_size) in self._noise:
                self._continue(batch_size, self._programs[batch_size])
            else:  # It had not drawn anything: it starts again from the seed.
                del self._programs[batch_size], self._acts[batch_size]

    def _prepare(self, time_step: ts.TimeStep, state: Nest) -> Any:
        """Returns what acts for a batch size, and keeps it."""
        batch_size = len(time_step.step_type)

        def act_in_graph(time_step: ts.TimeStep, state: Nest, seed: tf.Tensor) -> Nest:
            step = seeded_action(self._policy, time_step, state, seed)
            return host_calls.plain((step.action, step.info, step.state))

        example = (time_step, state, np.zeros(2, np.int32))
        traced = trace(act_in_graph, example)
        program = self._program(traced, time_step, state) if self._in_numpy else None
        if program is None:
            call = made_once(self._policy, traced, "call", lambda: GraphCall(act_in_graph, example))
            self._acts[batch_size] = lambda time_step, state: call(time_step, state, self._next_seed())
        else:
            self._programs[batch_size], self._acts[batch_size] = program, program.act
            self._continue(batch_size, program)
        return self._acts[batch_size]

    def _program(self, traced: Any, time_step: ts.TimeStep, state: Nest) -> NumpyProgram | None:
        specs = host_calls.plain((self._policy.time_step_spec, self._policy.policy_state_spec))
        seed = np.random.SeedSequence([self._seed, len(time_step.step_type)])
        examples = probes(specs, (time_step, state))
        program, reason = made_once(
            self._policy, traced, "NumPy", lambda: numpy_program(traced, examples, np.random.SeedSequence(0))
        )
        if program is None:
            self._in_numpy = False  # For batches of another size neither.
            name = type(self._policy).__name__
            _logger.info("%s is called as a graph of TensorFlow at each step, not in NumPy: %s.", name, reason)
            return None
        return program.again(seed)

    def _next_seed(self) -> np.ndarray:
        seed = np.array([self._count, self._seed], np.int32)
        self._count = (self._count + 1) % LARGEST_INT32
        return seed

    def _continue(self, batch_size: int, program: NumpyProgram) -> None:
        """Continues with the random numbers of another object, if it had any for this batch size."""
        if str(batch_size) in self._noise:
            program.set_state(self._noise.pop(str(batch_size)))
