"""This package, through its public API, written as its README shows."""

# ruff: noqa: I001 - ppo_agent comes before tensorflow: it chooses the Keras that TF-Agents needs.
from __future__ import annotations

import tempfile
from typing import Any

import ppo_agent
from ppo_agent import networks
from ppo_agent.drivers import (
    DynamicStepDriver,
    EpisodeStatistics,
    GymnasiumEnvironment,
    TFCartPole,
    UniformReplayBuffer,
)

import numpy as np
import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import Trajectory, time_step

from ppo_agent.common.environment_options import ATARI_PREFIX
from ppo_agent.training import named_environments

from benchmarks import environments, measure, workloads
from benchmarks.workloads import Workload


class OwnActorNetwork(networks.ActorNetwork):
    """The same network, but of a class that has no NumPy mirror."""


class CheckingActorNetwork(networks.ActorNetwork):
    """The same network with an operation that NumPy does not have."""

    def call(self, observation: Any, step_type: Any = None, network_state: Any = (), training: bool = False) -> Any:
        """Checks the observation."""
        return super().call(tf.debugging.check_numerics(observation, "observation"), step_type, network_state, training)


ACTORS = {"mirrored": networks.ActorNetwork, "own": OwnActorNetwork, "tensorflow": CheckingActorNetwork}


def make_networks(observation_spec: Any, action_spec: Any, workload: Workload) -> tuple[Any, Any]:
    """Actor and value network of a workload; those for images share their convolutions, as the peers' do."""
    if workload.images:
        return networks.shared_networks(observation_spec, action_spec, workload.hidden, "relu")
    memories: list[Any] = [None, None]
    if workload.lstm_units:
        memories = [networks.LSTMMemory(workload.lstm_units) for _ in memories]
    return (
        ACTORS[workload.network](observation_spec, action_spec, workload.hidden, memory=memories[0]),
        networks.ValueNetwork(observation_spec, workload.hidden, memory=memories[1]),
    )


def make_agent(time_step_spec: Any, action_spec: Any, workload: Workload) -> ppo_agent.PPOClipAgent:
    """The agent of a workload."""
    actor_net, value_net = make_networks(time_step_spec.observation, action_spec, workload)
    minibatch_size = workload.minibatch_size
    if workload.lstm_units:  # Counted in sequences.
        minibatch_size //= workload.num_steps
    agent = ppo_agent.PPOClipAgent(
        time_step_spec,
        action_spec,
        tf.keras.optimizers.Adam(workload.learning_rate, epsilon=workloads.ADAM_EPSILON),
        actor_net,
        value_net,
        importance_ratio_clipping=workloads.CLIPPING,
        lambda_value=workloads.LAMBDA,
        discount_factor=workloads.DISCOUNT,
        entropy_regularization=workload.entropy,
        value_pred_loss_coef=workloads.VALUE_COEFFICIENT,
        gradient_clipping=workloads.GRADIENT_CLIPPING,
        num_epochs=workload.num_epochs,
        minibatch_size=minibatch_size,
        store_policy_state=workload.lstm_units > 0,
        use_gae=True,
        use_td_lambda_return=True,
        normalize_observations=workload.normalize,
        normalize_rewards=workload.normalize,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )
    agent.initialize()
    return agent


def make_environment(arguments: measure.Arguments) -> tf_environment.TFEnvironment:
    """The workload's environments."""
    workload = arguments.workload
    if workload.tensor_environment:
        return TFCartPole(num_environments=workload.num_environments, seed=arguments.seed)
    name: Any = environments.maker(workload) if workload.step_cost_s else workload.env_name
    if arguments.option == "envpool" or workload.images:
        # As the binary makes them: games come with the usual preprocessing.
        name = f"envpool:{name.removeprefix(ATARI_PREFIX)}" if arguments.option == "envpool" else name
        return named_environments.make_environment(
            name, num_environments=workload.num_environments, seed=arguments.seed
        )
    return GymnasiumEnvironment(
        name,
        num_environments=workload.num_environments,
        seed=arguments.seed,
        vectorization=arguments.option or "auto",
    )


