"""Trains replicas with halves of an experience and one agent with all of it; a program, as it splits the CPU.

Prints a line of JSON for each comparison: its name and the largest error.
"""

import ppo_agent  # noqa: F401 # isort: skip

import functools
import json
import sys

import helpers
import numpy as np
import tensorflow as tf

COMMON = {"importance_ratio_clipping": 0.2, "use_gae": True, "num_epochs": 3, "entropy_regularization": 0.05}
CASES = {
    "whole": {"gradient_clipping": 0.3},
    "minibatches": {"minibatch_size": 24, "gradient_clipping": 0.3, "policy_l2_reg": 0.01, "value_clipping": 0.2},
    "kl_penalty": {"initial_adaptive_kl_beta": 0.7, "kl_cutoff_factor": 0.001, "adaptive_kl_target": 0.5},
    "rewards_by_return": {"normalize_rewards_by": "return", "minibatch_size": 30},
    "target_kl": {"target_kl": 0.03, "minibatch_size": 16, "num_epochs": 8},
    "recurrent": {"kind": "rnn", "minibatch_size": 3},
    "nested": {"action_spec": helpers.NESTED, "minibatch_size": 20},
    "weights": {"minibatch_size": 20, "weights": True},
    "precomputed": {"compute_value_and_advantage_in_train": False},
    "recomputed": {"recompute_advantages": True, "minibatch_size": 20, "target_kl": 0.02, "num_epochs": 4},
    "nan": {"spoils": True, "minibatch_size": 12, "gradient_clipping": 0.3},
    "value_targets": {"normalize_value_targets": True, "minibatch_size": 20, "empties": True},
    "recurrent_value_targets": {"kind": "rnn", "normalize_value_targets": True, "normalize_rewards": False},
    "alone": {"alone": True, "normalize_value_targets": True},
    "three": {"devices": 3, "minibatch_size": 25},
    "uneven": {"empties": True, "minibatch_size": 20},
    "eager": {"eager": True, "minibatch_size": 24},
    "one": {"devices": 1, "minibatch_size": 24},
    "legacy": {"optimizer": "legacy", "minibatch_size": 24},
    "compat": {"optimizer": "compat", "minibatch_size": 24},
}


@functools.cache
def strategy_of(devices):
    """One for all cases: TensorFlow's strategies of one process give their messages the same keys."""
    tf.distribute.MirroredStrategy._collective_key_base += 1000
    return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(devices)])


def optimizer_of(kind):
    if kind == "legacy":
        return tf.keras.optimizers.legacy.Adam(0.01, epsilon=1e-5)
    if kind == "compat":
        return tf.compat.v1.train.AdamOptimizer(0.01, epsilon=1e-5)
    return tf.keras.optimizers.Adam(0.01, epsilon=1e-5)


def make_agents(strategy, optimizer="keras", **keywords):
    plain = helpers.make_agent(eager=False, optimizer=optimizer_of(optimizer), **keywords)
    with strategy.scope():
        counter = tf.Variable(0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
        agent = helpers.make_agent(
            eager=False, optimizer=optimizer_of(optimizer), train_step_counter=counter, **keywords
        )
    helpers.copy_weights(plain, agent)
    if plain._shuffle_seed is not None:
        agent._shuffle_seed.assign(plain._shuffle_seed)
    return plain, agent


def experience_of(plain, rng, empties=False, spoils=False):
    """Experience of so many rows that replicas have the same of them, but not the same number of valid ones."""
    experience = helpers.make_experience(plain, rng, batch=6, padding=3)
    if empties:
        # No row of the second half counts.
        zeros = tf.nest.map_structure(tf.zeros_like, experience)
        first = np.arange(6) < 3
        experience = tf.nest.map_structure(
            lambda x, z: np.where(first.reshape([6] + [1] * (x.shape.rank - 1)), x, z), experience, zeros
        )
    if spoils:
        reward = np.array(experience.reward)
        reward[4, 5] = np.nan
        experience = experience._replace(reward=tf.constant(reward))
    return tf.nest.map_structure(tf.convert_to_tensor, experience)


def run(name, devices=2, eager=False, weights=False, empties=False, spoils=False, alone=False, **keywords):
    rng = np.random.default_rng(0)
    strategy = strategy_of(devices)
    tf.random.set_seed(1)
    plain, agent = make_agents(strategy, **{**COMMON, **keywords})

    def halves(nest):
        parts = [tf.nest.map_structure(lambda x, i=i: tf.split(x, devices)[i], nest) for i in range(devices)]
        return strategy.experimental_distribute_values_from_function(lambda c: parts[c.replica_id_in_sync_group])

    def train(experience, weights):
        return strategy.run(agent.train, args=(experience, weights))

    call = train if eager else tf.function(train, autograph=False)
    if alone:  # Outside of the strategy, as one agent, before the replicas share the work.
        experience = experience_of(plain, rng)
        for each in (plain, agent):
            each.train(experience)
    for _ in range(3):
        experience = experience_of(plain, rng, empties, spoils)
        given = tf.constant(rng.random([6, experience.reward.shape[1]]), tf.float32) if weights else None
        if keywords.get("compute_value_and_advantage_in_train", True) is False:
            experience = plain.preprocess_sequence(experience)
        expected = plain.train(experience, given)
        actual = call(halves(experience), None if given is None else halves(given))
    actual = tf.nest.map_structure(lambda x: strategy.reduce("SUM", x, axis=None), actual)
    errors = {"loss": error(tf.nest.flatten(actual), tf.nest.flatten(expected))}
    states = helpers.state_of(agent), helpers.state_of(plain)
    for key, value in states[1].items():
        errors[key] = error(states[0][key], value)
    for key, value in plain.train_metrics().items():
        errors[f"report/{key}"] = error(agent.train_metrics()[key], value)
    return errors | {"replicas apart": replicas_apart(agent)}


def size_of_graph(num_epochs, minibatch_size):
    """Number of operations, nested functions included, of a call of `train` on two replicas."""
    strategy = strategy_of(2)
    plain, agent = make_agents(strategy, **{**COMMON, "num_epochs": num_epochs, "minibatch_size": minibatch_size})
    experience = experience_of(plain, np.random.default_rng(0))
    train = tf.function(lambda: strategy.run(agent.train, args=(experience,)), autograph=False)
    definition = train.get_concrete_function().graph.as_graph_def()
    return len(definition.node) + sum(len(function.node_def) for function in definition.library.function)


def error(actual, expected):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if np.array_equal(actual, expected, equal_nan=True):
        return 0.0
    return float(np.max(np.abs(actual - expected) / np.maximum(1.0, np.abs(expected))))


def replicas_apart(agent):
    """The largest difference between the copies of a variable."""
    variables = [*agent._trained_variables(), agent.train_step_counter]
    for part in (agent._observation_normalizer, agent._reward_normalizer, agent._value_scale):
        variables += [] if part is None else tf.nest.flatten(part.variables)
    copies = [[value.numpy() for value in variable.values] for variable in variables]
    return max(error(other, first) for first, *others in copies for other in others or [first])


def compare(name):
    """What is printed of a comparison."""
    if name == "graph_size":
        return {"sizes": [size_of_graph(2, 40), size_of_graph(10, 8)]}
    errors = run(name, **CASES[name])
    apart = {"replicas apart": errors.pop("replicas apart")}
    worst = sorted(errors.items(), key=lambda item: -np.nan_to_num(item[1], nan=np.inf))[:4]
    return {"errors": dict(worst) | apart}


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
    for name in sys.argv[1:]:
        print(json.dumps({"name": name, **compare(name)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
