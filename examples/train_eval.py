"""Trains and evaluates PPO in CartPole, written out as a TF-Agents pipeline.

    python examples/train_eval.py --root_dir=runs/cartpole

`ppo-train` does the same and more. Start from here to put an environment, networks or a replay buffer of your own in.
"""

import os

import ppo_agent  # Before tensorflow: it chooses the Keras that TF-Agents needs.
from ppo_agent import drivers, export, networks

import tensorflow as tf
from absl import app, flags
from tf_agents.metrics import tf_metrics
from tf_agents.policies import tf_policy

flags.DEFINE_string("root_dir", "runs/train_eval", "Where the policy and the events go.")
flags.DEFINE_string("env_name", "CartPole-v1", "Any gymnasium id.")
flags.DEFINE_integer("num_iterations", 40, "How often to collect and train.", lower_bound=1)
flags.DEFINE_integer("collect_episodes_per_iteration", 8, "Episodes to collect.", lower_bound=1)
flags.DEFINE_integer("num_environments", 8, "Environments that are stepped together.", lower_bound=1)
flags.DEFINE_integer("num_epochs", 10, "Passes over the collected episodes.", lower_bound=1)
flags.DEFINE_integer("eval_interval", 10, "Iterations between evaluations.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of networks, policy and environments.", lower_bound=0)

FLAGS = flags.FLAGS


def create_agent(env: drivers.GymnasiumEnvironment) -> ppo_agent.PPOAgent:
    """Makes networks and agent for the environment's specs."""
    observation_spec, action_spec = env.observation_spec(), env.action_spec()
    agent = ppo_agent.PPOClipAgent(
        env.time_step_spec(),
        action_spec,
        optimizer=tf.keras.optimizers.Adam(learning_rate=1e-3, epsilon=1e-5),
        actor_net=networks.ActorNetwork(observation_spec, action_spec, fc_layers=(64, 64)),
        value_net=networks.ValueNetwork(observation_spec, fc_layers=(64, 64)),
        importance_ratio_clipping=0.2,
        discount_factor=0.98,
        lambda_value=0.8,
        num_epochs=FLAGS.num_epochs,
        minibatch_size=64,
        use_gae=True,
        use_td_lambda_return=True,
        normalize_observations=False,
        normalize_rewards=False,
        gradient_clipping=0.5,
        train_step_counter=tf.Variable(0, dtype=tf.int64, name="train_step"),
    )
    agent.initialize()
    return agent


def evaluate(policy: tf_policy.TFPolicy, num_episodes: int = 10) -> float:
    """Returns the mean return of a policy over some episodes."""
    average_return = tf_metrics.AverageReturnMetric(buffer_size=num_episodes)
    with drivers.GymnasiumEnvironment(FLAGS.env_name, seed=FLAGS.seed + 1) as env:
        drivers.DynamicEpisodeDriver(env, policy, [average_return], num_episodes=num_episodes).run()
    return float(average_return.result())


def train_eval(root_dir: str) -> float:
    """Collects, trains and evaluates; exports the policy and returns its last mean return."""
    tf.random.set_seed(FLAGS.seed)
    env = drivers.GymnasiumEnvironment(FLAGS.env_name, num_environments=FLAGS.num_environments, seed=FLAGS.seed)
    agent = create_agent(env)
    replay_buffer = drivers.UniformReplayBuffer(agent.collect_data_spec, batch_size=env.batch_size, max_length=10_000)
    environment_steps = tf_metrics.EnvironmentSteps()
    train_return = tf_metrics.AverageReturnMetric(batch_size=env.batch_size, buffer_size=100)
    driver = drivers.DynamicEpisodeDriver(
        env,
        agent.collect_policy,
        observers=[replay_buffer.add_batch, environment_steps, train_return],
        num_episodes=FLAGS.collect_episodes_per_iteration,
        bootstrap_row=True,  # So that the last step of each environment is trained on too.
    )

    writer = tf.summary.create_file_writer(os.path.join(root_dir, "train"))
    time_step, eval_return = env.reset(), float("nan")
    for iteration in range(1, FLAGS.num_iterations + 1):
        time_step, _ = driver.run(time_step)
        experience = replay_buffer.gather_all()
        replay_buffer.clear()
        with writer.as_default():
            loss_info = agent.train(experience)
            train_return.tf_summaries(train_step=agent.train_step_counter)
        if iteration % FLAGS.eval_interval == 0 or iteration == FLAGS.num_iterations:
            eval_return = evaluate(agent.policy)
            print(
                f"iteration {iteration}: {int(environment_steps.result())} steps, loss {float(loss_info.loss):.3f}, "
                f"return {float(train_return.result()):.1f} in training, {eval_return:.1f} in evaluation"
            )

    export.export_policy(agent.policy, os.path.join(root_dir, "policy"))
    env.close()
    return eval_return


def main(_: list[str]) -> None:
    """Trains and says where the policy is."""
    train_eval(FLAGS.root_dir)
    print(f"The policy is in {os.path.join(FLAGS.root_dir, 'policy')}.")


if __name__ == "__main__":
    app.run(main)
