"""Policies of every kind that can be exported, with random weights and normalisers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.policies import greedy_policy, tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ppo_agent.networks import ActorNetwork, GRUMemory, LSTMMemory, ValueNetwork
from ppo_agent.normalizers import make_observation_normalizer
from ppo_agent.policy import PPOPolicy

Bounded = tensor_spec.BoundedTensorSpec
VECTOR = Bounded([4], tf.float32, -2, 2)
DISCRETE = Bounded([], tf.int64, 1, 3)
MULTI_DISCRETE = Bounded([3], tf.int32, 0, [1, 3, 2])
BOX = Bounded([2], tf.float32, -1, [1, 2])
IMAGE = Bounded([12, 12, 3], tf.uint8, 0, 255)
NESTED = {"lidar": VECTOR, "gear": Bounded([], tf.int32, 0, 4), "map": (Bounded([2, 2], tf.float32, -1, 1),)}


def masked(size: int) -> dict[str, Any]:
    """An observation with a mask of so many categories."""
    return {"observation": VECTOR, "action_mask": Bounded([size], tf.bool, False, True)}


# Observation, action, and arguments of the actor network that are made anew for each policy.
KINDS: dict[str, tuple[Any, Any, Callable[[], dict[str, Any]]]] = {
    "discrete": (VECTOR, DISCRETE, dict),
    "multi_discrete": (VECTOR, MULTI_DISCRETE, dict),
    "continuous": (VECTOR, BOX, dict),
    "squashed": (VECTOR, BOX, lambda: {"squash": True, "state_dependent_std": True}),
    "masked": (masked(3), DISCRETE, dict),
    "masked_multi_discrete": (masked(9), MULTI_DISCRETE, dict),
    "nested": (NESTED, {"gear": DISCRETE, "wheels": [BOX, MULTI_DISCRETE]}, lambda: {"embedding_size": 3}),
    "image": (IMAGE, DISCRETE, dict),
    "lstm": (VECTOR, DISCRETE, lambda: {"memory": LSTMMemory(7)}),
    "gru": (VECTOR, BOX, lambda: {"memory": GRUMemory(7)}),
    "masked_nested": (masked(12), {"gear": DISCRETE, "wheels": [BOX, MULTI_DISCRETE]}, dict),
    "masked_gru": (masked(3), DISCRETE, lambda: {"memory": GRUMemory(5)}),
}


def make(kind: str, rng: np.random.Generator) -> tf_policy.TFPolicy:
    """A greedy policy of a kind."""
    observation, action, arguments = KINDS[kind]
    return make_policy(observation, action, rng, **arguments())


def make_policy(observation: Any, action: Any, rng: np.random.Generator, **arguments: Any) -> tf_policy.TFPolicy:
    """A greedy policy with random weights; the arguments are the actor network's."""
    actor = ActorNetwork(observation, action, fc_layers=(8,), **arguments)
    memory = arguments.get("memory")
    value = ValueNetwork(observation, fc_layers=(6,), memory=None if memory is None else type(memory)(4))
    normalizer = make_observation_normalizer(observation, actor.input_tensor_spec)
    policy = PPOPolicy(ts.time_step_spec(observation), action, actor, value, normalizer, clip=False, collect=False)
    for variable in (*actor.variables, *value.variables):
        # Weights that neither saturate what follows nor magnify rounding errors.
        fan_in = max(1, int(np.prod(variable.shape[:-1])))
        variable.assign(rng.normal(size=variable.shape) * min(0.5, 1.0 / np.sqrt(fan_in)))
    if normalizer is not None:
        normalizer.update(sample(observation, rng, 30))
    return greedy_policy.GreedyPolicy(policy)


def sample(spec: Any, rng: np.random.Generator, batch_size: int) -> Any:
    """Observations [B, ...]; masks allow the last category of each component and some others."""
    nest = tf.nest.map_structure(lambda leaf: _sample(leaf, rng, batch_size), spec)
    if isinstance(spec, dict) and "action_mask" in spec:
        mask = nest["action_mask"]
        mask[:, {3: [2], 9: [1, 2, 5, 8], 12: [2, 4, 5, 8, 11]}[mask.shape[1]]] = True
    return nest


def _sample(spec: Any, rng: np.random.Generator, batch_size: int) -> np.ndarray:
    shape, dtype = [batch_size, *spec.shape], spec.dtype.as_numpy_dtype
    if spec.dtype == tf.bool:
        return rng.random(shape) < 0.5
    if spec.dtype.is_integer:
        return rng.integers(int(spec.minimum), int(spec.maximum) + 1, shape).astype(dtype)
    return (rng.normal(size=shape) * 2).astype(dtype)
