"""TF-Agents' own program with one part after the other exchanged for this package's, in TF-Agents' environment.

The option names what is exchanged: 'agent'; 'driver', the agent and the driver; 'learner', these and the learner; or
'actor', the agent and the policy that TF-Agents' Actor acts with.
"""

# ruff: noqa: I001 - ppo_agent comes before tensorflow: it chooses the Keras that TF-Agents needs.
from __future__ import annotations

import tempfile
from typing import Any

import ppo_agent
from ppo_agent import drivers

import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.train import ppo_learner

from benchmarks import measure
from benchmarks.peers import tfa, tfa_collection

OPTIONS = ("agent", "driver", "learner", "actor")


def make_collector(option: str, env: Any, agent: Any, steps: int, root_dir: str) -> tfa_collection.Collector:
    """TF-Agents' way of collection, with this package's driver or policy in it if the option says so."""
    if option == "actor":
        policy = drivers.py_policy(agent.collect_policy)
        return tfa_collection.ActorCollector(env, agent, steps, root_dir, policy)
    if option == "agent":
        return tfa_collection.DriverCollector(env, agent, steps, root_dir)
    return tfa_collection.DriverCollector(env, agent, steps, root_dir, drivers.DynamicStepDriver)


def main() -> None:
    """Runs what the command line asks for."""
    arguments = measure.parse()
    if arguments.option not in OPTIONS:
        raise ValueError(f"option is {arguments.option!r}, expected one of {', '.join(OPTIONS)}.")
    tf.random.set_seed(arguments.seed)
    workload, meter = arguments.workload, measure.Meter(arguments)
    env = tfa_collection.make_environment(arguments)
    time_step_spec, action_spec = tensor_spec.from_spec((env.time_step_spec(), env.action_spec()))
    agent = tfa.make_agent(time_step_spec, action_spec, workload, ppo_agent.PPOClipAgent)
    learner_class = ppo_agent.PPOLearner if arguments.option == "learner" else ppo_learner.PPOLearner
    with tempfile.TemporaryDirectory() as root_dir:
        collector = make_collector(arguments.option, env, agent, workload.steps_per_iteration, root_dir)
        learner = tfa.Learner(agent, workload, root_dir, learner_class)
        result = tfa.run(collector, learner, agent, meter)
    packages = ("tf-agents", "tensorflow", "gymnasium", "numpy")
    measure.emit({"peer": f"ppo_agent ({arguments.option})", **result}, arguments, *packages)


if __name__ == "__main__":
    main()
