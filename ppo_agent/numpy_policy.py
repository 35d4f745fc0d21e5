"""A policy that acts in NumPy: observation normaliser, forward pass, memory, sampling and policy info."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import StepType, TimeStep
from tf_agents.utils import tensor_normalizer

from ppo_agent.common import array_nests
from ppo_agent.common.types import Array
from ppo_agent.drivers.array_policies.noise import NoiseBlock
from ppo_agent.networks import numpy_layers, numpy_mirror

_FIRST = int(StepType.FIRST)
_ZERO = np.float32(0.0)

# The constants of TF-Agents' `TensorNormalizer.normalize`.
_VARIANCE_EPSILON = 1e-3
_CLIP = 5.0


def make_numpy_policy(
    actor_network: Any,
    observation_normalizer: tensor_normalizer.TensorNormalizer | None,
    action_spec: Any,
    info_spec: Any,
    greedy: bool = False,
    *,
    policy_state_spec: Any = (),
    value_network: Any = None,
) -> NumpyPolicy | None:
    """Returns a policy that acts as the TensorFlow policy does, without calling TensorFlow.

    Args:
        actor_network: network whose variables exist.
        observation_normalizer: applied to observations before the network; `None` for none.
        action_spec: nest of the actions' specs.
        info_spec: nest of the policy info, empty or with `dist_params` and perhaps `policy_state`.
        greedy: act with the mode of the distribution instead of a sample.
        policy_state_spec: nest of the policy state, empty or with `actor_network_state` and `value_network_state`.
        value_network: network whose state is part of the policy state; not needed if there is none.

    Returns:
        The policy, or `None` if a network, the normaliser or the policy info cannot be mirrored.
    """
    normalizer = None
    if observation_normalizer is not None:
        if not isinstance(observation_normalizer, tensor_normalizer.StreamingTensorNormalizer):
            return None
        normalizer = NumpyNormalizer(observation_normalizer)
    if info_spec and not {"dist_params"} <= set(info_spec) <= {"dist_params", "policy_state"}:
        return None
    actor = numpy_mirror.mirror_actor(actor_network)
    has_critic = "value_network_state" in policy_state_spec
    critic = numpy_mirror.mirror_torso(value_network) if has_critic else None
    if actor is None or (critic is None and has_critic):
        return None
    specs = PolicySpecs(actor_network.input_tensor_spec, action_spec, info_spec, policy_state_spec)
    return NumpyPolicy(actor, critic, normalizer, specs, greedy)


class PolicySpecs(NamedTuple):
    """What goes in and out of a policy, nests of specs.

    Attributes:
        observation: of the network.
        action: of the environment.
        info: policy info, empty or with `dist_params` and perhaps `policy_state`.
        state: policy state, empty or with `actor_network_state` and `value_network_state`.
    """

    observation: Any
    action: Any
    info: Any
    state: Any


class NumpyPolicy:
    """Acts on NumPy observations.

    Args:
        actor: mirror of the actor network.
        critic: mirror of the value network's encoder and memory, if its state is to be followed.
        normalizer: of observations, or `None`.
        specs: of the TensorFlow policy.
        greedy: act with the mode of the distribution.
    """

    def __init__(
        self,
        actor: numpy_layers.NumpyActor,
        critic: numpy_layers.NumpyTorso | None,
        normalizer: NumpyNormalizer | None,
        specs: PolicySpecs,
        greedy: bool,
    ) -> None:
        self._actor = actor
        self._critic = critic
        self._normalizer = normalizer
        self._flatten_observation = array_nests.flattener(specs.observation)
        self._pack_action = array_nests.packer(specs.action)
        self._pack_parameters = array_nests.packer(specs.info["dist_params"]) if specs.info else None
        self._stores_state = "policy_state" in specs.info
        self._state_spec = specs.state
        self._flatten_state = array_nests.flattener(specs.state)
        self._pack_state = array_nests.packer(specs.state)
        self._greedy = greedy
        seeds = np.random.SeedSequence(_tensorflow_seed()).spawn(len(actor.heads))
        self._noise = [
            NoiseBlock(head.noise, head.noise_shape, seed) for head, seed in zip(actor.heads, seeds, strict=True)
        ]

    def refresh(self) -> None:
        """Copies weights and normaliser statistics from TensorFlow; needed after every change of the variables."""
        for mirror in (self._actor, self._critic, self._normalizer):
            if mirror is not None:
                mirror.refresh()

    def initial_state(self, batch_size: int) -> Any:
        """Returns the policy state before the first step, zeros [batch_size, ...]; () without a memory."""
        return tf.nest.map_structure(
            lambda spec: np.zeros((batch_size, *spec.shape), spec.dtype.as_numpy_dtype), self._state_spec
        )

    def act(self, time_step: TimeStep, state: Any = ()) -> tuple[Any, Any, Any]:
        """One step.

        Args:
            time_step: arrays [B, ...]; a memory starts anew at FIRST.
            state: policy state before the step, as `initial_state` or an earlier call returned it; () for zeros.

        Returns:
            Action, policy info and policy state after the step, nests of arrays [B, ...].
        """
        leaves = self._flatten_observation(time_step.observation)
        if self._normalizer is not None:
            leaves = self._normalizer(leaves)
        if not self._state_spec:
            parameters, _ = self._actor(leaves)
            return self._choose(parameters), self._info(parameters), ()
        state = state or self.initial_state(len(leaves[0]))
        state = self._restart(time_step.step_type == _FIRST, state)
        parameters, next_state = self._remember(leaves, state)
        info = self._info(parameters)
        if self._stores_state:
            info["policy_state"] = state
        return self._choose(parameters), info, next_state

    def _restart(self, is_first: Array, state: Any) -> Any:
        """Returns the state with zeros where an episode starts: what the TensorFlow policy stores there too."""
        if not is_first.any():
            return state
        kept = ~is_first[:, np.newaxis]
        return self._pack_state(iter([np.where(kept, leaf, _ZERO) for leaf in self._flatten_state(state)]))

    def _remember(self, leaves: list[Array], state: Any) -> tuple[list[list[Array]], Any]:
        """Returns the distributions' parameters and the next state of both networks."""
        next_state = {}
        parameters, actor_state = self._actor(leaves, state=state.get("actor_network_state", ()))
        if "actor_network_state" in state:
            next_state["actor_network_state"] = actor_state
        if self._critic is not None:
            _, next_state["value_network_state"] = self._critic(leaves, state=state["value_network_state"])
        return parameters, next_state

    def _choose(self, parameters: list[list[Array]]) -> Any:
        """Returns an action."""
        if self._greedy:
            actions = [head.mode(values) for head, values in zip(self._actor.heads, parameters, strict=True)]
        else:
            batch_size = len(parameters[0][0])
            actions = [
                head.sample(values, noise.next(batch_size))
                for head, values, noise in zip(self._actor.heads, parameters, self._noise, strict=True)
            ]
        return self._pack_action(iter(actions))

    def _info(self, parameters: list[list[Array]]) -> Any:
        """Returns the policy info but for the state."""
        if self._pack_parameters is None:
            return ()
        return {"dist_params": self._pack_parameters(itertools.chain.from_iterable(parameters))}

    def get_state(self) -> list[dict[str, Any]]:
        """The state of the random numbers, of plain Python objects; the policy goes on undisturbed."""
        return [noise.get_state() for noise in self._noise]

    def set_state(self, state: list[dict[str, Any]]) -> None:
        """Continues the random numbers from where `get_state` found them."""
        for noise, noise_state in zip(self._noise, state, strict=True):
            noise.set_state(noise_state)


