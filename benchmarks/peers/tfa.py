"""TF-Agents 0.19.0 as its examples drive it, with PPOLearner.

It has no gymnasium, so that a `PyEnvironment` steps gymnasium's environments. Its examples keep the experience in two
tables of a Reverb server, from which every sequence is read once; two queues here cost less.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.agents.ppo import ppo_actor_network, ppo_clip_agent
from tf_agents.networks import (
    actor_distribution_network,
    actor_distribution_rnn_network,
    value_network,
    value_rnn_network,
)
from tf_agents.specs import tensor_spec
from tf_agents.train import ppo_learner
from tf_agents.trajectories import Trajectory

from benchmarks import environments, measure, workloads
from benchmarks.peers import tfa_collection
from benchmarks.workloads import Workload

_CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


def make_agent(
    time_step_spec: Any, action_spec: Any, workload: Workload, agent_class: Any = ppo_clip_agent.PPOClipAgent
) -> Any:
    """The agent of a workload."""
    observation_spec = time_step_spec.observation
    agent = agent_class(
        time_step_spec,
        action_spec,
        optimizer=tf.compat.v1.train.AdamOptimizer(workload.learning_rate, epsilon=workloads.ADAM_EPSILON),
        actor_net=_actor_network(observation_spec, action_spec, workload),
        value_net=_value_network(observation_spec, workload),
        importance_ratio_clipping=workloads.CLIPPING,
        lambda_value=workloads.LAMBDA,
        discount_factor=workloads.DISCOUNT,
        entropy_regularization=workload.entropy,
        value_pred_loss_coef=workloads.VALUE_COEFFICIENT,
        gradient_clipping=workloads.GRADIENT_CLIPPING,
        num_epochs=1,  # The learner repeats the experience.
        use_gae=True,
        use_td_lambda_return=True,
        normalize_observations=workload.normalize,
        normalize_rewards=workload.normalize,
        compute_value_and_advantage_in_train=False,
        update_normalizers_in_train=False,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )
    agent.initialize()
    return agent


def _actor_network(observation_spec: Any, action_spec: Any, workload: Workload) -> Any:
    if workload.lstm_units:
        return actor_distribution_rnn_network.ActorDistributionRnnNetwork(
            observation_spec,
            action_spec,
            input_fc_layer_params=workload.hidden,
            output_fc_layer_params=None,
            lstm_size=(workload.lstm_units,),
            activation_fn=tf.keras.activations.tanh,
        )
    if action_spec.dtype.is_floating:
        return ppo_actor_network.PPOActorNetwork().create_sequential_actor_net(workload.hidden, action_spec)
    return actor_distribution_network.ActorDistributionNetwork(
        observation_spec, action_spec, **_encoder_keywords(workload)
    )


def _value_network(observation_spec: Any, workload: Workload) -> Any:
    if workload.lstm_units:
        return value_rnn_network.ValueRnnNetwork(
            observation_spec,
            input_fc_layer_params=workload.hidden,
            output_fc_layer_params=None,
            lstm_size=(workload.lstm_units,),
            activation_fn=tf.keras.activations.tanh,
        )
    return value_network.ValueNetwork(observation_spec, **_encoder_keywords(workload))


def _encoder_keywords(workload: Workload) -> dict[str, Any]:
    keywords: dict[str, Any] = {"fc_layer_params": workload.hidden, "activation_fn": tf.keras.activations.tanh}
    if workload.images:
        scale = tf.keras.layers.Lambda(lambda image: tf.cast(image, tf.float32) / 255.0)
        keywords.update(
            preprocessing_layers=scale, conv_layer_params=_CONVOLUTIONS, activation_fn=tf.keras.activations.relu
        )
    return keywords


class ExperienceQueue:
    """Hands experience to the learner's dataset, which reads ahead and has to wait for it."""

    def __init__(self, agent: Any) -> None:
        """Makes an empty queue."""
        self._spec = tf.nest.map_structure(
            lambda spec: tf.TensorSpec([None, None, *spec.shape], spec.dtype), agent.collect_data_spec
        )
        self._agent = agent
        leaves = tf.nest.flatten(self._spec)
        self._queue = tf.queue.FIFOQueue(2, [spec.dtype for spec in leaves])

    def put(self, experience: Trajectory) -> None:
        """Adds experience [B, T, ...]."""
        self._queue.enqueue(tf.nest.flatten(experience))

    def dataset(self) -> tf.data.Dataset:
        """A dataset of the next experience, with advantages."""
        return tf.data.Dataset.from_tensors(0).map(lambda _: (self._agent.preprocess_sequence(self._take()), ()))

    def close(self) -> None:
        """Ends the datasets that wait."""
        self._queue.close(cancel_pending_enqueues=True)

    def _take(self) -> Trajectory:
        tensors = self._queue.dequeue()
        for tensor, spec in zip(tensors, tf.nest.flatten(self._spec), strict=True):
            tensor.set_shape(spec.shape)
        return tf.nest.pack_sequence_as(self._spec, tensors)


