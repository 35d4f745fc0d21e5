"""XLA compiles an update once: neither the number of valid rows nor that of time steps compiles it again."""

import time

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import StepType, Trajectory
from tf_agents.trajectories import time_step as ts

from ppo_agent import PPOAgent
from ppo_agent.networks import ActorNetwork, ValueNetwork


def _make_agent() -> PPOAgent:
    observation_spec = tf.TensorSpec([3], tf.float32)
    action_spec = tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)
    return PPOAgent(
        ts.time_step_spec(observation_spec),
        action_spec,
        tf.keras.optimizers.Adam(1e-3),
        ActorNetwork(observation_spec, action_spec, fc_layers=(8,)),
        ValueNetwork(observation_spec, fc_layers=(8,)),
        use_gae=True,
        importance_ratio_clipping=0.2,
        num_epochs=2,
        minibatch_size=16,
        jit_compile=True,
    )


def _make_experience(agent: PPOAgent, num_steps: int, num_boundaries: int) -> Trajectory:
    rng = np.random.default_rng(num_steps)
    step_type = np.full([4, num_steps], StepType.MID, np.int32)
    step_type[:, :num_boundaries] = StepType.LAST

    def sample(spec: tf.TensorSpec) -> np.ndarray:
        return rng.uniform(0.5, 1.5, [4, num_steps, *spec.shape]).astype(spec.dtype.as_numpy_dtype)

    experience = tf.nest.map_structure(sample, agent.collect_data_spec)
    return experience._replace(step_type=step_type, next_step_type=np.full_like(step_type, StepType.MID))


def _seconds(agent: PPOAgent, num_steps: int, num_boundaries: int) -> float:
    experience = _make_experience(agent, num_steps, num_boundaries)
    start = time.perf_counter()
    agent.train(experience).loss.numpy()
    return time.perf_counter() - start


def test_neither_time_steps_nor_valid_rows_compile_again() -> None:
    agent = _make_agent()
    compiling = _seconds(agent, 30, 0)
    others = [_seconds(agent, num_steps, cut) for num_steps, cut in ((30, 3), (47, 0), (47, 9), (90, 0), (24, 1))]
    assert max(others) < compiling / 4, f"{others} against {compiling} s of the first call"
