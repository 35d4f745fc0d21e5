"""Trains CartPole with networks of one's own: a Keras model as the encoder, or any `tf_agents` network.

python examples/own_network.py --kind=keras
"""

import ppo_agent  # Before tensorflow: it chooses the Keras that TF-Agents needs.
from ppo_agent import drivers, networks

import tensorflow as tf
import tensorflow_probability as tfp
from absl import app, flags
from tf_agents.networks import network, sequential
from tf_agents.typing import types

flags.DEFINE_enum("kind", "keras", ["keras", "tf_agents"], "Which networks to train.")
flags.DEFINE_integer("num_iterations", 30, "How often to collect and train.", lower_bound=1)

FLAGS = flags.FLAGS

Networks = tuple[network.Network, network.Network]


class ResidualEncoder(tf.keras.Model):
    """Any Keras model from observations [N, ...] to features [N, F] will do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = tf.keras.layers.Dense(64, "relu")
        self.second = tf.keras.layers.Dense(64, "relu")

    def call(self, observation: tf.Tensor) -> tf.Tensor:
        """Returns features [N, 64]."""
        hidden = self.first(observation)
        return hidden + self.second(hidden)


def keras_networks(observation_spec: types.NestedTensorSpec, action_spec: types.NestedTensorSpec) -> Networks:
    """The model takes the place of the encoder; heads for the action spec (and masks, and a memory) come with it.

    One object in both networks is a shared torso: here each has its own.
    """
    actor_net = networks.ActorNetwork(observation_spec, action_spec, encoder=ResidualEncoder())
    return actor_net, networks.ValueNetwork(observation_spec, encoder=ResidualEncoder())


def tf_agents_networks(observation_spec: types.NestedTensorSpec, action_spec: types.NestedTensorSpec) -> Networks:
    """Any `tf_agents` network will do, of which the actor emits distributions and the other values."""
    dense, compute = tf.keras.layers.Dense, tf.keras.layers.Lambda
    num_actions = int(action_spec.maximum) + 1
    actor_layers = [
        dense(64, "tanh"),
        dense(num_actions),
        compute(lambda logits: tfp.distributions.Categorical(logits, dtype=action_spec.dtype)),
    ]
    value_layers = [dense(64, "tanh"), dense(1), compute(lambda value: tf.squeeze(value, axis=-1))]
    return (
        sequential.Sequential(actor_layers, input_spec=observation_spec),
        sequential.Sequential(value_layers, input_spec=observation_spec),
    )


def main(_: list[str]) -> None:
    """Trains and prints the mean return of the last episodes."""
    make_networks = {"keras": keras_networks, "tf_agents": tf_agents_networks}[FLAGS.kind]
    with drivers.GymnasiumEnvironment("CartPole-v1", num_environments=8, seed=0) as env:
        actor_net, value_net = make_networks(env.observation_spec(), env.action_spec())
        agent = ppo_agent.PPOClipAgent(
            env.time_step_spec(),
            env.action_spec(),
            tf.keras.optimizers.Adam(1e-3),
            actor_net,
            value_net,
            importance_ratio_clipping=0.2,
            discount_factor=0.98,
            lambda_value=0.8,
            use_gae=True,
            num_epochs=10,
            minibatch_size=64,
            normalize_rewards=False,
        )
        replay_buffer = drivers.UniformReplayBuffer(agent.collect_data_spec, env.batch_size, max_length=10_000)
        statistics = drivers.EpisodeStatistics()
        observers = [replay_buffer.add_batch, statistics]
        driver = drivers.DynamicStepDriver(
            env, agent.collect_policy, observers, num_steps=256 * env.batch_size, bootstrap_row=True
        )
        time_step = env.reset()
        for _iteration in range(FLAGS.num_iterations):
            time_step, _state = driver.run(time_step)
            agent.train(replay_buffer.gather_all())
            replay_buffer.clear()
        print(f"{FLAGS.kind}: the last episodes returned {statistics.mean_return():.1f} on average.")


if __name__ == "__main__":
    app.run(main)
