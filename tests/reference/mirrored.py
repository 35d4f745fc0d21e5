"""Trains under a MirroredStrategy of one and of two replicas with the same data; a program, as it splits the CPU."""

import ppo_agent  # isort: skip

import helpers
import numpy as np
import tensorflow as tf

# TF-Agents does not divide the KL penalty by the number of replicas.
KEYWORDS = {
    "importance_ratio_clipping": 0.2,
    "use_gae": True,
    "num_epochs": 2,
    "policy_l2_reg": 0.01,
    "entropy_regularization": 0.1,
    "initial_adaptive_kl_beta": 0.0,
    "kl_cutoff_factor": 0.0,
}


def check(devices, minibatch_size):
    rng = np.random.default_rng(0)
    strategy = tf.distribute.MirroredStrategy(devices)
    tf.random.set_seed(1)
    plain = helpers.make_agent(cls=ppo_agent.PPOAgent, **KEYWORDS, minibatch_size=minibatch_size)
    with strategy.scope():
        tf.random.set_seed(1)
        optimizer, counter = tf.keras.optimizers.Adam(0.01, epsilon=1e-5), tf.Variable(0, dtype=tf.int64)
        keywords = {**KEYWORDS, "minibatch_size": minibatch_size}
        agent = helpers.make_agent(**keywords, optimizer=optimizer, train_step_counter=counter, eager=False)
    helpers.copy_weights(plain, agent)
    experience = helpers.make_experience(plain, rng, end=0.0)
    train = tf.function(lambda: strategy.run(agent.train, args=(experience,)), autograph=False)
    for _ in range(2):
        expected = plain.train(experience).loss
        replicas = [float(x) for x in strategy.experimental_local_results(train().loss)]
        # Each replica has its share of the loss.
        np.testing.assert_allclose(sum(replicas), expected, rtol=1e-4)
    helpers.assert_same_state(networks(agent), networks(plain), rtol=1e-4, atol=1e-5)
    assert counter.numpy() == plain.train_step_counter.numpy()


def networks(agent):
    return {name: value for name, value in helpers.state_of(agent).items() if name.startswith("variable")}


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    check(["/cpu:0", "/cpu:1"], None)
    check(["/cpu:0", "/cpu:1"], 24)
    check(["/cpu:0"], 24)
    print("replicas agree with one agent")  # noqa: T201


if __name__ == "__main__":
    main()
