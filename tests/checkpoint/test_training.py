"""An agent and its optimiser through a checkpoint."""

from pathlib import Path

import helpers
import numpy as np
import pytest
import tensorflow as tf

from ppo_agent.checkpoint import CheckpointError, CheckpointMismatchError, TrainingCheckpoint
from ppo_agent.drivers import EpisodeStatistics, TFCartPole

KEYWORDS = {"minibatch_size": 8, "num_epochs": 2, "normalize_rewards_by": "return", "use_gae": True}
OPTIMIZERS = {
    "keras": lambda: tf.keras.optimizers.Adam(0.01),
    "legacy": lambda: tf.keras.optimizers.legacy.Adam(0.01),
    "v1": lambda: tf.compat.v1.train.AdamOptimizer(0.01),
    "momentum": lambda: tf.keras.optimizers.SGD(1e-4, momentum=0.9),
    "default": lambda: None,
}


def make_agent(seed: int, optimizer: str = "keras", **keywords):
    tf.random.set_seed(seed)
    return helpers.make_agent(**{**KEYWORDS, **keywords}, optimizer=OPTIMIZERS[optimizer]())


def state_of(checkpoint: TrainingCheckpoint) -> dict[str, bytes]:
    arrays, _ = checkpoint.snapshot()
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize(
    "optimizer", ["keras", "legacy", *(pytest.param(name, marks=pytest.mark.slow) for name in list(OPTIMIZERS)[2:])]
)
def test_training_goes_on_where_it_was(optimizer: str, rng: np.random.Generator, tmp_path: Path) -> None:
    agent = make_agent(0, optimizer)
    experience = helpers.make_experience(agent, rng)
    agent.train(experience)
    checkpoint = TrainingCheckpoint(tmp_path, agent=agent)
    checkpoint.save(7)
    other = make_agent(1, optimizer)
    restored = TrainingCheckpoint(tmp_path, agent=other)
    assert restored.restore() == 7
    assert state_of(restored) == state_of(checkpoint)
    assert int(other.train_step_counter) == int(agent.train_step_counter) > 0
    losses = [float(a.train(experience).loss) for a in (agent, other)]
    assert losses[0] == losses[1]
    assert state_of(restored) == state_of(checkpoint)


