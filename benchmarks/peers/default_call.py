"""`agent.train` as TF-Agents' pages call it: the whole experience in every gradient step, and all defaults.

The option names the agent, 'ours' or 'tfa', and what is switched on: 'summaries' adds debug summaries, of which none is
recorded while times are taken.
"""

# ruff: noqa: I001 - ppo_agent comes before tensorflow: it chooses the Keras that TF-Agents needs.
from __future__ import annotations

import tempfile
from typing import Any

import ppo_agent

import numpy as np
import tensorflow as tf
from tf_agents.agents.ppo import ppo_agent as tf_agents_ppo
from tf_agents.networks import actor_distribution_network, value_network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import StepType, Trajectory, time_step
from tf_agents.utils import common

from benchmarks import measure
from benchmarks.workloads import Workload

AGENTS = {"ours": ppo_agent.PPOAgent, "tfa": tf_agents_ppo.PPOAgent}
_OBSERVATION = tensor_spec.TensorSpec([12], tf.float32, "observation")
_ACTION = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 1, "action")


def make_agent(agent_class: Any, workload: Workload, has_summaries: bool) -> Any:
    """The agent with its defaults, but for what a user cannot do without."""
    agent = agent_class(
        time_step.time_step_spec(_OBSERVATION),
        _ACTION,
        optimizer=tf.compat.v1.train.AdamOptimizer(workload.learning_rate),
        actor_net=actor_distribution_network.ActorDistributionNetwork(
            _OBSERVATION, _ACTION, fc_layer_params=workload.hidden
        ),
        value_net=value_network.ValueNetwork(_OBSERVATION, fc_layer_params=workload.hidden),
        num_epochs=workload.num_epochs,
        debug_summaries=has_summaries,
        summarize_grads_and_vars=has_summaries,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )
    agent.initialize()
    return agent


def random_experience(workload: Workload, rng: np.random.Generator) -> Trajectory:
    """Sequences [B, T] that start and end an episode each."""
    outer = (workload.num_environments, workload.num_steps)
    step_type, next_step_type = np.ones(outer, np.int32), np.ones(outer, np.int32)
    step_type[:, 0], next_step_type[:, -1] = StepType.FIRST, StepType.LAST
    logits = rng.standard_normal((*outer, 2), dtype=np.float32)
    arrays = Trajectory(
        step_type,
        rng.standard_normal((*outer, 12), dtype=np.float32),
        rng.integers(0, 2, outer),
        {"dist_params": {"logits": logits}},
        next_step_type,
        rng.standard_normal(outer, dtype=np.float32),
        np.ones(outer, np.float32),
    )
    return tf.nest.map_structure(tf.constant, arrays)


def main() -> None:
    """Runs what the command line asks for."""
    arguments = measure.parse()
    name, _, switched_on = arguments.option.partition("-")
    tf.random.set_seed(arguments.seed)
    agent = make_agent(AGENTS[name], arguments.workload, switched_on == "summaries")
    experience = random_experience(arguments.workload, np.random.default_rng(arguments.seed))
    train, meter, more = common.function(agent.train), measure.Meter(arguments), True
    with tempfile.TemporaryDirectory() as root_dir:
        writer = tf.summary.create_file_writer(root_dir)
        # As a program does that records every hundredth step: the condition is part of the graph.
        is_recorded = tf.Variable(False)
        with writer.as_default(), tf.summary.record_if(lambda: tf.identity(is_recorded)):
            while more:
                float(train(experience).loss)
                more = meter.updated()
    measure.emit({"peer": arguments.option, **meter.report()}, arguments, "tf-agents", "tensorflow", "numpy")


if __name__ == "__main__":
    main()
