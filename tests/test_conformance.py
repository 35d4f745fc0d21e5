"""Every kind of space with every kind of network: collect, train, checkpoint, export, and `ppo-train`.

The table is generated: all pairs of observation and action spaces, with the networks dealt out in turn. A combination
that is refused must be refused at construction, with a sentence that says why.
"""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from helpers import state_of
from space_environments import ACTIONS, OBSERVATIONS, AnySpaces, category_counts, env_id
from tf_agents.agents.ppo import ppo_actor_network
from tf_agents.networks import (
    actor_distribution_network,
    actor_distribution_rnn_network,
    value_network,
    value_rnn_network,
)
from tf_agents.trajectories import StepType

from ppo_agent import PPOClipAgent, train
from ppo_agent.checkpoint import TrainingCheckpoint
from ppo_agent.common import action_masks
from ppo_agent.drivers import DynamicStepDriver, GymnasiumEnvironment, UniformReplayBuffer
from ppo_agent.export import export_policy
from ppo_agent.networks import ActorNetwork, GRUMemory, LSTMMemory, ValueNetwork, shared_networks

ENVIRONMENTS, STEPS = 3, 20


def plain(observation, action, **options):
    return ActorNetwork(observation, action, (8,), **options), ValueNetwork(observation, (8,))


def recurrent(memory):
    def make(observation, action):
        return (
            ActorNetwork(observation, action, (8,), memory=memory(6)),
            ValueNetwork(observation, (8,), memory=memory(5)),
        )

    return make


def shared(memory=None):
    return lambda observation, action: shared_networks(observation, action, (8,), memory=memory and memory(6))


def embedding(observation, action):
    options = {"embedding_size": 3}
    return ActorNetwork(observation, action, (8,), **options), ValueNetwork(observation, (8,), **options)


class UsersModel(tf.keras.Model):
    """What a user might write."""

    def __init__(self, sizes):
        super().__init__()
        self.layer = tf.keras.layers.Dense(7, "relu", name="dense")
        self.sizes = sizes

    def call(self, observation):
        leaves = zip(tf.nest.flatten(observation), self.sizes, strict=True)
        return self.layer(tf.concat([tf.reshape(tf.cast(x, tf.float32), [-1, size]) for x, size in leaves], axis=-1))


def users_own(observation, action):
    network_spec, _ = action_masks.split(observation)
    sizes = [int(np.prod(spec.shape)) for spec in tf.nest.flatten(network_spec)]
    encoders = UsersModel(sizes), UsersModel(sizes)
    return ActorNetwork(observation, action, encoder=encoders[0]), ValueNetwork(observation, encoder=encoders[1])


def tf_agents_own(observation, action):
    network_spec, _ = action_masks.split(observation)
    layers = {"fc_layer_params": (8,)}
    return (
        actor_distribution_network.ActorDistributionNetwork(network_spec, action, **layers),
        value_network.ValueNetwork(network_spec, **layers),
    )


def tf_agents_rnn(observation, action):
    network_spec, _ = action_masks.split(observation)
    layers = {"input_fc_layer_params": (8,), "lstm_size": (6,), "output_fc_layer_params": None}
    return (
        actor_distribution_rnn_network.ActorDistributionRnnNetwork(network_spec, action, **layers),
        value_rnn_network.ValueRnnNetwork(network_spec, **layers),
    )


def tf_agents_sequential(observation, action):
    network_spec, _ = action_masks.split(observation)
    actor_net = ppo_actor_network.PPOActorNetwork().create_sequential_actor_net((8,), action)
    return actor_net, value_network.ValueNetwork(network_spec, fc_layer_params=(8,))


NETWORKS = {
    "mlp": plain,
    "lstm": recurrent(LSTMMemory),
    "gru": recurrent(GRUMemory),
    "shared": shared(),
    "shared_lstm": shared(LSTMMemory),
    "state_dependent": lambda observation, action: plain(observation, action, state_dependent_std=True),
    "squashed": lambda observation, action: plain(observation, action, squash=True),
    "embedding": embedding,
    "users_own": users_own,
    "tf_agents": tf_agents_own,
    "tf_agents_rnn": tf_agents_rnn,
    "tf_agents_sequential": tf_agents_sequential,
}
FLAGS = {
    "lstm": ["--recurrent"],
    "gru": ["--recurrent", "--memory=gru"],
    "shared": ["--shared_torso"],
    "shared_lstm": ["--shared_torso", "--recurrent"],
    "state_dependent": ["--state_dependent_std"],
    "squashed": ["--squash_actions"],
}