@pytest.mark.slow
def test_names_of_variables_do_not_matter(rng: np.random.Generator, tmp_path: Path) -> None:
    """Keras numbers layers through; dense_9 comes after dense_10 then."""

    def make(first: int):
        tf.keras.backend.reset_uids()
        for _ in range(first):
            tf.keras.layers.Dense(1)
        net, value_net = helpers.make_networks("legacy", helpers.CONTINUOUS)
        return helpers.make_agent(nets=(net, value_net), optimizer=tf.keras.optimizers.Adam(0.01), **KEYWORDS)

    agent, other = make(1), make(8)
    experience = helpers.make_experience(agent, rng)
    agent.train(experience)
    names = [[variable.name for variable in a._trained_variables()] for a in (agent, other)]
    assert names[0] != names[1]
    TrainingCheckpoint(tmp_path, agent=agent).save(1)
    TrainingCheckpoint(tmp_path, agent=other).restore()
    losses = [float(a.train(experience).loss) for a in (agent, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_other_parts_are_saved_too(tmp_path: Path) -> None:
    envs = [TFCartPole(num_environments=2, seed=seed) for seed in (1, 2)]
    for _ in range(3):
        envs[0].step(tf.ones([2], tf.int64))
    statistics = [EpisodeStatistics(), EpisodeStatistics()]
    statistics[0].set_state({**statistics[0].get_state(), "num_episodes": 5, "recent": [[1.5, 3]]})
    for env, part in zip(envs, statistics, strict=True):
        checkpoint = TrainingCheckpoint(tmp_path, agent=make_agent(0), env=env, statistics=part)
        if env is envs[0]:
            checkpoint.save(1)
        else:
            checkpoint.restore()
    assert statistics[1].get_state() == statistics[0].get_state()
    steps = [env.step(tf.zeros([2], tf.int64)) for env in envs]
    np.testing.assert_array_equal(*(step.observation for step in steps))


MISFITS = {
    "layers": ({"nets": "wide"}, ["_actor_net", "kernel", "float32"]),
    "hyper-parameters": (
        {"num_epochs": 3, "lambda_value": 0.5},
        ["num_epochs is 3, the checkpoint's 2", "lambda_value"],
    ),
    "actions": ({"action_spec": helpers.DISCRETE}, ["action . dtype is 'int32', the checkpoint's 'float32'"]),
    "optimizer": ({"optimizer": "momentum"}, ["optimizer is 'SGD', the checkpoint's 'Adam'"]),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_listed_and_changes_nothing(name: str, tmp_path: Path) -> None:
    keywords, words = MISFITS[name]
    TrainingCheckpoint(tmp_path, agent=make_agent(0)).save(1)
    if "nets" in keywords:
        keywords = {"nets": helpers.make_networks("legacy", helpers.CONTINUOUS)}
    agent = make_agent(1, **keywords)
    checkpoint = TrainingCheckpoint(tmp_path, agent=agent)
    before = state_of(checkpoint)
    with pytest.raises(CheckpointMismatchError) as caught:
        checkpoint.restore()
    assert all(word in str(caught.value) for word in words), caught.value
    assert state_of(checkpoint) == before


def test_a_checkpoint_older_than_the_carries_of_means_is_loaded(rng: np.random.Generator, tmp_path: Path) -> None:
    old, new = (TrainingCheckpoint(tmp_path, agent=make_agent(seed)) for seed in (1, 2))
    old._agent.train(helpers.make_experience(old._agent, rng))
    arrays, state = old.snapshot()
    carries = [name for name in arrays if "_avg_carry" in name]
    assert any("_observation_normalizer" in name for name in carries)
    assert any("_reward_normalizer" in name for name in carries)
    old.write(1, {name: array for name, array in arrays.items() if name not in carries}, state)
    new.restore()
    for name, array in new.snapshot()[0].items():
        np.testing.assert_array_equal(array, np.zeros_like(array) if name in carries else arrays[name])


def test_a_checkpoint_older_than_the_means_in_the_report_is_loaded(rng: np.random.Generator, tmp_path: Path) -> None:
    old, new = (TrainingCheckpoint(tmp_path, agent=make_agent(seed)) for seed in (1, 2))
    old._agent.train(helpers.make_experience(old._agent, rng))
    arrays, state = old.snapshot()
    report = arrays["agent/_report"]
    old.write(1, {**arrays, "agent/_report": report[:17]}, state)
    new.restore()
    np.testing.assert_array_equal(new.snapshot()[0]["agent/_report"][:17], report[:17])
    assert new._agent.train_metrics()["loss"] == old._agent.train_metrics()["loss"]
    old.write(2, {**arrays, "agent/_report": report[:16]}, state)
    with pytest.raises(CheckpointMismatchError, match="_report"):
        new.restore()


def test_what_may_differ_is_up_to_the_user(tmp_path: Path) -> None:
    TrainingCheckpoint(tmp_path, agent=make_agent(0)).save(4)
    agent = make_agent(1, num_epochs=3)
    assert TrainingCheckpoint(tmp_path, agent=agent, may_differ=["num_epochs"]).restore() == 4


def test_parts_that_are_missing_are_listed(tmp_path: Path) -> None:
    TrainingCheckpoint(tmp_path, agent=make_agent(0), statistics=EpisodeStatistics()).save(4)
    with pytest.raises(CheckpointMismatchError, match="holds the part statistics, expected to be given one"):
        TrainingCheckpoint(tmp_path, agent=make_agent(0)).restore()
    with pytest.raises(TypeError, match="driver is 3, expected"):
        TrainingCheckpoint(tmp_path, agent=make_agent(0), driver=3)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("run/checkpoints/checkpoint-1-7", "run/checkpoints"),
        ("run/checkpoints/checkpoint-1-7/manifest.json", "run/checkpoints"),
        ("run", "run/checkpoints"),
        ("moved", ""),
    ],
)
def test_a_place_beside_the_checkpoints_is_an_error(place: str, expected: str, tmp_path: Path) -> None:
    """A None would let the caller start from nothing."""
    agent = make_agent(0)
    written = TrainingCheckpoint(tmp_path / "run" / "checkpoints", agent=agent).save(7)
    (tmp_path / "moved").mkdir()
    for file in written.iterdir():
        (tmp_path / "moved" / file.name).write_bytes(file.read_bytes())
    before = helpers.state_of(agent)
    message = f"^directory is {tmp_path / place}, expected the folder that holds the checkpoints: {tmp_path / expected}"
    with pytest.raises(CheckpointError, match=message):
        TrainingCheckpoint(tmp_path / place, agent=agent).restore()
    helpers.assert_same_state(helpers.state_of(agent), before)


def test_a_folder_that_is_not_there_yet_has_none(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "later"):
        assert TrainingCheckpoint(folder, agent=make_agent(0)).restore() is None