class Trainer:
    """Collects, trains and writes events, an iteration at a time."""

    def __init__(self, arguments: measure.Arguments, log_dir: str) -> None:
        """Makes everything."""
        workload = arguments.workload
        self._env = make_environment(arguments)
        self._state: tuple[Any, Any] = (None, None)
        self.agent = make_agent(self._env.time_step_spec(), self._env.action_spec(), workload)
        # Every step may be followed by the boundary row behind an episode.
        rows = 2 * workload.num_steps + 2
        self._buffer = UniformReplayBuffer(self.agent.collect_data_spec, self._env.batch_size, rows)
        self.statistics = EpisodeStatistics()
        self._driver = DynamicStepDriver(
            self._env,
            self.agent.collect_policy,
            [self._buffer.add_batch, self.statistics],
            num_steps=workload.steps_per_iteration,
            bootstrap_row=True,
        )
        self._writer = tf.summary.create_file_writer(log_dir)

    def iterate(self, meter: measure.Meter) -> bool:
        """Collects and trains once; returns whether to go on."""
        self._state = self._driver.run(*self._state)
        experience = self._buffer.gather_all()
        self._buffer.clear()
        meter.collected()
        with self._writer.as_default(step=self.agent.train_step_counter):
            self.agent.train(experience)
            self.statistics.tf_summaries()
            self.agent.train_metrics()  # Waits for the update.
        return meter.updated()


def train(arguments: measure.Arguments) -> dict[str, Any]:
    """Runs a workload with an environment."""
    meter = measure.Meter(arguments)
    with tempfile.TemporaryDirectory() as log_dir:
        trainer = Trainer(arguments, log_dir)
        while trainer.iterate(meter):
            pass
        gradient_steps = int(trainer.agent.train_step_counter)
    return meter.report(return_mean=trainer.statistics.mean_return(), gradient_steps=gradient_steps)


def learn(arguments: measure.Arguments) -> dict[str, Any]:
    """Runs a learner-only workload."""
    workload, rng = arguments.workload, np.random.default_rng(arguments.seed)
    agent = make_agent(*_learner_specs(workload), workload)
    experience = _random_experience(agent, workload, rng)
    meter = measure.Meter(arguments)
    with tempfile.TemporaryDirectory() as log_dir:
        writer, more = tf.summary.create_file_writer(log_dir), True
        while more:
            with writer.as_default():
                agent.train(experience)
                agent.train_metrics()
            more = meter.updated()
    return meter.report()


def _learner_specs(workload: Workload) -> tuple[Any, Any]:
    """Specs of time steps and actions."""
    if workload.images:
        observation: Any = tensor_spec.BoundedTensorSpec(environments.IMAGE_SHAPE, tf.uint8, 0, 255)
        action = tensor_spec.BoundedTensorSpec([], tf.int64, 0, environments.IMAGE_ACTIONS - 1)
    else:
        observation = tf.TensorSpec([environments.VECTOR_SIZE], tf.float32)
        action = tensor_spec.BoundedTensorSpec([environments.ACTION_SIZE], tf.float32, -1.0, 1.0)
    return time_step.time_step_spec(observation), action


def _random_experience(agent: Any, workload: Workload, rng: np.random.Generator) -> Trajectory:
    """Experience [B, T + 1] of T steps whose last row holds the final observation."""
    outer = (workload.num_environments, workload.num_steps + 1)
    observation = tf.constant(environments.random_observations(workload, rng, *outer))
    action = tf.constant(environments.random_actions(workload, rng, *outer))
    next_step_type = np.ones(outer, np.int32)
    next_step_type[:, -1] = time_step.StepType.FIRST
    info = tensor_spec.sample_spec_nest(agent.collect_data_spec.policy_info, outer_dims=outer)
    # Narrow distributions, so that importance ratios stay finite.
    info = tf.nest.map_structure(tf.ones_like, info)
    reward = rng.standard_normal(outer, dtype=np.float32)
    return Trajectory(
        tf.ones(outer, tf.int32), observation, action, info, tf.constant(next_step_type), tf.constant(reward),
        tf.ones(outer),
    )  # fmt: skip


def main() -> None:
    """Runs what the command line asks for."""
    arguments = measure.parse()
    if arguments.threads:
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    tf.random.set_seed(arguments.seed)
    result = train(arguments) if arguments.workload.env_name else learn(arguments)
    measure.emit({"peer": "ppo_agent", **result}, arguments, "tensorflow", "tf-agents", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