# What TF-Agents' networks can be built for: no components of unequal sizes, no infinite bounds.
THEIRS = {
    "tf_agents": ("box", "scalar", "discrete", "started", "binary", "tuple"),
    "tf_agents_rnn": ("box", "scalar", "discrete", "started", "binary", "tuple"),
    "tf_agents_sequential": ("box", "scalar"),
}
# Theirs that emit a batch of categoricals where the action has a shape, or the other way round.
OTHER_SHAPE = [("binary", "tf_agents"), ("tuple", "tf_agents"), ("scalar", "tf_agents_sequential")]


def table():
    """(observation, action, masked, network): all pairs of spaces, each network of ours with every space in turn.

    TF-Agents' own networks take vectors alone.
    """
    ours = [name for name in NETWORKS if not name.startswith("tf_agents")]
    theirs = [name for name in NETWORKS if name not in ours]
    rows = []
    for (i, observation), (j, action) in itertools.product(enumerate(OBSERVATIONS), enumerate(ACTIONS)):
        masked = bool(category_counts(ACTIONS[action])) and (i + j) % 3 == 0
        rows.append((observation, action, masked, ours[(i + 5 * j) % len(ours)]))
    rows += [
        ("vector", action, bool(category_counts(ACTIONS[action])) and (i + j) % 2 == 0, network)
        for (i, action), (j, network) in itertools.product(enumerate(ACTIONS), enumerate(theirs))
        if action in THEIRS[network]
    ]
    return rows


TABLE = table()


def quick_rows():
    """One row of each network that works, with as many different spaces as possible."""
    chosen = []
    for network in NETWORKS:
        rows = [row for row in TABLE if row[3] == network and refusal(*row) is None]
        seen = {("observation", row[0]) for row in chosen} | {("action", row[1]) for row in chosen}
        new = [len({("observation", row[0]), ("action", row[1])} - seen) for row in rows]
        chosen.append(rows[new.index(max(new))])
    return chosen


def refusal(observation, action, masked, network):
    """Words of the sentence by which a combination is refused; None if it works."""
    if network == "squashed" and action == "unbounded":
        return ["squash", "bound"]
    if (action, network.removesuffix("_rnn")) in OTHER_SHAPE:
        return ["actor_net emits", "expected action_spec"]
    return None


QUICK = quick_rows()


def combinations():
    """The table; but for one row of each network, slow."""
    marked = [(row, () if row in QUICK else (pytest.mark.slow,)) for row in TABLE]
    return [
        pytest.param(*row, marks=marks, id="-".join([*row[:2], *(["masked"] * row[2]), row[3]]))
        for row, marks in marked
    ]


def make_agent(env, network, seed=0):
    tf.random.set_seed(seed)
    observation, action = env.observation_spec(), env.action_spec()
    actor_net, value_net = NETWORKS[network](observation, action)
    is_recurrent = bool(actor_net.state_spec)
    return PPOClipAgent(
        env.time_step_spec(),
        action,
        tf.keras.optimizers.Adam(0.01),
        actor_net,
        value_net,
        importance_ratio_clipping=0.2,
        entropy_regularization=0.01,
        num_epochs=2,
        minibatch_size=4 if is_recurrent else 16,
        store_policy_state=is_recurrent,
        sequence_length=5 if is_recurrent else None,
    )


def episode_of(policy, env, steps=6):
    """Greedy actions, with the observations and states that they were chosen by."""
    time_step, state = env.reset(), policy.get_initial_state(ENVIRONMENTS)
    for _ in range(steps):
        step = policy.action(time_step, state)
        yield time_step, step.action
        time_step, state = env.step(step.action), step.state


def assert_equal(actual, expected):
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), actual, expected)


