"""A policy that acts in NumPy: observation normaliser, forward pass, sampling and policy info."""

from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.utils import tensor_normalizer

from ppo_agent.networks import numpy_layers, numpy_mirror, numpy_nest

Array = np.ndarray

# Random numbers are drawn in blocks of at most this many steps and this many numbers.
_BLOCK_STEPS = 1024
_BLOCK_SIZE = 2**18

# The constants of TF-Agents' `TensorNormalizer.normalize`.
_VARIANCE_EPSILON = 1e-3
_CLIP = 5.0


def make_numpy_policy(
    actor_network: Any,
    observation_normalizer: tensor_normalizer.TensorNormalizer | None,
    action_spec: Any,
    info_spec: Any,
    greedy: bool = False,
) -> "NumpyPolicy | None":
    """Returns a policy that acts as the TensorFlow policy does, without calling TensorFlow.

    Args:
        actor_network: network whose variables exist.
        observation_normalizer: applied to observations before the network; `None` for none.
        action_spec: nest of the actions' specs.
        info_spec: nest of the policy info, empty or with `dist_params` alone.
        greedy: act with the mode of the distribution instead of a sample.

    Returns:
        The policy, or `None` if the network, the normaliser or the policy info cannot be mirrored.
    """
    normalizer = None
    if observation_normalizer is not None:
        if not isinstance(observation_normalizer, tensor_normalizer.StreamingTensorNormalizer):
            return None
        normalizer = NumpyNormalizer(observation_normalizer)
    if info_spec and set(info_spec) != {"dist_params"}:
        return None
    actor = numpy_mirror.mirror_actor(actor_network)
    if actor is None:
        return None
    return NumpyPolicy(actor, normalizer, actor_network.input_tensor_spec, action_spec, info_spec, greedy)


class NumpyPolicy:
    """Acts on NumPy observations.

    Args:
        actor: mirror of the network.
        normalizer: of observations, or `None`.
        observation_spec: nest of the observations' specs.
        action_spec: nest of the actions' specs.
        info_spec: nest of the policy info, empty or with `dist_params` alone.
        greedy: act with the mode of the distribution.
    """

    def __init__(
        self,
        actor: numpy_layers.NumpyActor,
        normalizer: "NumpyNormalizer | None",
        observation_spec: Any,
        action_spec: Any,
        info_spec: Any,
        greedy: bool,
    ) -> None:
        self._actor = actor
        self._normalizer = normalizer
        self._flatten_observation = numpy_nest.flattener(observation_spec)
        self._pack_action = numpy_nest.packer(action_spec)
        self._pack_info = numpy_nest.packer(info_spec) if info_spec else None
        self._greedy = greedy
        seeds = np.random.SeedSequence(_tensorflow_seed()).spawn(len(actor.heads))
        self._noise = [
            NoiseBlock(head.noise, head.noise_shape, seed) for head, seed in zip(actor.heads, seeds, strict=True)
        ]

    def refresh(self) -> None:
        """Copies weights and normaliser statistics from TensorFlow; needed after every change of the variables."""
        self._actor.refresh()
        if self._normalizer is not None:
            self._normalizer.refresh()

    def act(self, observation: Any) -> tuple[Any, Any]:
        """Returns action and policy info, nests of arrays [B, ...], for a nest of observations [B, ...]."""
        leaves = self._flatten_observation(observation)
        if self._normalizer is not None:
            leaves = self._normalizer(leaves)
        features = self._actor.encoder(leaves)
        actions, info = [], []
        for head, noise in zip(self._actor.heads, self._noise, strict=True):
            parameters = head.parameters(features)
            info += parameters
            actions.append(
                head.mode(parameters) if self._greedy else head.sample(parameters, noise.next(len(features)))
            )
        return self._pack_action(iter(actions)), self._pack_info(iter(info)) if self._pack_info else ()

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
        self._normalizes = getattr(normalizer, "normalizes", None) or (True,) * len(normalizer._avg)
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
        """Returns clip((x - mean) / std, -5, 5) as float32, valid until the next call; other leaves as they are."""
        chosen = [x for x, normalizes in zip(leaves, self._normalizes, strict=True) if normalizes]
        if len(leaves[0]) != self._batch_size:
            self._allocate(chosen)
        for x, (scale, shift, out) in zip(chosen, self._rows, strict=True):
            np.multiply(x, scale, out=out, casting="same_kind")
            np.add(out, shift, out=out)
            np.minimum(out, _CLIP, out=out)
            np.maximum(out, -_CLIP, out=out)
        normalized = (out for _, _, out in self._rows)
        return [next(normalized) if n else x for x, n in zip(leaves, self._normalizes, strict=True)]

    def _allocate(self, leaves: list[Array]) -> None:
        """Repeats the statistics for each row, because operations on equal shapes are faster than broadcasting."""
        self._batch_size = len(leaves[0])
        self._rows = [
            (_repeat(scale, x.shape), _repeat(shift, x.shape), np.empty(x.shape, np.float32))
            for x, (scale, shift) in zip(leaves, self._statistics, strict=True)
        ]


def _repeat(row: Array, shape: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(np.broadcast_to(row, shape))


class NoiseBlock:
    """Random numbers for one head, drawn for many steps at once.

    Args:
        kind: 'normal' or 'gumbel'.
        shape: of the numbers for one row of the batch.
        seed: of the generator.
    """

    def __init__(self, kind: str, shape: tuple[int, ...], seed: np.random.SeedSequence) -> None:
        self._draw = {"normal": _draw_normal, "gumbel": _draw_gumbel}[kind]
        self._shape = shape
        self._generator = np.random.default_rng(seed)
        self._start: dict[str, Any] = dict(self._generator.bit_generator.state)
        self._block = np.empty((0, 0), np.float32)
        self._batch_size = 0
        self._position = 0

    def next(self, batch_size: int) -> Array:
        """Returns the numbers of the next step, [batch_size, *shape], float32."""
        if self._position == len(self._block) or batch_size != self._batch_size:
            self._start = dict(self._generator.bit_generator.state)
            self._fill(batch_size)
        row = self._block[self._position]
        self._position += 1
        return row

    def _fill(self, batch_size: int) -> None:
        per_step = max(1, batch_size * int(np.prod(self._shape)))
        steps = max(1, min(_BLOCK_STEPS, _BLOCK_SIZE // per_step))
        self._block = self._draw(self._generator, (steps, batch_size, *self._shape))
        self._batch_size = batch_size
        self._position = 0

    def get_state(self) -> dict[str, Any]:
        """Generator state at the block's start, batch size and position in the block."""
        return {"generator": self._start, "batch_size": self._batch_size, "position": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Draws the block of that state again and goes to the position in it."""
        self._generator.bit_generator.state = state["generator"]
        self._start = state["generator"]
        if state["batch_size"]:
            self._fill(state["batch_size"])
        self._position = state["position"]


def _draw_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return generator.standard_normal(shape, np.float32)


def _draw_gumbel(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    # Doubles and a positive minimum, because infinite noise would choose categories of probability zero.
    exponential = np.maximum(generator.standard_exponential(shape), np.finfo(np.float64).tiny)
    return -np.log(exponential).astype(np.float32)


def _tensorflow_seed() -> int:
    """A seed that follows from `tf.random.set_seed`."""
    with tf.init_scope():
        return int(tf.random.uniform([], maxval=2**31 - 1, dtype=tf.int32))