class Learner:
    """PPOLearner with its two sources of experience, for training and for the normalisers."""

    def __init__(
        self, agent: Any, workload: Workload, root_dir: str, learner_class: Any = ppo_learner.PPOLearner
    ) -> None:
        """Makes the learner; it writes into `root_dir`."""
        self._queues = (ExperienceQueue(agent), ExperienceQueue(agent))
        training, normalization = (queue.dataset for queue in self._queues)
        self._learner = make_learner(agent, workload, training, normalization, root_dir, learner_class)

    def train(self, experience: Trajectory) -> None:
        """Trains on experience [B, T, ...]."""
        for queue in self._queues:
            queue.put(experience)
        self._learner.run()

    def close(self) -> None:
        """Ends the threads that wait for experience."""
        for queue in self._queues:
            queue.close()


def make_learner(
    agent: Any,
    workload: Workload,
    training: Callable[[], Any],
    normalization: Callable[[], Any],
    root_dir: str,
    learner_class: Any = ppo_learner.PPOLearner,
) -> Any:
    """The learner; `training` and `normalization` make datasets of the experience of an iteration."""
    return learner_class(
        root_dir,
        agent.train_step_counter,
        agent,
        experience_dataset_fn=training,
        normalization_dataset_fn=normalization,
        num_samples=1,
        num_epochs=workload.num_epochs,
        # It refuses minibatches of a recurrent network's experience.
        minibatch_size=None if workload.lstm_units else workload.minibatch_size,
        shuffle_buffer_size=workload.steps_per_iteration,
    )


def train(arguments: measure.Arguments) -> dict[str, Any]:
    """Runs a workload with an environment; the option 'driver' takes the faster collection."""
    workload, meter = arguments.workload, measure.Meter(arguments)
    env = tfa_collection.make_environment(arguments)
    time_step_spec, action_spec = tensor_spec.from_spec((env.time_step_spec(), env.action_spec()))
    agent = make_agent(time_step_spec, action_spec, workload)
    make = tfa_collection.DriverCollector if arguments.option == "driver" else tfa_collection.ActorCollector
    with tempfile.TemporaryDirectory() as root_dir:
        collector: tfa_collection.Collector = make(env, agent, workload.steps_per_iteration, root_dir)
        return run(collector, Learner(agent, workload, root_dir), agent, meter)


def run(collector: tfa_collection.Collector, learner: Learner, agent: Any, meter: measure.Meter) -> dict[str, Any]:
    """Collects and trains until enough is measured."""
    more = True
    while more:
        experience = collector.collect()
        meter.collected()
        learner.train(experience)
        collector.write_metrics()
        more = meter.updated()
    learner.close()
    return meter.report(return_mean=collector.mean_return(), gradient_steps=int(agent.train_step_counter))


def learn(arguments: measure.Arguments) -> dict[str, Any]:
    """Runs a learner-only workload."""
    workload, rng = arguments.workload, np.random.default_rng(arguments.seed)
    env = tfa_collection.GymnasiumPyEnvironment(environments.Stub(workload.images), arguments.seed)
    time_step_spec, action_spec = tensor_spec.from_spec((env.time_step_spec(), env.action_spec()))
    agent = make_agent(time_step_spec, action_spec, workload)
    experience = _random_experience(agent, workload, rng)
    meter, more = measure.Meter(arguments), True
    with tempfile.TemporaryDirectory() as root_dir:
        learner = Learner(agent, workload, root_dir)
        while more:
            learner.train(experience)
            more = meter.updated()
        learner.close()
    return meter.report()


def _random_experience(agent: Any, workload: Workload, rng: np.random.Generator) -> Trajectory:
    """Experience [B, T]; `preprocess_sequence` makes advantages of it."""
    outer = (workload.num_environments, workload.num_steps)
    middle = tf.ones(outer, tf.int32)
    # Narrow distributions, so that importance ratios stay finite.
    info = tf.nest.map_structure(
        lambda spec: tf.ones((*outer, *spec.shape), spec.dtype), agent.collect_data_spec.policy_info
    )
    return Trajectory(
        middle,
        tf.constant(environments.random_observations(workload, rng, *outer)),
        tf.constant(environments.random_actions(workload, rng, *outer)),
        info,
        middle,
        tf.constant(rng.standard_normal(outer, dtype=np.float32)),
        tf.ones(outer),
    )


def main() -> None:
    """Runs what the command line asks for."""
    arguments = measure.parse()
    tf.random.set_seed(arguments.seed)
    result = train(arguments) if arguments.workload.env_name else learn(arguments)
    measure.emit({"peer": "tf-agents", **result}, arguments, "tf-agents", "tensorflow", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