def act_with_export(directory, episode):
    """Checks that the exported policy takes the same actions."""
    exported = tf.saved_model.load(directory)
    stateful = hasattr(exported, "initial_state")
    state = exported.initial_state(tf.constant(ENVIRONMENTS)) if stateful else ()
    for time_step, expected in episode:
        if stateful:
            state = exported.reset_state(state, time_step.step_type == StepType.FIRST)
            action, state = exported.action(time_step.observation, state)
        else:
            action = exported.action(time_step.observation)
        assert_equal(action, expected)


def train_twice(agent, env):
    buffer = UniformReplayBuffer(agent.collect_data_spec, ENVIRONMENTS, 10 * STEPS)
    driver = DynamicStepDriver(
        env, agent.collect_policy, [buffer.add_batch], num_steps=ENVIRONMENTS * STEPS, bootstrap_row=True
    )
    before, time_step, state = state_of(agent), env.reset(), None
    for _ in range(2):
        time_step, state = driver.run(time_step, state)
        loss = agent.train(buffer.gather_all()).loss
        buffer.clear()
        assert np.isfinite(loss)
    after = state_of(agent)
    unchanged = [k for k in after if k.startswith("variable") and np.array_equal(after[k], before[k])]
    assert not unchanged
    assert all(np.isfinite(value).all() for value in after.values())


@pytest.mark.parametrize(("observation", "action", "masked", "network"), combinations())
def test_combination(observation, action, masked, network, tmp_path):
    def make():
        return AnySpaces(observation, action, masked)

    with GymnasiumEnvironment(make, num_environments=ENVIRONMENTS, seed=3) as env:
        words = refusal(observation, action, masked, network)
        if words is not None:
            with pytest.raises((ValueError, TypeError)) as error:
                make_agent(env, network)
            assert all(word in str(error.value) for word in words)
            return
        agent = make_agent(env, network)
        train_twice(agent, env)
        saved = TrainingCheckpoint(tmp_path / "checkpoint", agent=agent)
        saved.save(1)
        restored = make_agent(env, network, seed=1)
        checkpoint = TrainingCheckpoint(tmp_path / "checkpoint", agent=restored)
        assert checkpoint.restore() == 1
        arrays, others = checkpoint.snapshot()[0], saved.snapshot()[0]
        assert {name: array.tobytes() for name, array in arrays.items()} == {
            name: array.tobytes() for name, array in others.items()
        }
        episode = list(episode_of(agent.policy, env))
        state = agent.policy.get_initial_state(ENVIRONMENTS)
        for time_step, expected in episode:
            step = restored.policy.action(time_step, state)
            assert_equal(step.action, expected)
            state = step.state
        export_policy(agent.policy, tmp_path / "export")
        act_with_export(str(tmp_path / "export"), episode)


TINY = [
    "--num_environments=2", "--collect_steps_per_iteration=16", "--total_environment_steps=64", "--num_epochs=1",
    "--minibatch_size=16", "--actor_fc_layers=8", "--value_fc_layers=8", "--num_eval_episodes=2",
]  # fmt: skip


@pytest.mark.parametrize(("observation", "action", "masked", "network"), combinations())
def test_ppo_train(observation, action, masked, network, tmp_path, capsys):
    if network == "squashed" and refusal(observation, action, masked, network):
        pytest.skip("refused, see test_combination")
    flags = [*TINY, *FLAGS.get(network, [])]
    name = f"--env_name=space_environments:{env_id(observation, action, masked)}"
    status = train.main(["ppo-train", name, f"--root_dir={tmp_path / 'run'}", *flags])
    of_continuous_actions = {"squashed": "squash_actions", "state_dependent": "state_dependent_std"}
    if network in of_continuous_actions and action in {"discrete", "started", "multi", "table", "binary"}:
        assert status == 2
        assert f"{of_continuous_actions[network]} is True, expected False" in capsys.readouterr().err
        return
    assert status == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 32 <= result["environment_steps"] <= 64  # What is left for a last iteration may not be worthwhile.
    assert np.isfinite(result["eval_return_mean"])


def test_the_table_is_large_enough():
    assert len(TABLE) >= 60
    for kinds, column in ((OBSERVATIONS, 0), (ACTIONS, 1), (NETWORKS, 3)):
        assert {row[column] for row in TABLE} == set(kinds)
    quick = [parameters for parameters in combinations() if not parameters.marks]
    assert {parameters.values[3] for parameters in quick} == set(NETWORKS)