class NumpyNormalizer:
    """Mirror of a `StreamingTensorNormalizer`.

    Args:
        normalizer: whose statistics to use.
    """

    def __init__(self, normalizer: tensor_normalizer.StreamingTensorNormalizer) -> None:
        self._normalizer = normalizer
        count = len(normalizer._count)
        # Only this package's normaliser leaves out leaves.
        normalizes = getattr(normalizer, "normalizes", (True,) * count)
        self._positions = [i for i, chosen in enumerate(normalizes) if chosen]
        self._is_whole = all(normalizes)
        self.refresh()

    def refresh(self) -> None:
        """Copies mean and variance."""
        source = self._normalizer
        self._statistics = []
        for mean, m2, count in zip(source._avg, source._m2, source._count, strict=True):
            scale = 1.0 / np.sqrt(m2.numpy() / count.numpy() + _VARIANCE_EPSILON)
            # Scale and shift in the order of tf.nn.batch_normalization, to round as it does.
            self._statistics.append((scale.astype(np.float32), (-mean.numpy() * scale).astype(np.float32)))
        self._rows: list[tuple[Array, Array, Array]] = []
        self._batch_size = -1

    def __call__(self, leaves: list[Array]) -> list[Array]:
        """Returns clip((x - mean) / std, -5, 5) as float32, valid until the next call.

        Leaves that are not normalised stay as they are.
        """
        if self._is_whole:
            return self._normalize(leaves)
        result = list(leaves)
        normalized = self._normalize([leaves[i] for i in self._positions])
        for i, leaf in zip(self._positions, normalized, strict=True):
            result[i] = leaf
        return result

    def _normalize(self, leaves: list[Array]) -> list[Array]:
        if len(leaves[0]) != self._batch_size:
            self._allocate(leaves)
        for x, (scale, shift, out) in zip(leaves, self._rows, strict=True):
            np.multiply(x, scale, out=out, casting="same_kind")
            np.add(out, shift, out=out)
            np.minimum(out, _CLIP, out=out)
            np.maximum(out, -_CLIP, out=out)
        return [out for _, _, out in self._rows]

    def _allocate(self, leaves: list[Array]) -> None:
        """Repeats the statistics for each row, because operations on equal shapes are faster than broadcasting."""
        self._batch_size = len(leaves[0])
        self._rows = [
            (_repeat(scale, x.shape), _repeat(shift, x.shape), np.empty(x.shape, np.float32))
            for x, (scale, shift) in zip(leaves, self._statistics, strict=True)
        ]


def _repeat(row: Array, shape: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(np.broadcast_to(row, shape))


def _tensorflow_seed() -> int:
    """A seed that follows from `tf.random.set_seed`."""
    with tf.init_scope():
        return int(tf.random.uniform([], maxval=2**31 - 1, dtype=tf.int32))
